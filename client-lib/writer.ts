/**
 * The one place where a device's state changes: a queue of jobs that are prepared one after the
 * other on copies of the state and written together in one transaction (docs/protocol/delivery.md,
 * "The client's rule" and "Sending, likewise"). MLS is asynchronous and SQLite is not, so the
 * queue, not the transaction, keeps two jobs from using the same ratchet key.
 */
import { ResourceExhaustedError, type Runtime, hex } from '@quicprochat/proto';
import { channelOf } from './channels/channel.ts';
import {
  encodeCold,
  encodeHot,
  encodePast,
  restoreGroup,
  type MlsGroup,
  type Wipe,
} from './mls/index.ts';
import type { ConversationRecord, EnvelopeKey } from './store/group-rows.ts';
import type { Cursor } from './store/inbox-rows.ts';
import type { ClientStore } from './store/store.ts';

export const writerLimits = {
  /** Jobs that share one transaction. */
  jobsPerBatch: 64,
  jobsQueued: 4096,
  /** Groups that are kept decoded. */
  groupsInMemory: 64,
} as const;

interface TouchedGroup {
  group: MlsGroup;
  isNewEpoch: boolean;
  readonly pastEpochs: Set<bigint>;
}

/**
 * What the jobs of one transaction have done so far. A job awaits what can fail first, and only
 * then calls the methods that change something; so a job that throws has changed nothing.
 */
export class Batch {
  readonly nowMs: number;
  readonly #store: ClientStore;
  readonly #cache: Map<string, MlsGroup>;
  readonly #groups = new Map<string, TouchedGroup>();
  readonly #conversations = new Map<string, ConversationRecord>();
  readonly #seen = new Set<string>();
  readonly #unparked = new Set<number>();
  /** By log in hex. */
  readonly #cursors = new Map<string, Cursor>();
  readonly #writes: (() => void)[] = [];
  readonly #after: (() => void)[] = [];
  readonly #wipes: Wipe[] = [];
  #isFull = false;

  constructor(store: ClientStore, cache: Map<string, MlsGroup>, nowMs: number) {
    this.#store = store;
    this.#cache = cache;
    this.nowMs = nowMs;
  }

  get isFull(): boolean {
    return this.#isFull;
  }

  /** Newest state of a group, with what earlier jobs of this batch did. */
  group(groupId: Uint8Array): MlsGroup | undefined {
    const key = hex(groupId);
    const known = this.#groups.get(key)?.group ?? this.#cache.get(key);
    if (known !== undefined) return known;
    const stored = this.#store.groups.state(groupId);
    if (stored === undefined) return undefined;
    const group = restoreGroup({ ...stored, past: stored.past.map(({ bytes }) => bytes) });
    this.#cache.set(key, group);
    return group;
  }

  conversationOfGroup(groupId: Uint8Array): ConversationRecord | undefined {
    return this.#conversations.get(hex(groupId)) ?? this.#store.groups.conversationOfGroup(groupId);
  }

  hasSeen(mark: Uint8Array): boolean {
    return this.#seen.has(hex(mark)) || this.#store.inbox.hasSeen(mark);
  }
  addSeen(mark: Uint8Array): void {
    this.#seen.add(hex(mark));
    this.write(() => this.#store.inbox.addSeen(mark, this.nowMs));
  }

  /** False once an earlier try of this batch or another settled the parked row. */
  isParked(id: number): boolean {
    return !this.#unparked.has(id) && this.#store.inbox.isParked(id);
  }
  unpark(id: number): void {
    this.#unparked.add(id);
    this.write(() => this.#store.inbox.unpark(id));
  }

  /** The cursor of a log, with what earlier jobs of this batch did. */
  cursor(log: Uint8Array): Cursor | undefined {
    return this.#cursors.get(hex(log)) ?? this.#store.inbox.cursor(log);
  }
  moveCursor(log: Uint8Array, cursor: Cursor): void {
    this.#cursors.set(hex(log), cursor);
    this.write(() => this.#store.inbox.putCursor(log, cursor));
  }

  /** A message was sealed or opened: `epoch` is the message's. `wipe` runs after the commit. */
  useKeys(next: MlsGroup, epoch: bigint, wipe: Wipe): void {
    const touched = this.#touch(next);
    if (epoch !== next.epoch) touched.pastEpochs.add(epoch);
    this.#wipes.push(wipe);
    if (!next.isActive) this.#follow(next, undefined);
  }

  /**
   * The group is new here or moved one epoch on. Ends the batch: what comes next finds the new
   * state in the store.
   */
  enterEpoch(next: MlsGroup, envelopeKey: EnvelopeKey, wipes: readonly Wipe[]): void {
    const touched = this.#touch(next);
    touched.isNewEpoch = true;
    // One wipe for each commit that led here: so many epochs became past ones.
    const firstNew = next.epoch - BigInt(wipes.length);
    for (const past of next.pastEpochs()) if (past >= firstNew) touched.pastEpochs.add(past);
    this.#wipes.push(...wipes);
    this.write(() => this.#store.groups.putEnvelopeKey(envelopeKey));
    // Epochs that were only passed through may have had a channel, with posts in it.
    for (const past of next.pastEpochs()) {
      const context = past > firstNew ? next.contextAt(past) : undefined;
      if (context !== undefined)
        this.#follow(next, channelOf({ groupId: next.groupId, ...context })?.cid);
    }
    this.#follow(next, channelOf(next)?.cid);
    this.after(() => this.#store.checkpoint());
    this.#isFull = true;
  }

  /** Counters of a conversation, seen by later jobs of this batch. */
  advance(conversation: ConversationRecord, sentCount: number, lamport: number): void {
    this.#conversations.set(hex(conversation.groupId), { ...conversation, sentCount, lamport });
    this.write(() => this.#store.groups.advance(conversation.id, sentCount, lamport));
  }

  /** Part of the transaction. */
  write(work: () => void): void {
    this.#writes.push(work);
  }
  /** Once it is durable. */
  after(work: () => void): void {
    this.#after.push(work);
  }

  /** Writes everything; durable on return. Nothing has changed when it throws. */
  commit(): void {
    this.#store.transaction(() => {
      for (const touched of this.#groups.values()) this.#writeGroup(touched);
      for (const write of this.#writes) write();
    });
    for (const [key, { group }] of this.#groups) {
      // Deleting first moves the group to the end: the map's order is the order of use.
      this.#cache.delete(key);
      this.#cache.set(key, group);
    }
    // Only now: until the commit, the old state was the one to fall back to.
    for (const wipe of this.#wipes) wipe();
  }

  /** Tells whoever waits for the durable state: all of them, whatever one throws. */
  finish(failed: (error: unknown) => void): void {
    for (const work of this.#after) {
      try {
        work();
      } catch (error) {
        failed(error);
      }
    }
  }

  /** Which channel of a group is read stands in the store since the transaction that entered its epoch. */
  #follow({ groupId }: MlsGroup, cid: Uint8Array | undefined): void {
    this.write(() => this.#store.channels.follow(groupId, cid, this.nowMs));
  }

  #touch(next: MlsGroup): TouchedGroup {
    const key = hex(next.groupId);
    const touched = this.#groups.get(key) ?? {
      group: next,
      isNewEpoch: false,
      pastEpochs: new Set<bigint>(),
    };
    touched.group = next;
    this.#groups.set(key, touched);
    return touched;
  }

  #writeGroup({ group, isNewEpoch, pastEpochs }: TouchedGroup): void {
    const { groups } = this.#store;
    const { groupId, epoch } = group;
    const kept = group.pastEpochs();
    if (isNewEpoch) {
      groups.putCold(groupId, epoch, encodeCold(group));
      groups.dropEpochsBelow(groupId, kept[0] ?? epoch);
    }
    groups.putHot(groupId, encodeHot(group));
    for (const past of kept) {
      if (pastEpochs.has(past)) groups.putPast(groupId, past, encodePast(group, past), this.nowMs);
    }
  }
}

interface Job {
  readonly prepare: (batch: Batch) => Promise<void>;
  readonly done: () => void;
  readonly failed: (error: unknown) => void;
}

export class Writer {
  readonly #store: ClientStore;
  readonly #runtime: Runtime;
  readonly #queue: Job[] = [];
  readonly #cache = new Map<string, MlsGroup>();
  #running: Promise<void> | undefined;

  constructor(store: ClientStore, runtime: Runtime) {
    this.#store = store;
    this.#runtime = runtime;
  }

  /**
   * Prepares a job in its turn and resolves with its result once the transaction is durable. It is
   * prepared once more, alone, when that transaction cannot be written.
   * Throws what `prepare` throws, what the commit throws, or ResourceExhaustedError OVERLOADED
   * when 4096 jobs wait.
   */
  run<T>(prepare: (batch: Batch) => Promise<T>): Promise<T> {
    if (this.#queue.length >= writerLimits.jobsQueued) {
      return Promise.reject(
        new ResourceExhaustedError('OVERLOADED', `client: ${this.#queue.length} jobs wait`),
      );
    }
    return new Promise<T>((resolve, reject) => {
      let result: T;
      this.#queue.push({
        prepare: async (batch) => {
          result = await prepare(batch);
        },
        done: () => resolve(result),
        failed: reject,
      });
      this.#running ??= this.#drain();
    });
  }

  get isIdle(): boolean {
    return this.#running === undefined;
  }
  /** Resolves when nothing is queued or running. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  async #drain(): Promise<void> {
    // The first job waits for its turn of the loop, so that jobs made together share a batch.
    await Promise.resolve();
    while (this.#queue.length > 0) await this.#oneBatch();
    this.#running = undefined;
  }

  async #oneBatch(): Promise<void> {
    const batch = this.#newBatch();
    const prepared: Job[] = [];
    while (!batch.isFull && prepared.length < writerLimits.jobsPerBatch) {
      const job = this.#queue.shift();
      if (job === undefined) break;
      if (await prepare(job, batch)) prepared.push(job);
    }
    const failure = this.#commit(batch, prepared);
    if (failure === undefined) return;
    if (prepared.length <= 1) {
      for (const job of prepared) job.failed(failure.error);
      return;
    }
    // One of them cannot be written; alone, it costs the others nothing.
    for (const job of prepared) {
      const own = this.#newBatch();
      if (!(await prepare(job, own))) continue;
      const ownFailure = this.#commit(own, [job]);
      if (ownFailure !== undefined) job.failed(ownFailure.error);
    }
  }

  #newBatch(): Batch {
    return new Batch(this.#store, this.#cache, this.#runtime.clock.now());
  }

  /** Undefined, or why nothing was written: the cache still holds the old states then. */
  #commit(batch: Batch, jobs: readonly Job[]): { readonly error: unknown } | undefined {
    try {
      batch.commit();
    } catch (error) {
      return { error };
    }
    for (const job of jobs) job.done();
    this.#evict();
    // Everything is durable; a listener that throws must not stop the queue.
    batch.finish((error) => this.#runtime.log.error('after commit', { error: String(error) }));
    return undefined;
  }

  #evict(): void {
    for (const key of this.#cache.keys()) {
      if (this.#cache.size <= writerLimits.groupsInMemory) return;
      this.#cache.delete(key);
    }
  }
}

/** False when it failed, and was told so. */
async function prepare(job: Job, batch: Batch): Promise<boolean> {
  try {
    await job.prepare(batch);
    return true;
  } catch (error) {
    job.failed(error);
    return false;
  }
}
