/**
 * Following one log: pull, replay every entry, store, and only then cosign; on a contradiction store
 * the evidence, report it, and never cosign again until a person sets the status. A crash between any
 * two steps leaves a state from which the next pull goes on. Time, storage and source come in.
 */
import type { Clock } from '@quicprochat/proto';
import { ConflictError, InvalidArgumentError, QpcError } from '@quicprochat/proto/status';
import type { AuditStore, EvidenceRecord, LogStatus } from './audit-store.ts';
import { isConvicted } from './audit-store.ts';
import type { AuditBundle, AuditedIdentity } from './auditor.ts';
import {
  bundleEntriesMax,
  convicts,
  openAuditBundle,
  replayAuditBundle,
  verifyCheckpointRoots,
} from './auditor.ts';
import type { AuditedLog } from './auditor-update.ts';
import { appendEntry, emptyAudit } from './auditor-update.ts';
import type { CheckedEvidence, EvidenceKeys, ValueRule } from './evidence-check.ts';
import { checkEvidence, isAgainst } from './evidence-check.ts';
import type { MadeEvidence } from './evidence-proofs.ts';
import {
  ownNote,
  proveBadUpdate,
  proveFork,
  proveInconsistent,
  proven,
  proveSameSize,
} from './evidence-proofs.ts';
import type { SignedHead, Statement } from './evidence.ts';
import { keytransHasher, rfc6962Hasher, sameBytes } from './hash.ts';
import { fullSubtrees, leavesOf } from './log-tree.ts';
import type { LogSource } from './log-source.ts';
import { GrownTree } from './node-path.ts';
import type { Checkpoint, NoteKey } from './note.ts';
import { cosign, formatNote, openCheckpoint, parseNote } from './note.ts';
import { decode, encode } from './presentation.ts';
import type { ReplayedState } from './replayed-state.ts';
import { auditedOf, replayedState, replayedStateOf } from './replayed-state.ts';
import type { Signer, VerifierSuite } from './suite.ts';
import { verifyTreeHead } from './tree-head.ts';
import { verify, VerificationError } from './verification-error.ts';

/** One key that cosigns what was replayed; of type cosignature/v1. */
export interface Cosigner {
  readonly key: NoteKey;
  readonly signer: Signer;
}

export interface FollowerOptions {
  readonly suite: VerifierSuite;
  /** The log as it is pinned. */
  readonly log: AuditedIdentity;
  readonly store: AuditStore;
  readonly clock: Clock;
  /** None: a reader that signs nothing. */
  readonly cosigners?: readonly Cosigner[];
  /** Called once evidence is durable and the log convicted; also for evidence that others found. */
  readonly onEvidence?: (record: EvidenceRecord, checked: CheckedEvidence) => void | Promise<void>;
  /** What `bad-value` evidence is judged by. */
  readonly valueRule?: ValueRule;
}

export interface PullOptions {
  readonly signal?: AbortSignal;
  /** Entries that one bundle is asked for, at most 256. */
  readonly bundleEntries?: number;
  /** Called after each bundle that was replayed and stored. */
  readonly onProgress?: (size: number, target: number) => void;
}

/** How a pull ended. */
export interface Pulled {
  readonly status: LogStatus;
  /** Entries replayed. */
  readonly size: number;
  /** Size of the source's checkpoint; undefined if none was had. */
  readonly target: number | undefined;
  /** Why the status is not `ok`. */
  readonly failure: QpcError | undefined;
  /** With status `ok`: the replayed checkpoint with the log's signature and ours. */
  readonly cosigned: Uint8Array | undefined;
  readonly evidence: EvidenceRecord | undefined;
}

/** What a statement that somebody showed means to a follower. */
export type Observation =
  /** It agrees with what is held at its size. */
  | { readonly type: 'agrees' }
  /** It is of a size that was not replayed yet: pull. */
  | { readonly type: 'ahead' }
  /** Nothing is held at its size: get a head of that size from the log. */
  | { readonly type: 'unknown' }
  | { readonly type: 'conflict'; readonly evidence: EvidenceRecord };

/** Ends a pull: the log is convicted, and evidence stored. */
class Conviction extends Error {
  override name = 'Conviction';
  readonly evidence: EvidenceRecord;
  constructor(evidence: EvidenceRecord, cause?: unknown) {
    super('the log is convicted', { cause });
    this.evidence = evidence;
  }
}

/** A state with its encoding's parts; `log` undefined before the first entry. */
interface Held {
  readonly state: AuditedLog;
  readonly shown: ReplayedState | undefined;
}

export class Follower {
  readonly #options: FollowerOptions;
  readonly #origin: string;
  readonly #keys: EvidenceKeys;
  /** Ends of the work before: pulls and observations of one log come one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: FollowerOptions) {
    const { identity, config } = options.log;
    this.#options = options;
    this.#origin = identity.origin;
    this.#keys = { origin: identity.origin, key: identity.key, config };
  }

  /** Entries that were replayed and stored. */
  async size(): Promise<number> {
    return (await this.#options.store.followed(this.#origin))?.size ?? 0;
  }

  /**
   * Replays up to the source's newest checkpoint, then cosigns. Never throws for what a source or a
   * log does: see `status` and `failure`. Throws the store's errors and the signal's reason.
   */
  pull(source: LogSource, options: PullOptions = {}): Promise<Pulled> {
    return this.#alone(() => this.#pull(source, options));
  }

  /**
   * Compares a checkpoint or head that somebody showed with what is held; a head that is new is
   * kept. Throws VerificationError when the log did not sign it.
   */
  observe(statement: Statement): Promise<Observation> {
    return this.#alone(async () => {
      try {
        return await this.#observe(statement);
      } catch (error) {
        if (error instanceof Conviction) return { type: 'conflict', evidence: error.evidence };
        throw error;
      }
    });
  }

  /**
   * Takes evidence that somebody else found. False: it is held already. Throws VerificationError
   * when it proves nothing, or CHAIN when it is not about this log's keys.
   */
  judge(bytes: Uint8Array): Promise<boolean> {
    return this.#alone(async () => {
      const { suite, store, valueRule } = this.#options;
      const hash = suite.sha256(bytes);
      const held = await store.evidence(this.#origin);
      if (held.some((one) => sameBytes(one.hash, hash))) return false;
      const checked = checkEvidence(suite, bytes, valueRule);
      verify(isAgainst(checked, this.#keys), 'CHAIN', 'evidence', 'the keys of the log it names');
      await this.#record({ bytes, checked });
      return true;
    });
  }

  /** Starts the replay at a size instead of at 0: what lies before is taken from the log's word. */
  startAt(source: LogSource, size: number, signal?: AbortSignal): Promise<void> {
    return this.#alone(() => this.#startAt(source, size, signal));
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#turn;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#turn = promise;
    try {
      // Whatever went wrong before was told to whoever asked for it.
      await before.catch(() => undefined);
      return await work();
    } finally {
      resolve();
    }
  }

  async #pull(source: LogSource, options: PullOptions): Promise<Pulled> {
    const { store } = this.#options;
    const before = await store.status(this.#origin);
    let target: number | undefined;
    const ended = async (
      status: LogStatus,
      failure?: QpcError,
      evidence?: EvidenceRecord,
    ): Promise<Pulled> => {
      const cosigned = status === 'ok' ? await this.#cosigned() : undefined;
      return { status, size: await this.size(), target, failure, cosigned, evidence };
    };
    if (before !== undefined && isConvicted(before)) return ended(before);
    let status: LogStatus = 'ok';
    let failure: QpcError | undefined;
    try {
      const checkpoint = this.#open(await source.checkpoint(options.signal));
      target = checkpoint.checkpoint.size;
      await this.#replayTo(source, checkpoint, options);
      const size = await this.size();
      if (size < target) status = 'behind';
    } catch (error) {
      options.signal?.throwIfAborted();
      if (error instanceof Conviction) {
        const cause = error.cause instanceof QpcError ? error.cause : undefined;
        const now = (await store.status(this.#origin)) ?? 'forked';
        return ended(now, cause, error.evidence);
      }
      if (!(error instanceof QpcError)) throw error;
      // Somebody else changed what we stand on; the next pull sees what it is.
      if (error instanceof ConflictError) {
        return ended((await store.status(this.#origin)) ?? 'behind', error);
      }
      failure = error;
      status =
        error instanceof VerificationError && error.reason !== 'TOO_NEW' ? 'suspect' : 'behind';
    }
    if (status !== before) await store.setStatus(this.#origin, status);
    return ended(status, failure);
  }

  #open(bytes: Uint8Array): { readonly note: Uint8Array; readonly checkpoint: Checkpoint } {
    const { suite, log } = this.#options;
    const { checkpoint } = openCheckpoint(suite, bytes, log.identity);
    return { note: ownNote(log.identity.key, bytes), checkpoint };
  }

  async #held(): Promise<Held> {
    const followed = await this.#options.store.followed(this.#origin);
    if (followed === undefined) return { state: emptyAudit, shown: undefined };
    const shown = decode(replayedState, followed.state);
    return { state: auditedOf(this.#options.suite.sha256, shown, followed.size), shown };
  }

  async #replayTo(
    source: LogSource,
    target: { readonly note: Uint8Array; readonly checkpoint: Checkpoint },
    options: PullOptions,
  ): Promise<void> {
    const { size } = target.checkpoint;
    let held = await this.#held();
    const startSize = held.state.log.size;
    while (held.state.log.size < size) {
      const at = held.state.log.size;
      const max = Math.min(options.bundleEntries ?? bundleEntriesMax, size - at);
      const bytes = await source.bundle(at, max, options.signal);
      if (bytes === undefined) return;
      held = await this.#apply(source, held, bytes, options.signal);
      options.onProgress?.(held.state.log.size, size);
    }
    const statement: Statement = { type: 'note', note: target.note };
    if (held.state.log.size === size) await this.#compare(statement, held);
    else await this.#compareHeads(statement, target.checkpoint);
    const isRollback = startSize > size;
    verify(!isRollback, 'ROLLBACK', 'size of the newest checkpoint', `at least ${startSize}`);
  }

  /** Replays one bundle and stores the state. Throws Conviction when the log lied in it. */
  async #apply(
    source: LogSource,
    held: Held,
    bytes: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<Held> {
    const { suite, log, store, clock } = this.#options;
    const { identity, config } = log;
    const bundle = openAuditBundle(suite, identity.key, bytes);
    const { size } = held.state.log;
    const end = bundle.from + bundle.entries.length;
    const given = await source.heads(size + 1, Math.max(1, end - size), signal);
    const heads = await this.#newHeads(given, size + 1);
    let state: AuditedLog;
    try {
      const latestMs = clock.now() + config.maxAheadMs;
      ({ log: state } = replayAuditBundle(suite, identity, held.state, bundle, latestMs));
    } catch (error) {
      if (!(error instanceof VerificationError) || !convicts(error)) throw error;
      throw await this.#convict(source, held, bundle, bytes, error, signal);
    }
    const entries = bundle.entries.slice(size - bundle.from);
    await this.#compareReplay(source, held.state, entries, heads, signal);
    const note = ownNote(identity.key, bundle.checkpoint);
    const shown = replayedStateOf(suite.sha256, held.state, entries, note);
    const { root } = this.#open(note).checkpoint;
    const followed = { size: end, state: encode(replayedState, shown), rfc6962Root: root };
    await store.putHeads(this.#origin, heads);
    await store.advance({ origin: this.#origin, checkpoint: note, ...followed });
    return { state, shown };
  }

  /** Verifies heads of the log; two that differ, or one that differs from a held one, convict it. */
  async #newHeads(heads: readonly SignedHead[], sizeMin: number): Promise<readonly SignedHead[]> {
    const { suite, log } = this.#options;
    const wanted = heads.filter((head) => head.size >= sizeMin);
    for (const { size, root, signature } of wanted) {
      verifyTreeHead(suite, log.config, { treeSize: size, signature }, root);
    }
    const first = new Map<number, SignedHead>();
    for (const head of wanted) {
      const held = first.get(head.size) ?? (await this.#headAt(head.size));
      if (held !== undefined && !sameBytes(held.root, head.root)) {
        throw await this.#conviction(() =>
          proveSameSize(suite, this.#keys, { type: 'head', head: held }, { type: 'head', head }),
        );
      }
      first.set(head.size, head);
    }
    return [...first.values()];
  }

  async #headAt(size: number): Promise<SignedHead | undefined> {
    const [head] = await this.#options.store.heads(this.#origin, size, 1);
    return head?.size === size ? head : undefined;
  }

  /** Heads of sizes just replayed, new ones and held ones, have to have the roots of the replay. */
  async #compareReplay(
    source: LogSource,
    before: AuditedLog,
    entries: readonly Uint8Array[],
    given: readonly SignedHead[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { suite, store } = this.#options;
    const from = before.log.size + 1;
    const tree = new GrownTree(keytransHasher(suite.sha256), before.log, entries);
    for (const head of [...(await store.heads(this.#origin, from, entries.length)), ...given]) {
      if (head.size > tree.size) continue;
      const root = tree.rootAt(head.size);
      if (root !== undefined && sameBytes(root, head.root)) continue;
      // The log's checkpoint of that size, which the bundle that ends there carries, contradicts it.
      const bundle = await source.bundle(head.size - 1, 1, signal);
      const made =
        bundle &&
        proven(() =>
          proveFork(suite, this.#keys, { type: 'head', head }, { type: 'bundle', bundle }),
        );
      if (made !== undefined) throw await this.#conviction(() => made);
      throw new VerificationError('FORK', `tree head of size ${head.size}`, 'the replayed root');
    }
  }

  /** Compares a statement with the replayed state of the same size. */
  async #compare(statement: Statement, held: Held): Promise<void> {
    const { suite } = this.#options;
    const { shown } = held;
    if (shown === undefined) return;
    const ours: Statement = { type: 'note', note: shown.note };
    const made = proven(() => proveSameSize(suite, this.#keys, ours, statement));
    if (made !== undefined) throw await this.#conviction(() => made);
    if (statement.type === 'note') {
      verifyCheckpointRoots(suite.sha256, held.state, this.#open(statement.note).checkpoint);
    }
  }

  /** Compares a checkpoint with the head that is held at its size; true if there is one. */
  async #compareHeads(statement: Statement, { size }: Pick<Checkpoint, 'size'>): Promise<boolean> {
    const head = await this.#headAt(size);
    if (head === undefined) return false;
    const { suite } = this.#options;
    const made = proven(() => proveSameSize(suite, this.#keys, statement, { type: 'head', head }));
    if (made !== undefined) throw await this.#conviction(() => made);
    return true;
  }

  async #observe(statement: Statement): Promise<Observation> {
    const { suite, log, store } = this.#options;
    const size =
      statement.type === 'note' ? this.#open(statement.note).checkpoint.size : statement.head.size;
    if (statement.type === 'head') {
      const { root, signature } = statement.head;
      verifyTreeHead(suite, log.config, { treeSize: size, signature }, root);
    }
    const held = await this.#held();
    const replayed = held.state.log.size;
    if (size === replayed) await this.#compare(statement, held);
    const isHeld = (await this.#compareHeads(statement, { size })) || size === replayed;
    if (statement.type === 'head') await store.putHeads(this.#origin, [statement.head]);
    if (size > replayed) return { type: 'ahead' };
    return { type: isHeld ? 'agrees' : 'unknown' };
  }

  /** The strongest evidence that a bundle whose replay failed gives, small ones first. */
  async #convict(
    source: LogSource,
    held: Held,
    bundle: AuditBundle,
    bytes: Uint8Array,
    failure: VerificationError,
    signal: AbortSignal | undefined,
  ): Promise<Conviction | VerificationError> {
    const { suite } = this.#options;
    const { shown, state } = held;
    const tries: (() => MadeEvidence)[] = [];
    if (shown !== undefined) {
      const ours: Statement = { type: 'note', note: shown.note };
      const { size } = state.log;
      // What does this source show at the size that we replayed?
      const last = await this.#ask(() => source.bundle(size - 1, 1, signal));
      const [head] = (await this.#ask(() => source.heads(size, 1, signal))) ?? [];
      if (last !== undefined) {
        tries.push(() => proveFork(suite, this.#keys, ours, { type: 'bundle', bundle: last }));
      }
      if (head !== undefined) {
        tries.push(() => proveSameSize(suite, this.#keys, ours, { type: 'head', head }));
      }
      tries.push(() => this.#inconsistent(shown, state, bundle));
    }
    tries.push(() => proveBadUpdate(suite, this.#keys, shown, bytes));
    for (const run of tries) {
      const made = proven(run);
      if (made !== undefined) return this.#conviction(() => made, failure);
    }
    return failure;
  }

  /** A source that has no answer takes nothing from what is known already. */
  async #ask<T>(request: () => Promise<T>): Promise<T | undefined> {
    try {
      return await request();
    } catch (error) {
      if (error instanceof QpcError) return undefined;
      throw error;
    }
  }

  /** Our checkpoint against that of a bundle which starts inside the tree that we replayed. */
  #inconsistent(shown: ReplayedState, state: AuditedLog, bundle: AuditBundle): MadeEvidence {
    const { suite } = this.#options;
    const { size, heads } = state.rfc6962;
    const shared = fullSubtrees(size).filter((id) => leavesOf(id).start < bundle.from).length;
    const left = { size: bundle.from, heads: heads.slice(0, shared) };
    const tree = new GrownTree(rfc6962Hasher(suite.sha256), left, bundle.entries);
    return proveInconsistent(
      suite,
      this.#keys,
      { statement: { type: 'note', note: shown.note }, tree: state.rfc6962 },
      { statement: { type: 'note', note: bundle.checkpoint }, tree },
    );
  }

  async #conviction(run: () => MadeEvidence, cause?: VerificationError): Promise<Conviction> {
    return new Conviction(await this.#record(run(), cause), cause);
  }

  async #record({ bytes, checked }: MadeEvidence, cause?: VerificationError) {
    const { suite, store, clock, onEvidence } = this.#options;
    const { kind } = checked;
    const isFork =
      cause?.reason === 'FORK' ||
      (kind !== 'bad-update' && kind !== 'bad-value' && kind !== 'time');
    const hash = suite.sha256(bytes);
    const record = { origin: this.#origin, kind, hash, bytes, foundMs: clock.now() };
    await store.putEvidence(record, isFork ? 'forked' : 'invalid');
    await onEvidence?.(record, checked);
    return record;
  }

  /** Signs what is stored, and nothing else. */
  async #cosigned(): Promise<Uint8Array | undefined> {
    const { store, cosigners = [], clock } = this.#options;
    const followed = await store.followed(this.#origin);
    if (followed === undefined) return undefined;
    const note = parseNote(followed.checkpoint);
    const seconds = Math.floor(clock.now() / 1000);
    const ours = cosigners.map(({ key, signer }) => cosign(note.text, key, signer, seconds));
    const signatures = [...note.signatures, ...ours];
    return new TextEncoder().encode(formatNote({ text: note.text, signatures }));
  }

  async #startAt(source: LogSource, size: number, signal: AbortSignal | undefined): Promise<void> {
    const { suite, log, store } = this.#options;
    const { sha256 } = suite;
    if ((await store.followed(this.#origin)) !== undefined) {
      throw new InvalidArgumentError('BAD_FIELD', 'start: the log is followed already');
    }
    let tree = emptyAudit;
    while (tree.log.size < size) {
      const at = tree.log.size;
      const bytes = await source.bundle(at, Math.min(bundleEntriesMax, size - at), signal);
      verify(bytes !== undefined, 'COUNT', 'entries of the source', `all up to ${size}`);
      const bundle = openAuditBundle(suite, log.identity.key, bytes);
      const entries = bundle.entries.slice(at - bundle.from, size - bundle.from);
      verify(at >= bundle.from && entries.length > 0, 'COUNT', 'audit bundle', `entry ${at}`);
      const end = bundle.from + bundle.entries.length;
      const isEnd = at + entries.length < size || end === size;
      verify(isEnd, 'COUNT', 'start', `a size with a checkpoint, such as ${bundle.from} or ${end}`);
      if (end === size) {
        const { note, checkpoint } = this.#open(bundle.checkpoint);
        const shown = replayedStateOf(sha256, tree, entries, note);
        verify(checkpoint.size === size, 'COUNT', 'checkpoint size', `${size}`);
        verifyCheckpointRoots(sha256, auditedOf(sha256, shown, size), checkpoint);
        const followed = {
          size,
          state: encode(replayedState, shown),
          rfc6962Root: checkpoint.root,
        };
        await store.advance({ origin: this.#origin, checkpoint: note, ...followed });
      }
      for (const entry of entries) tree = appendEntry(sha256, tree, entry);
    }
  }
}
