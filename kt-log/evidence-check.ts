/**
 * Judging evidence: one function, offline, with nothing but the bytes. Whoever knows the log's keys
 * compares them (`isAgainst`); whoever does not learns which keys are convicted. Browser-safe.
 */
import { QpcError } from '@quicprochat/proto/status';
import {
  convicts,
  openAuditBundle,
  replayAuditBundle,
  replayEntry,
  verifyCheckpointRoots,
} from './auditor.ts';
import type { AuditBundle } from './auditor.ts';
import { emptyAudit } from './auditor-update.ts';
import type { AuditedLog, AuditorUpdate } from './auditor-update.ts';
import type { Configuration } from './codec.ts';
import { configuration } from './codec.ts';
import type {
  Evidence,
  EvidenceBody,
  EvidenceKind,
  ShownEntry,
  ShownNode,
  SignedHead,
  Statement,
} from './evidence.ts';
import { decodeEvidence } from './evidence.ts';
import type { Hash, Sha256, TreeHasher } from './hash.ts';
import { keytransHasher, prefixHasher, rfc6962Hasher, sameBytes, zeroHash } from './hash.ts';
import { fullSubtrees, leavesOf, nodeId, rootOfHeads } from './log-tree.ts';
import { GrownTree, rootOverNode } from './node-path.ts';
import type { NoteKey } from './note.ts';
import { keytransRoot, openCheckpoint } from './note.ts';
import { evaluateInsertion } from './prefix-proof.ts';
import { encode } from './presentation.ts';
import type { ReplayedState } from './replayed-state.ts';
import { auditedOf, entryTimeMs } from './replayed-state.ts';
import type { VerifierSuite } from './suite.ts';
import { verifyTreeHead } from './tree-head.ts';
import { verify, VerificationError } from './verification-error.ts';
import { logVerifier } from './verify-response.ts';
import { verifySearch } from './verify-search.ts';

/**
 * What a version's value must not be: the breach in words, or undefined. `previous` is the value of
 * the version before, where the evidence holds it.
 */
export type ValueRule = (
  label: Uint8Array,
  version: number,
  value: Uint8Array,
  previous: Uint8Array | undefined,
) => string | undefined;

/** A log's name and the keys that judge it. */
export interface EvidenceKeys {
  readonly origin: string;
  /** Of its TreeHeads. */
  readonly config?: Configuration | undefined;
  /** Of its checkpoints and audit bundles. */
  readonly key?: NoteKey | undefined;
}

/** Evidence that holds: whoever has these keys did what `explain` says. */
export interface CheckedEvidence extends EvidenceKeys {
  readonly kind: EvidenceKind;
  /** One sentence for people. */
  readonly explain: string;
  /** The signed heads that it is about. */
  readonly heads: readonly { readonly size: number; readonly root: Hash }[];
}

/**
 * Verifies evidence of any kind. The origin is the name of the checkpoint key, where there is
 * one; TreeHeads alone name no origin. Throws VerificationError when it
 * proves nothing: MALFORMED, BAD_SIGNATURE, COUNT, BAD_ROOT, or NOT_FOUND for material of a log that
 * did nothing wrong. `bad-value` needs the rule of the log's values.
 */
export function checkEvidence(
  suite: VerifierSuite,
  bytes: Uint8Array,
  rule?: ValueRule,
): CheckedEvidence {
  const evidence = decodeEvidence(suite.sha256, bytes);
  const { origin, config, key, body } = evidence;
  // A bundle names no origin, but its key does.
  const isNamed = key === undefined || key.name === origin;
  verify(isNamed, 'CHAIN', 'evidence origin', 'the name of its checkpoint key');
  const judge = new Judge(suite, evidence);
  return { origin, config, key, kind: body.kind, ...judge.verdict(body, rule) };
}

/**
 * Whether evidence convicts the log that is known by these keys: every key that it used is one of
 * them. Without this, a checkpoint of one log and a TreeHead of another would convict the first.
 */
export function isAgainst(checked: EvidenceKeys, known: EvidenceKeys): boolean {
  const { config, key } = checked;
  const isKey =
    key === undefined ||
    (known.key !== undefined &&
      key.name === known.key.name &&
      sameBytes(key.publicKey, known.key.publicKey));
  const isConfig =
    config === undefined ||
    (known.config !== undefined &&
      sameBytes(encode(configuration, config), encode(configuration, known.config)));
  return checked.origin === known.origin && isKey && isConfig;
}

type Verdict = Pick<CheckedEvidence, 'explain' | 'heads'>;

/** A verified statement: the tree that it is about, and its root. */
interface OpenedStatement {
  readonly size: number;
  readonly root: Hash;
  /** KEYTRANS root; a note may not name one. */
  readonly keytrans: Hash | undefined;
  readonly hasher: TreeHasher;
}

const shown = ({ size, root }: OpenedStatement) => ({ size, root });
const proves = (holds: boolean, checked: string, expected: string): void =>
  verify(holds, 'NOT_FOUND', checked, expected);
const hex = (bytes: Uint8Array): string =>
  Array.from(bytes.subarray(0, 8), (byte) => byte.toString(16).padStart(2, '0')).join('');

class Judge {
  readonly #suite: VerifierSuite;
  readonly #evidence: Evidence;

  constructor(suite: VerifierSuite, evidence: Evidence) {
    this.#suite = suite;
    this.#evidence = evidence;
  }

  verdict(body: EvidenceBody, rule: ValueRule | undefined): Verdict {
    switch (body.kind) {
      case 'same-size':
        return this.#sameSize(...body.statements);
      case 'note-vs-head':
        return this.#noteVersusHead(body.note, body.head);
      case 'inconsistent':
        switch (body.shows) {
          case 'nodes':
            return this.#nodes(body.node, body.older, body.newer);
          case 'entries':
            return this.#entries(body.note, body.bundle);
          case 'bundles':
            return this.#bundles(...body.bundles);
        }
      // oxlint-disable-next-line no-fallthrough -- the inner switch returns in every case
      case 'time':
        return this.#time(body.statement, body.entries);
      case 'bad-update':
        return this.#badUpdate(body.before, body.bundle);
      case 'bad-value':
        return this.#badValue(body, rule);
    }
  }

  #key(): NoteKey {
    const { key } = this.#evidence;
    verify(key !== undefined, 'MALFORMED', 'evidence keys', 'a checkpoint key');
    return key;
  }
  #config(): Configuration {
    const { config } = this.#evidence;
    verify(config !== undefined, 'MALFORMED', 'evidence keys', 'a configuration');
    return config;
  }

  #note(bytes: Uint8Array): OpenedStatement {
    const identity = { origin: this.#evidence.origin, key: this.#key() };
    const { note, checkpoint } = openCheckpoint(this.#suite, bytes, identity);
    // Other signatures are not checked here, so evidence carries none.
    verify(note.signatures.length === 1, 'MALFORMED', 'signed note', "the log's signature only");
    const { size, root } = checkpoint;
    const hasher = rfc6962Hasher(this.#suite.sha256);
    return { size, root, keytrans: keytransRoot(checkpoint), hasher };
  }
  #head(head: SignedHead): OpenedStatement {
    const { size, root, signature } = head;
    verifyTreeHead(this.#suite, this.#config(), { treeSize: size, signature }, root);
    return { size, root, keytrans: root, hasher: keytransHasher(this.#suite.sha256) };
  }
  #open(statement: Statement): OpenedStatement {
    return statement.type === 'note' ? this.#note(statement.note) : this.#head(statement.head);
  }
  #bundle(bytes: Uint8Array): AuditBundle {
    return openAuditBundle(this.#suite, this.#key(), bytes);
  }

  #sameSize(first: Statement, second: Statement): Verdict {
    verify(first.type === second.type, 'MALFORMED', 'two statements', 'of one type');
    const heads = [this.#open(first), this.#open(second)] as const;
    const [a, b] = heads;
    proves(a.size === b.size, 'two heads', 'the same size');
    const isOther =
      a.keytrans !== undefined && b.keytrans !== undefined && !sameBytes(a.keytrans, b.keytrans);
    proves(isOther || !sameBytes(a.root, b.root), 'two heads of one size', 'different roots');
    const what = first.type === 'note' ? 'checkpoints' : 'tree heads';
    const roots = sameBytes(a.root, b.root)
      ? 'another KEYTRANS root'
      : `roots ${hex(a.root)} and ${hex(b.root)}`;
    const explain = `the log signed two ${what} of size ${a.size} with ${roots}`;
    return { explain, heads: heads.map(shown) };
  }

  #noteVersusHead(note: Uint8Array, head: SignedHead): Verdict {
    const heads = [this.#note(note), this.#head(head)] as const;
    const [checkpoint, { size, root }] = heads;
    proves(checkpoint.size === size, 'checkpoint and tree head', 'the same size');
    const { keytrans } = checkpoint;
    const isOther = keytrans !== undefined && !sameBytes(keytrans, root);
    proves(isOther, 'checkpoint and tree head', 'different KEYTRANS roots');
    const roots = `${hex(keytrans ?? root)}, its tree head ${hex(root)}`;
    const explain = `the log's checkpoint of size ${size} names root ${roots}`;
    return { explain, heads: heads.map(shown) };
  }

  #nodes(node: number, older: ShownNode, newer: ShownNode): Verdict {
    verify(
      older.statement.type === newer.statement.type,
      'MALFORMED',
      'two statements',
      'of one type',
    );
    const heads = [this.#open(older.statement), this.#open(newer.statement)] as const;
    const [a, b] = heads;
    proves(a.size < b.size, 'two heads', 'the smaller one first');
    for (const [head, { value, path }] of [
      [a, older],
      [b, newer],
    ] as const) {
      const root = rootOverNode(head.hasher, head.size, node, value, path);
      verify(sameBytes(root, head.root), 'BAD_ROOT', 'path of a tree node', 'the signed root');
    }
    proves(!sameBytes(older.value, newer.value), 'one node in two heads', 'different values');
    const { start, length } = leavesOf(node);
    const where = length === 1 ? `entry ${start}` : `entries ${start} to ${start + length - 1}`;
    const explain = `the heads of size ${a.size} and ${b.size} contain different ${where}`;
    return { explain, heads: heads.map(shown) };
  }

  #entries(note: Uint8Array, bytes: Uint8Array): Verdict {
    const { size, root, keytrans } = this.#note(note);
    const bundle = this.#bundle(bytes);
    verify(bundle.from === 0, 'COUNT', 'audit bundle', 'all entries from 0 on');
    const isIn = size > 0 && size <= bundle.entries.length;
    proves(isIn, 'checkpoint and bundle', 'entries up to the size of the checkpoint');
    const { sha256 } = this.#suite;
    const rootBy = (hasher: TreeHasher): Hash | undefined =>
      new GrownTree(hasher, { size: 0, heads: [] }, bundle.entries.slice(0, size)).rootAt(size);
    const [rfc6962, ours] = [rootBy(rfc6962Hasher(sha256)), rootBy(keytransHasher(sha256))];
    const isOther =
      (rfc6962 !== undefined && !sameBytes(root, rfc6962)) ||
      (ours !== undefined && keytrans !== undefined && !sameBytes(keytrans, ours));
    proves(isOther, 'checkpoint and bundle', 'different roots');
    const explain = `the checkpoint of size ${size} has root ${hex(root)}, the first ${size} entries of a signed bundle another one`;
    return { explain, heads: [{ size, root }] };
  }

  #bundles(first: Uint8Array, second: Uint8Array): Verdict {
    const [a, b] = [this.#bundle(first), this.#bundle(second)];
    const from = Math.max(a.from, b.from);
    const to = Math.min(a.from + a.entries.length, b.from + b.entries.length);
    for (let position = from; position < to; position++) {
      const [one, other] = [a.entries[position - a.from], b.entries[position - b.from]];
      if (one === undefined || other === undefined || sameBytes(one, other)) continue;
      return { explain: `two signed bundles list different entries ${position}`, heads: [] };
    }
    throw new VerificationError('NOT_FOUND', 'two bundles', 'different entries at one position');
  }

  #time(statement: Statement, [first, second]: readonly [ShownEntry, ShownEntry]): Verdict {
    const head = this.#open(statement);
    const times = [first, second].map(({ position, entry, path }) => {
      const { hasher, size } = head;
      const root = rootOverNode(hasher, size, nodeId(position, 1), hasher.leaf(entry), path);
      verify(sameBytes(root, head.root), 'BAD_ROOT', 'path of an entry', 'the signed root');
      return entryTimeMs(entry);
    });
    const [before = 0, after = 0] = times;
    const goesBack = first.position < second.position && before > after;
    proves(goesBack, 'two entries', 'times that go back');
    const explain = `time went back by ${before - after} ms from entry ${first.position} to ${second.position}`;
    return { explain, heads: [shown(head)] };
  }

  #badUpdate(before: ReplayedState | undefined, bytes: Uint8Array): Verdict {
    const state = before === undefined ? undefined : this.#state(before);
    const bundle = this.#bundle(bytes);
    const failure = this.#failureOf(state, bundle);
    proves(failure !== undefined, 'replay of a bundle', 'an entry where it fails');
    verify(failure !== undefined && convicts(failure), 'NOT_FOUND', 'replay', 'a breach');
    const end = bundle.from + bundle.entries.length;
    const explain = `the signed entries ${bundle.from} to ${end - 1} cannot be replayed: ${failure.message}`;
    return { explain, heads: [] };
  }

  /** The state that a checkpoint and the entry before it stand for. */
  #state(given: ReplayedState): AuditedLog {
    const { origin } = this.#evidence;
    const identity = { origin, key: this.#key() };
    const { note, checkpoint } = openCheckpoint(this.#suite, given.note, identity);
    verify(note.signatures.length === 1, 'MALFORMED', 'signed note', "the log's signature only");
    const { sha256 } = this.#suite;
    const grown = auditedOf(sha256, given, checkpoint.size);
    verifyCheckpointRoots(sha256, grown, checkpoint);
    return grown;
  }

  /** Why the replay fails; undefined if it does not. */
  #failureOf(state: AuditedLog | undefined, bundle: AuditBundle): VerificationError | undefined {
    const identity = { origin: this.#evidence.origin, key: this.#key() };
    try {
      if (state !== undefined || bundle.from === 0) {
        const before = state ?? emptyAudit;
        replayAuditBundle(this.#suite, identity, before, bundle, Number.POSITIVE_INFINITY);
      } else {
        this.#replayAlone(bundle);
      }
      return undefined;
    } catch (error) {
      if (!(error instanceof VerificationError)) throw error;
      return error;
    }
  }

  /** Replays what a bundle shows without the state before it: each entry on the one before. */
  #replayAlone({ from, entries, updates }: AuditBundle): void {
    const isWhole = entries.length === updates.length;
    verify(isWhole, 'COUNT', 'audit bundle entries', 'one update for each');
    const { sha256 } = this.#suite;
    // The position is for the messages only: trees are not compared here.
    const heads = fullSubtrees(from).map(() => zeroHash);
    let state: AuditedLog = {
      log: { size: from, heads },
      rfc6962: { size: from, heads },
      newestMs: 0,
      prefixRoot: zeroHash,
    };
    for (const [i, update] of updates.entries()) {
      if (i === 0) state = { ...state, prefixRoot: rootBefore(sha256, update) };
      state = replayEntry(sha256, state, update, entries[i]);
    }
  }

  #badValue(body: EvidenceBody & { kind: 'bad-value' }, rule: ValueRule | undefined): Verdict {
    const { label, seenMs, versions } = body;
    verify(rule !== undefined, 'NOT_FOUND', 'bad value', 'the rule of this log’s values');
    const log = this.#verifier();
    const found = versions.map(({ version, response }) => {
      const request = version === undefined ? { label } : { label, version };
      return verifySearch(log, undefined, request, response, seenMs);
    });
    const last = found.at(-1)?.found;
    verify(last !== undefined, 'COUNT', 'versions', 'one or two');
    const previous = found.length > 1 ? found[0]?.found : undefined;
    const follows = previous === undefined || previous.version + 1 === last.version;
    verify(follows, 'COUNT', 'versions', 'one after the other');
    const breach = rule(label, last.version, last.value, previous?.value);
    proves(breach !== undefined, 'value of a version', 'one that breaks its rules');
    const explain = `version ${last.version} of a label cannot be: ${breach}`;
    const hasher = keytransHasher(this.#suite.sha256);
    const heads = found.map(({ state }) => ({
      size: state.heads.treeHead.treeSize,
      root: rootOfHeads(hasher, state.view.size, state.view.heads),
    }));
    return { explain, heads };
  }

  #verifier() {
    try {
      return logVerifier(this.#config(), this.#suite);
    } catch (error) {
      if (!(error instanceof QpcError)) throw error;
      throw new VerificationError('MALFORMED', 'evidence config', 'one that a log may have', error);
    }
  }
}

/** The tree that an update is about by its own word; the replay names what is wrong with it. */
function rootBefore(sha256: Sha256, { added, proof }: AuditorUpdate): Hash {
  try {
    return evaluateInsertion(prefixHasher(sha256), added, proof).before;
  } catch (error) {
    if (!(error instanceof QpcError)) throw error;
    return zeroHash;
  }
}
