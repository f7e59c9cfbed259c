/**
 * The log's one writer: collects updates into batches, makes one log entry of each, signs its head
 * and commits all of it at once (kt-log/README.md). A head leaves only after the commit; when a
 * commit fails the state is read again, so no second head of one size is ever signed.
 */
import type { Clock, Random } from '@quicprochat/proto';
import {
  ConflictError,
  InvalidArgumentError,
  ResourceExhaustedError,
  UnavailableError,
} from '@quicprochat/proto/status';
import { leavesPerEntryMax } from './auditor-update.ts';
import type { Configuration } from './codec.ts';
import { commitmentValue, maxLabelBytes } from './codec.ts';
import {
  commitmentOf,
  keytransHasher,
  logEntry,
  openingBytes,
  rfc6962Hasher,
  zeroHash,
} from './hash.ts';
import { baseLadder } from './ladder.ts';
import { Frontier, fullSubtrees } from './log-tree.ts';
import type { LogIdentity } from './note.ts';
import { formatCheckpoint, keytransExtension, signNote } from './note.ts';
import { encode } from './presentation.ts';
import type { StoredEntry } from './recorder.ts';
import { LogReader } from './snapshot.ts';
import type {
  LogBatch,
  LogTreeName,
  NewEvaluation,
  NewVersion,
  StoredHead,
  TreeStore,
} from './store.ts';
import type { Signer, VerifierSuite } from './suite.ts';
import { signTreeHead } from './tree-head.ts';
import type { VrfProver } from './vrf.ts';

/** The secret side of a log. */
export interface LogKeys {
  /** Signs TreeHeads; its public key is in the Configuration. */
  readonly treeHead: Signer;
  /** Signs checkpoints, under the identity's note key. */
  readonly note: Signer;
  readonly vrf: VrfProver;
}

export interface SequencerLimits {
  /** How long the oldest update of a batch may wait for others, in milliseconds. */
  readonly batchMs: number;
  /** The same for a batch of background updates only. */
  readonly backgroundMs: number;
  /** Leaves that may wait. */
  readonly queuedLeaves: number;
  /** Size of one value. */
  readonly valueBytes: number;
  /** How far the clock may stand behind the newest entry before the log refuses to write. */
  readonly clockBackMs: number;
}
export const defaultSequencerLimits: SequencerLimits = {
  batchMs: 500,
  backgroundMs: 60_000,
  queuedLeaves: 16_384,
  valueBytes: 8192,
  clockBackMs: 1000,
};

/** How an update is to be written. */
export interface UpdateOptions {
  /** Nobody waits for it: it may ride along with others for `backgroundMs`. */
  readonly isBackground?: boolean;
  /** Rows of the caller that the store writes in the transaction of the entry (TreeStore.commit). */
  readonly effects?: readonly unknown[];
}

export interface SequencerOptions {
  readonly config: Configuration;
  readonly identity: LogIdentity;
  readonly keys: LogKeys;
  readonly store: TreeStore;
  readonly suite: VerifierSuite;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: SequencerLimits;
}

/** New versions of a label that wait for their entry. */
interface Pending {
  readonly label: Uint8Array;
  readonly values: readonly Uint8Array[];
  /** Greatest version that the caller knew, -1 for none. */
  readonly greatestBefore: number;
  readonly dueMs: number;
  readonly effects: readonly unknown[];
  resolve(position: number): void;
  reject(error: Error): void;
}

/** State after the newest entry. */
interface Tail {
  readonly reader: LogReader;
  readonly head: StoredHead | undefined;
  readonly entry: StoredEntry;
  readonly keytrans: Frontier;
  readonly rfc6962: Frontier;
}
const emptyEntry: StoredEntry = { timestampMs: 0, prefixRoot: zeroHash, rootTile: 0 };

export class Sequencer {
  readonly #options: SequencerOptions;
  readonly #onHead: (reader: LogReader, head: StoredHead) => void;
  #tail: Tail;
  #queue: Pending[] = [];
  #queuedLeaves = 0;
  #timer: { cancel(): void } | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  /** The flush in progress; updates of one log never overlap. */
  #flushing: Promise<void> = Promise.resolve();
  #isClosed = false;

  private constructor(
    options: SequencerOptions,
    tail: Tail,
    onHead: (reader: LogReader, head: StoredHead) => void,
  ) {
    this.#options = options;
    this.#tail = tail;
    this.#onHead = onHead;
  }

  /** `onHead` is called for the newest head at once, and for each later one after its commit. */
  static async open(
    options: SequencerOptions,
    onHead: (reader: LogReader, head: StoredHead) => void,
  ): Promise<Sequencer> {
    const tail = await loadTail(options);
    if (tail.head !== undefined) onHead(tail.reader, tail.head);
    return new Sequencer(options, tail, onHead);
  }

  get reader(): LogReader {
    return this.#tail.reader;
  }

  /**
   * Queues new versions of a label. Resolves with their entry's position when it is durable.
   * Throws InvalidArgumentError for values out of bounds, ResourceExhaustedError QUEUE_FULL,
   * ConflictError SEQ_CONFLICT when the label changed meanwhile, UnavailableError while closing or
   * when the store failed.
   */
  submit(
    label: Uint8Array,
    greatestBefore: number,
    values: readonly Uint8Array[],
    { isBackground = false, effects = [] }: UpdateOptions = {},
  ): Promise<number> {
    const { limits, clock } = this.#options;
    const isTooLarge = values.some((value) => value.length > limits.valueBytes);
    const isCount = values.length >= 1 && values.length <= leavesPerEntryMax;
    if (!isCount || isTooLarge || label.length > maxLabelBytes) {
      const message = `key log: 1 to ${leavesPerEntryMax} values of ${limits.valueBytes} bytes`;
      throw new InvalidArgumentError('BAD_FIELD', message);
    }
    if (this.#isClosed) throw new UnavailableError('DRAINING', 'key log: closing');
    if (this.#queuedLeaves + values.length > limits.queuedLeaves) {
      throw new ResourceExhaustedError('QUEUE_FULL', `key log: ${limits.queuedLeaves} leaves wait`);
    }
    const dueMs = clock.monotonic() + (isBackground ? limits.backgroundMs : limits.batchMs);
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.#queue.push({ label, values, greatestBefore, dueMs, effects, resolve, reject });
    this.#queuedLeaves += values.length;
    if (this.#queuedLeaves >= leavesPerEntryMax) this.#flushSoon();
    else this.#arm(dueMs);
    return promise;
  }

  #arm(dueMs: number): void {
    if (dueMs >= this.#timerDueMs) return;
    this.#timer?.cancel();
    this.#timerDueMs = dueMs;
    const waitMs = Math.max(0, dueMs - this.#options.clock.monotonic());
    this.#timer = this.#options.clock.timer(waitMs, () => this.#flushSoon());
  }

  #flushSoon(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#timerDueMs = Number.POSITIVE_INFINITY;
    this.#flushing = this.#flushing.then(() => this.#flush());
  }

  /** Writes one entry of what waits; goes on with the rest later. Never rejects. */
  async #flush(): Promise<void> {
    const batch = this.#takeBatch();
    if (batch.length === 0) return;
    try {
      const position = await this.#sequence(batch);
      if (position !== undefined) for (const one of batch) one.resolve(position);
    } catch (error) {
      await this.#reload();
      const message = 'key log: the batch may not have been committed';
      const failure = new UnavailableError('STORE_FULL', message, { cause: error });
      for (const one of batch) one.reject(failure);
    }
    const [next] = this.#queue;
    if (next === undefined) return;
    if (this.#queuedLeaves >= leavesPerEntryMax) this.#flushSoon();
    else this.#arm(Math.min(...this.#queue.map((one) => one.dueMs)));
  }

  /** The store may or may not hold the failed batch: what it holds now is the log. */
  async #reload(): Promise<void> {
    try {
      this.#tail = await loadTail(this.#options);
      if (this.#tail.head !== undefined) this.#onHead(this.#tail.reader, this.#tail.head);
    } catch {
      // A store that cannot be read either: the next batch fails and tries again.
    }
  }

  /** The oldest updates that fit in one entry, at most one per label. */
  #takeBatch(): Pending[] {
    const batch: Pending[] = [];
    const rest: Pending[] = [];
    const labels = new Set<string>();
    let leaves = 0;
    for (const one of this.#queue) {
      const name = one.label.toString();
      const fits = leaves + one.values.length <= leavesPerEntryMax && !labels.has(name);
      if (fits) {
        labels.add(name);
        leaves += one.values.length;
        batch.push(one);
      } else {
        rest.push(one);
      }
    }
    this.#queue = rest;
    this.#queuedLeaves -= leaves;
    return batch;
  }

  /** Makes, signs and commits one entry. Undefined when no update of the batch was in order. */
  async #sequence(batch: Pending[]): Promise<number | undefined> {
    const { store, limits } = this.#options;
    const { entry: last, reader } = this.#tail;
    const position = this.#tail.head?.size ?? 0;
    const timestampMs = Math.max(this.#options.clock.now(), last.timestampMs);
    if (timestampMs - this.#options.clock.now() > limits.clockBackMs) {
      throw new UnavailableError('STORE_FULL', 'key log: the clock stands behind the newest entry');
    }
    const versions: NewVersion[] = [];
    const evaluations: NewEvaluation[] = [];
    for (const [i, one] of [...batch.entries()].toReversed()) {
      const known = (await store.positions(one.label)).length - 1;
      if (known !== one.greatestBefore) {
        batch.splice(i, 1);
        one.reject(new ConflictError('SEQ_CONFLICT', 'key log: the label has changed'));
        continue;
      }
      versions.push(...this.#newVersions(one));
      evaluations.push(...(await this.#newEvaluations(one)));
    }
    if (versions.length === 0) return undefined;
    const keys = new Map(evaluations.map((one) => [keyOf(one), one.evaluation.output]));
    const leaves = versions.map((one) => ({
      vrfOutput: keys.get(keyOf(one)) ?? zeroHash,
      commitment: one.commitment,
    }));
    const inserted = await reader.prefixTree.insert(last.rootTile, leaves, last.rootTile + 1);
    const { rootHash: prefixRoot, root: rootTile } = inserted;
    const entry: StoredEntry = { timestampMs, prefixRoot, rootTile };
    const { head, leaf } = this.#grow(logEntry(timestampMs, prefixRoot));
    const tiles = this.#completedTiles(leaf);
    const written: LogBatch = {
      position,
      entry,
      head,
      tiles: inserted.written,
      superseded: inserted.superseded,
      logTiles: tiles,
      versions,
      evaluations,
      effects: batch.flatMap((one) => one.effects),
    };
    await store.commit(written);
    this.#tail = { ...this.#tail, head, entry };
    this.#onHead(reader, head);
    return position;
  }

  #newVersions(one: Pending): NewVersion[] {
    const { config, suite, random } = this.#options;
    return one.values.map((value, i) => {
      const version = one.greatestBefore + 1 + i;
      const opening = random.bytes(openingBytes);
      const { label } = one;
      const bytes = encode(commitmentValue(config.mode), {
        opening,
        label,
        version,
        update: { value },
      });
      const commitment = commitmentOf(suite.sha256, bytes);
      return { label, version, commitment, opening, value };
    });
  }

  /** VRFs of the new versions and of every lookup of the new greatest one that is not stored. */
  async #newEvaluations(one: Pending): Promise<NewEvaluation[]> {
    const { store, keys } = this.#options;
    const { label, greatestBefore } = one;
    const added = one.values.map((_, i) => greatestBefore + 1 + i);
    const wanted = [...new Set([...baseLadder(greatestBefore + added.length), ...added])];
    const stored = await store.evaluations(label, wanted);
    const missing = wanted.filter((_, i) => stored[i] === undefined);
    const proved = await keys.vrf.prove(label, missing);
    return wanted.flatMap((version, i) => {
      const evaluation = stored[i] ?? proved[missing.indexOf(version)];
      return evaluation === undefined ? [] : [{ label, version, evaluation }];
    });
  }

  /** Signs the head of the tree with one entry more. */
  #grow(encoded: Uint8Array): {
    readonly head: StoredHead;
    readonly leaf: { readonly keytrans: Uint8Array; readonly rfc6962: Uint8Array };
  } {
    const { config, identity, keys, suite } = this.#options;
    const hashers = {
      keytrans: keytransHasher(suite.sha256),
      rfc6962: rfc6962Hasher(suite.sha256),
    };
    const leaf = {
      keytrans: hashers.keytrans.leaf(encoded),
      rfc6962: hashers.rfc6962.leaf(encoded),
    };
    this.#tail.keytrans.append(leaf.keytrans);
    this.#tail.rfc6962.append(leaf.rfc6962);
    const { size } = this.#tail.keytrans;
    const root = this.#tail.keytrans.root();
    const rfc6962Root = this.#tail.rfc6962.root();
    const { signature } = signTreeHead(config, size, root, keys.treeHead);
    const text = checkpointText(identity, { size, root, rfc6962Root });
    const { signature: noteSignature } = signNote(text, identity.key, keys.note);
    return { head: { size, root, signature, rfc6962Root, noteSignature }, leaf };
  }

  #completedTiles(leaf: { readonly keytrans: Uint8Array; readonly rfc6962: Uint8Array }) {
    const { reader } = this.#tail;
    const trees: LogTreeName[] = ['keytrans', 'rfc6962'];
    return trees.flatMap((tree) => reader[tree].append(leaf[tree]).map((tile) => ({ tree, tile })));
  }

  /** Writes what waits and refuses what comes. */
  async close(): Promise<void> {
    this.#isClosed = true;
    while (this.#queue.length > 0) {
      this.#flushSoon();
      await this.#flushing;
    }
    this.#timer?.cancel();
    await this.#flushing;
  }
}

const keyOf = (one: { readonly label: Uint8Array; readonly version: number }): string =>
  `${one.version}/${one.label.toString()}`;

/** The text of the checkpoint of a head, as it was signed. */
export function checkpointText(
  identity: LogIdentity,
  head: Pick<StoredHead, 'size' | 'root' | 'rfc6962Root'>,
): string {
  return formatCheckpoint({
    origin: identity.origin,
    size: head.size,
    root: head.rfc6962Root,
    extensions: [keytransExtension(head.root)],
  });
}

/** The state of the log that a store holds. */
async function loadTail({ store, suite }: SequencerOptions): Promise<Tail> {
  const head = await store.newestHead();
  const size = head?.size ?? 0;
  const reader = await LogReader.open(suite.sha256, store, size);
  const [entry] = size === 0 ? [emptyEntry] : await store.entries(size - 1, size);
  const ids = fullSubtrees(size);
  return {
    reader,
    head,
    entry: entry ?? emptyEntry,
    keytrans: new Frontier(keytransHasher(suite.sha256), {
      size,
      heads: await reader.keytrans.nodes(ids),
    }),
    rfc6962: new Frontier(rfc6962Hasher(suite.sha256), {
      size,
      heads: await reader.rfc6962.nodes(ids),
    }),
  };
}
