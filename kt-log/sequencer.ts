/**
 * The log's one queue of updates: collects them into batches, of which each becomes one log entry
 * (kt-log/README.md). The store checks that an update follows its label's newest version. Of a batch
 * that it refuses those whose label has changed fail, and the rest is halved until the refused one is
 * alone. After a commit whose outcome nobody knows the state is read again before the next head.
 */
import { TokenBuckets } from '@quicprochat/proto';
import {
  ConflictError,
  InvalidArgumentError,
  QpcError,
  ResourceExhaustedError,
  Status,
  UnavailableError,
} from '@quicprochat/proto/status';
import { leavesPerEntryMax } from './auditor-update.ts';
import { maxLabelBytes } from './codec.ts';
import type { EntryWriterOptions, LabelUpdate, PlacedUpdate } from './entry-writer.ts';
import { EntryWriter } from './entry-writer.ts';
import type { Hash } from './hash.ts';
import type { LogReader } from './snapshot.ts';
import type { StoredHead } from './store.ts';

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
  /** Leaves of new labels per second, in the long run; background updates do not count. */
  readonly newLeavesPerSecond: number;
  /** Leaves of new labels that may come at once, at least 255: one update has up to that many. */
  readonly newLeavesBurst: number;
}
export const defaultSequencerLimits: SequencerLimits = {
  batchMs: 500,
  backgroundMs: 60_000,
  queuedLeaves: 16_384,
  valueBytes: 8192,
  clockBackMs: 1000,
  newLeavesPerSecond: 50,
  newLeavesBurst: 5000,
};

/** How an update is to be written. */
export interface UpdateOptions {
  /** Nobody waits for it: it may ride along with others for `backgroundMs`. */
  readonly isBackground?: boolean;
  /** Rows of the caller that the store writes in the transaction of the entry (TreeStore.commit). */
  readonly effects?: readonly unknown[];
}

export interface SequencerOptions extends Omit<EntryWriterOptions, 'clockBackMs'> {
  readonly limits: SequencerLimits;
  /** Told what kept a batch from being written: those who waited for it hear less. */
  readonly onFault?: (error: unknown) => void;
}

/** An update that waits for its entry. */
interface Pending {
  readonly update: LabelUpdate;
  /** Its VRF outputs, which are being computed. */
  readonly outputs: Promise<readonly Hash[]>;
  readonly dueMs: number;
  resolve(position: number): void;
  reject(error: unknown): void;
}
/** An update whose turn it is. */
interface Ready {
  readonly pending: Pending;
  readonly placed: PlacedUpdate;
}

/** Told of a head after its commit, with the reader that can read it. */
export type HeadListener = (reader: LogReader, head: StoredHead) => void;

export class Sequencer {
  readonly #options: SequencerOptions;
  readonly #writer: EntryWriter;
  readonly #onHead: HeadListener;
  readonly #growth: TokenBuckets;
  #queue: Pending[] = [];
  #queuedLeaves = 0;
  #timer: { cancel(): void } | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  /** The flush in progress; updates of one log never overlap. */
  #flushing: Promise<void> = Promise.resolve();
  #isClosed = false;

  private constructor(options: SequencerOptions, writer: EntryWriter, onHead: HeadListener) {
    this.#options = options;
    this.#writer = writer;
    this.#onHead = onHead;
    this.#growth = new TokenBuckets(options.clock);
  }

  /**
   * `onHead` is called for the newest head at once, and for each later one after its commit. Throws
   * InvalidArgumentError for a burst below 255.
   */
  static async open(options: SequencerOptions, onHead: HeadListener): Promise<Sequencer> {
    const { clockBackMs, newLeavesBurst } = options.limits;
    if (newLeavesBurst < leavesPerEntryMax) {
      throw new InvalidArgumentError('BAD_FIELD', `newLeavesBurst: below ${leavesPerEntryMax}`);
    }
    const writer = await EntryWriter.open({ ...options, clockBackMs });
    const sequencer = new Sequencer(options, writer, onHead);
    sequencer.#publish();
    return sequencer;
  }

  #publish(): void {
    const { head, reader } = this.#writer;
    if (head !== undefined) this.#onHead(reader, head);
  }

  /**
   * Queues new versions of a label. Resolves with their entry's position when it is durable, with
   * the effects of the update. Throws InvalidArgumentError for values out of bounds,
   * ResourceExhaustedError QUEUE_FULL or RATE_LIMITED, ConflictError SEQ_CONFLICT when the label
   * changed meanwhile and NAME_TAKEN when it was erased, UnavailableError while closing or when the
   * store failed, and that with which the store refused the effects.
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
    if (greatestBefore < 0 && !isBackground) this.#admit(values.length);
    const dueMs = clock.monotonic() + (isBackground ? limits.backgroundMs : limits.batchMs);
    const update: LabelUpdate = { label, values, greatestBefore, effects };
    const outputs = this.#writer.place(update);
    // Whoever takes the batch looks at the outcome; until then a failure is nobody's.
    outputs.catch(() => {});
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.#queue.push({ update, outputs, dueMs, resolve, reject });
    this.#queuedLeaves += values.length;
    if (this.#queuedLeaves >= leavesPerEntryMax) this.#flushSoon();
    else this.#arm(dueMs);
    return promise;
  }

  /** Lets a new label in at the pace of the log. */
  #admit(leaves: number): void {
    const { newLeavesPerSecond: perSecond, newLeavesBurst: burst } = this.#options.limits;
    const retryAfterMs = this.#growth.take('new labels', { perSecond, burst }, leaves);
    if (retryAfterMs > 0) {
      const message = `key log: more than ${perSecond} new leaves a second`;
      throw new ResourceExhaustedError('RATE_LIMITED', message, { retryAfterMs });
    }
  }

  #arm(dueMs: number): void {
    if (dueMs >= this.#timerDueMs) return;
    const waitMs = dueMs - this.#options.clock.monotonic();
    if (waitMs <= 0) {
      // Behind what this turn still brings, and without the millisecond that a timer takes.
      this.#flushSoon();
      return;
    }
    this.#timer?.cancel();
    this.#timerDueMs = dueMs;
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
      await this.#write(await this.#placed(batch));
    } catch (error) {
      await this.#reload();
      this.#options.onFault?.(error);
      const message = 'key log: the batch may not have been committed';
      const failure =
        error instanceof UnavailableError
          ? error
          : new UnavailableError('STORE_FULL', message, { cause: error });
      // For those that have their answer already this changes nothing.
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
      await this.#writer.reload();
      this.#publish();
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
      const { label, values } = one.update;
      const name = Buffer.from(label).toString('latin1');
      const fits = leaves + values.length <= leavesPerEntryMax && !labels.has(name);
      if (fits) {
        labels.add(name);
        leaves += values.length;
        batch.push(one);
      } else {
        rest.push(one);
      }
    }
    this.#queue = rest;
    this.#queuedLeaves -= leaves;
    return batch;
  }

  /** The updates that have their VRF outputs and no name that was taken; others get their error. */
  async #placed(batch: readonly Pending[]): Promise<readonly Ready[]> {
    const places = await Promise.allSettled(batch.map((one) => one.outputs));
    const ready: Ready[] = [];
    for (const [i, pending] of batch.entries()) {
      const place = places[i];
      if (place?.status === 'fulfilled') {
        ready.push({ pending, placed: { ...pending.update, outputs: place.value } });
      } else {
        pending.reject(place?.reason);
      }
    }
    const taken = await this.#writer.taken(ready.map((one) => one.placed));
    if (taken.size === 0) return ready;
    // A label that somebody else has just made is there; one that was erased is in the tree alone.
    await this.#inOrder(ready.filter((one) => taken.has(one.placed)));
    return ready.filter(({ pending, placed }) => {
      const isTaken = taken.has(placed);
      if (isTaken) pending.reject(new ConflictError('NAME_TAKEN', 'key log: an erased label'));
      return !isTaken;
    });
  }

  /** The updates whose label stands as their caller knew it; others get their error. */
  async #inOrder(updates: readonly Ready[]): Promise<readonly Ready[]> {
    const { store } = this.#options;
    const positions = await Promise.all(
      updates.map(({ pending }) => store.positions(pending.update.label)),
    );
    return updates.filter(({ pending }, i) => {
      const isNext = (positions[i]?.length ?? 0) - 1 === pending.update.greatestBefore;
      if (!isNext) {
        pending.reject(new ConflictError('SEQ_CONFLICT', 'key log: the label has changed'));
      }
      return isNext;
    });
  }

  /**
   * One entry of the updates; when the store refuses them together, of those whose label has not
   * changed, or of each half.
   */
  async #write(updates: readonly Ready[]): Promise<void> {
    const [first] = updates;
    if (first === undefined) return;
    try {
      const { size } = await this.#writer.write(updates.map((one) => one.placed));
      this.#publish();
      for (const { pending } of updates) pending.resolve(size - 1);
    } catch (error) {
      if (!isRefusal(error) || (await this.#writer.hasChanged())) throw error;
      const inOrder = await this.#inOrder(updates);
      if (inOrder.length < updates.length) {
        await this.#write(inOrder);
        return;
      }
      if (updates.length === 1) {
        first.pending.reject(error);
        return;
      }
      const middle = Math.ceil(updates.length / 2);
      await this.#write(updates.slice(0, middle));
      await this.#write(updates.slice(middle));
    }
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

/** Whether an error of a commit says that nothing was written (TreeStore.commit). */
function isRefusal(error: unknown): boolean {
  const isOpen: readonly number[] = [Status.Unavailable, Status.Internal, Status.DataLoss];
  return error instanceof QpcError && !isOpen.includes(error.status);
}
