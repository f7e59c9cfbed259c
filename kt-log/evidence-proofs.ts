/**
 * Making evidence: from what a log signed to bytes that anybody can check. Nothing leaves here that
 * checkEvidence does not accept, and cosignatures are stripped: they are nobody's business in it.
 * Browser-safe.
 */
import { openAuditBundle } from './auditor.ts';
import type { CheckedEvidence, EvidenceKeys, ValueRule } from './evidence-check.ts';
import { checkEvidence } from './evidence-check.ts';
import type { EvidenceBody, ShownEntry, ShownVersion, SignedHead, Statement } from './evidence.ts';
import { encodeEvidence } from './evidence.ts';
import type { Sha256, TreeHasher } from './hash.ts';
import { compareBytes, keytransHasher, rfc6962Hasher, sameBytes } from './hash.ts';
import type { RetainedLog } from './log-tree.ts';
import { fullSubtrees, leavesOf, nodeId } from './log-tree.ts';
import { GrownTree } from './node-path.ts';
import type { NoteKey } from './note.ts';
import { formatNote, openCheckpoint, parseNote } from './note.ts';
import type { ReplayedState } from './replayed-state.ts';
import type { VerifierSuite } from './suite.ts';
import { verifyTreeHead } from './tree-head.ts';
import { verify, VerificationError } from './verification-error.ts';

/** Evidence with what it proves. */
export interface MadeEvidence {
  readonly bytes: Uint8Array;
  readonly checked: CheckedEvidence;
}

/** The note with the log's own signature only. Throws VerificationError for a note without it. */
export function ownNote(key: NoteKey, bytes: Uint8Array): Uint8Array {
  const { text, signatures } = parseNote(bytes);
  const own = signatures.find((one) => one.name === key.name && one.keyId === key.keyId);
  verify(own !== undefined, 'BAD_SIGNATURE', 'signed note', "the log's signature");
  return new TextEncoder().encode(formatNote({ text, signatures: [own] }));
}

function prove(
  suite: VerifierSuite,
  log: EvidenceKeys,
  body: EvidenceBody,
  rule?: ValueRule,
): MadeEvidence {
  const { origin, config, key } = log;
  const bytes = encodeEvidence({ origin, config, key, body });
  return { bytes, checked: checkEvidence(suite, bytes, rule) };
}

function keyOf({ key }: EvidenceKeys): NoteKey {
  verify(key !== undefined, 'NOT_FOUND', 'keys of the log', 'its checkpoint key');
  return key;
}
function stripped(log: EvidenceKeys, statement: Statement): Statement {
  return statement.type === 'head'
    ? statement
    : { type: 'note', note: ownNote(keyOf(log), statement.note) };
}
const bytesOf = (statement: Statement): Uint8Array =>
  statement.type === 'note' ? statement.note : statement.head.root;

/**
 * Two statements of one size that differ: `same-size`, or `note-vs-head` for a checkpoint and a
 * TreeHead. Throws VerificationError, as every maker here does, when this proves nothing.
 */
export function proveSameSize(
  suite: VerifierSuite,
  log: EvidenceKeys,
  a: Statement,
  b: Statement,
): MadeEvidence {
  // The order says nothing; one order makes the same evidence the same bytes for everybody.
  const [first, second] = [stripped(log, a), stripped(log, b)].toSorted((one, other) =>
    compareBytes(bytesOf(one), bytesOf(other)),
  );
  verify(first !== undefined && second !== undefined, 'COUNT', 'statements', 'two');
  if (first.type === second.type) {
    return prove(suite, log, { kind: 'same-size', statements: [first, second] });
  }
  const [note, head] = first.type === 'note' ? [first, second] : [second, first];
  verify(note.type === 'note' && head.type === 'head', 'MALFORMED', 'statements', 'two types');
  return prove(suite, log, { kind: 'note-vs-head', note: note.note, head: head.head });
}

/**
 * Two heads of one type whose trees are not one another's prefix: the full subtrees of the older
 * tree, and the newer tree as far as it is known.
 */
export function proveInconsistent(
  suite: VerifierSuite,
  log: EvidenceKeys,
  older: { readonly statement: Statement; readonly tree: RetainedLog },
  newer: { readonly statement: Statement; readonly tree: GrownTree },
): MadeEvidence {
  const hasher = hasherOf(suite.sha256, older.statement);
  const { size, heads } = older.tree;
  const olderTree = new GrownTree(hasher, older.tree, []);
  for (const [i, node] of fullSubtrees(size).entries()) {
    const { start, length } = leavesOf(node);
    const [value, other] = [heads[i], newer.tree.valueOver(start, length)];
    if (value === undefined || other === undefined || sameBytes(value, other)) continue;
    const path = olderTree.pathOf(size, node);
    const otherPath = newer.tree.pathOf(newer.tree.size, node);
    if (path === undefined || otherPath === undefined) continue;
    return prove(suite, log, {
      kind: 'inconsistent',
      shows: 'nodes',
      node,
      older: { statement: stripped(log, older.statement), value, path },
      newer: { statement: stripped(log, newer.statement), value: other, path: otherPath },
    });
  }
  throw new VerificationError('NOT_FOUND', 'two trees', 'a known node in which they differ');
}

const hasherOf = (sha256: Sha256, { type }: Statement): TreeHasher =>
  type === 'note' ? rfc6962Hasher(sha256) : keytransHasher(sha256);

/** Entries `positions` of a signed tree, the later one with an earlier time. */
export function proveTime(
  suite: VerifierSuite,
  log: EvidenceKeys,
  statement: Statement,
  entries: readonly Uint8Array[],
  positions: readonly [number, number],
): MadeEvidence {
  const hasher = hasherOf(suite.sha256, statement);
  const tree = new GrownTree(hasher, { size: 0, heads: [] }, entries);
  const shown = (position: number): ShownEntry => {
    const entry = entries[position];
    const path = tree.pathOf(tree.size, nodeId(position, 1));
    verify(entry !== undefined && path !== undefined, 'COUNT', 'entry', 'one of the tree');
    return { position, entry, path };
  };
  return prove(suite, log, {
    kind: 'time',
    statement: stripped(log, statement),
    entries: [shown(positions[0]), shown(positions[1])],
  });
}

/** A signed bundle whose replay fails, and the state that it continues, where that is needed. */
export function proveBadUpdate(
  suite: VerifierSuite,
  log: EvidenceKeys,
  before: ReplayedState | undefined,
  bundle: Uint8Array,
): MadeEvidence {
  const key = keyOf(log);
  const state = before && { ...before, note: ownNote(key, before.note) };
  return prove(suite, log, { kind: 'bad-update', before: state, bundle });
}

/** A version that its value, or the one before, forbids. `seenMs`: when the answers were fresh. */
export function proveBadValue(
  suite: VerifierSuite,
  log: EvidenceKeys,
  label: Uint8Array,
  seenMs: number,
  versions: readonly ShownVersion[],
  rule: ValueRule,
): MadeEvidence {
  return prove(suite, log, { kind: 'bad-value', label, seenMs, versions }, rule);
}

/** What a fork is proved from. */
export type ForkItem = Statement | { readonly type: 'bundle'; readonly bundle: Uint8Array };

/**
 * Evidence from any two things that the log signed. Throws VerificationError: BAD_SIGNATURE or
 * MALFORMED for an item that is not the log's, NOT_FOUND with the reason when two items do not
 * contradict one another or cannot be compared.
 */
export function proveFork(
  suite: VerifierSuite,
  log: EvidenceKeys,
  a: ForkItem,
  b: ForkItem,
): MadeEvidence {
  const [first, second] = [openItem(suite, log, a), openItem(suite, log, b)];
  const [at, then] = [first.statement, second.statement];
  const tries: (() => MadeEvidence)[] = [() => proveSameSize(suite, log, at, then)];
  const bundles = [first.bundle, second.bundle].filter((one) => one !== undefined);
  const [one, other] = bundles;
  for (const bundle of bundles) {
    for (const statement of [at, then]) {
      if (statement.type === 'head') continue;
      const note = ownNote(keyOf(log), statement.note);
      tries.push(() => prove(suite, log, { kind: 'inconsistent', shows: 'entries', note, bundle }));
    }
  }
  if (one !== undefined && other !== undefined) {
    const [low, high] = compareBytes(one, other) <= 0 ? [one, other] : [other, one];
    tries.push(() =>
      prove(suite, log, { kind: 'inconsistent', shows: 'bundles', bundles: [low, high] }),
    );
  }
  tries.push(...bundles.map((bundle) => () => proveBadUpdate(suite, log, undefined, bundle)));
  for (const run of tries) {
    const made = proven(run);
    if (made !== undefined) return made;
  }
  const isComparable = first.size === second.size || bundles.length > 0;
  throw new VerificationError(
    'NOT_FOUND',
    `heads of size ${first.size} and ${second.size}`,
    isComparable
      ? 'a contradiction between them'
      : 'the same size, or an audit bundle that reaches from entry 0 over the smaller one',
  );
}

/** What `run` proves; undefined when that is nothing. */
export function proven(run: () => MadeEvidence): MadeEvidence | undefined {
  try {
    return run();
  } catch (error) {
    if (error instanceof VerificationError) return undefined;
    throw error;
  }
}

interface OpenedItem {
  readonly statement: Statement;
  readonly size: number;
  readonly bundle: Uint8Array | undefined;
}

function openItem(suite: VerifierSuite, log: EvidenceKeys, item: ForkItem): OpenedItem {
  if (item.type === 'head') return openHead(suite, log, item.head);
  const identity = { origin: log.origin, key: keyOf(log) };
  const bundle = item.type === 'bundle' ? item.bundle : undefined;
  const note =
    item.type === 'note' ? item.note : openAuditBundle(suite, identity.key, item.bundle).checkpoint;
  const { checkpoint } = openCheckpoint(suite, note, identity);
  return { statement: { type: 'note', note }, size: checkpoint.size, bundle };
}

function openHead(suite: VerifierSuite, { config }: EvidenceKeys, head: SignedHead): OpenedItem {
  verify(config !== undefined, 'NOT_FOUND', 'keys of the log', 'its configuration');
  const { size, root, signature } = head;
  verifyTreeHead(suite, config, { treeSize: size, signature }, root);
  return { statement: { type: 'head', head }, size, bundle: undefined };
}
