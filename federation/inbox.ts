/**
 * The receiving side of the relay: one serial worker per (peer, lane) applies batches strictly in
 * seq order. Batches that overtook each other wait in memory, few and briefly; everything that
 * counts (cursor, chain, entries, rejects) is one transaction of the store.
 */
import {
  hasReason,
  maxRelayBytes,
  maxRelayItems,
  ResourceExhaustedError,
  UnavailableError,
  type Runtime,
  type Timer,
  sameBytes,
} from '@quicprochat/proto';
import type {
  FedRelayRequest,
  FedRelayResponseSchema,
  MessageInitShape,
} from '@quicprochat/proto/messages';
import { defaultCeilings, PeerCeiling, weightOf, WriterShare, type Ceilings } from './ceilings.ts';
import { chainBytes, laneNames, streamGap } from './lane.ts';
import { acceptedKinds, copiesOf, parseRelay, ridWireBytes } from './relay-batch.ts';
import type {
  InboundStream,
  LaneName,
  RelayApplied,
  RelayBatch,
  RelayInboxStore,
} from './store.ts';

export const inboxLimits = {
  /** Batches of one lane in memory, the one being applied among them. */
  batches: 4,
  /** How long a batch waits for the one before it (ms). */
  gapMs: 3_000,
  /** Credit of a peer that proved nothing yet, and of one that did (items); doubles per batch. */
  firstCreditItems: 64,
  creditItems: 4 * maxRelayItems,
  creditBytes: 4 * maxRelayBytes,
  /** What a peer is asked to wait when a lane is full (ms). */
  overloadedMs: 500,
  /** How long a peer may still send by a credit that was lowered: requests are under way (ms). */
  loweredMs: 15_000,
  /** What peers are asked to wait when the disk is full (ms). */
  fullMs: 10_000,
} as const;

export type RelayReply = MessageInitShape<typeof FedRelayResponseSchema>;

export interface RelayInboxOptions {
  readonly store: RelayInboxStore;
  readonly runtime: Runtime;
  /** Row kinds that are taken; others are rejected for now. Default: envelopes. */
  readonly kinds?: ReadonlySet<number>;
  readonly ceilings?: Partial<Ceilings>;
}

interface Waiting {
  readonly batch: RelayBatch;
  readonly reply: PromiseWithResolvers<RelayApplied>;
  readonly timer: Timer;
}

/** Applies the batches of all peers. */
export class RelayInbox {
  readonly #options: RelayInboxOptions;
  readonly #ceilings: Ceilings;
  readonly #lanes = new Map<string, InboundLane>();
  readonly #peers = new Map<string, PeerCeiling>();
  readonly #share: WriterShare;
  /** The disk took nothing new when it was asked last: no peer has credit. */
  #isFull = false;

  constructor(options: RelayInboxOptions) {
    this.#options = options;
    this.#ceilings = { ...defaultCeilings, ...options.ceilings };
    this.#share = new WriterShare(options.runtime.clock, this.#ceilings.writerShare);
  }

  /**
   * Applies one batch of an authenticated peer; durable when it resolves. Throws
   * InvalidArgumentError BAD_FIELD, DataLossError STREAM_GAP (details: StreamState) when the batch
   * before it does not come, ResourceExhaustedError OVERLOADED when it is beyond the peer's credit or
   * ceilings or when too many wait, UnavailableError STORE_FULL, and what the store throws.
   */
  async relay(peer: string, request: FedRelayRequest): Promise<RelayReply> {
    const batch = parseRelay(request, this.#options.kinds ?? acceptedKinds);
    const ceiling = this.#ceiling(peer);
    const lane = this.#lane(peer, batch.lane);
    const items = batch.items.length;
    const waitMs = this.#refusalMs(ceiling, lane, batch);
    if (waitMs > 0) {
      lane.refused(batch);
      throw overloaded('more than this node takes of a peer in a time', waitMs);
    }
    lane.needCredit(items);
    const rids = batch.items.flatMap((item) => item.rids);
    const bytes = batch.items.reduce((sum, { payload }) => sum + payload.length, 0);
    ceiling.charge(weightOf(batch.items), bytes + rids.length * ridWireBytes, rids);
    this.#share.charge(rids.length);
    const applied = await this.#apply(lane, batch);
    const lastSeq = batch.firstSeq + items - 1;
    const refused = applied.rejects.filter(
      ({ seq, temporary }) => !temporary && seq >= batch.firstSeq && seq <= lastSeq,
    );
    if (ceiling.judged(rids.length, refused.length)) {
      const { log } = this.#options.runtime;
      log.warn('credit halved', { peer, why: 'too much of it is refused for good' });
    }
    const retryAfterMs = this.#waitMs(peer, batch.lane);
    return {
      cursor: BigInt(applied.cursor),
      chain: applied.chain,
      rejects: applied.rejects.map((reject) => ({ ...reject, seq: BigInt(reject.seq) })),
      ...this.credit(peer, batch.lane),
      ...(retryAfterMs > 0 ? { retryAfterMs: BigInt(retryAfterMs) } : {}),
    };
  }

  /** What the peer may have unanswered in a lane. */
  credit(
    peer: string,
    lane: LaneName,
  ): { readonly creditItems: number; readonly creditBytes: number } {
    if (this.#isFull) return { creditItems: 0, creditBytes: 0 };
    const inbound = this.#lane(peer, lane);
    const creditItems = this.#ceiling(peer).creditOf(inbound.creditItems);
    inbound.told(creditItems);
    const { firstCreditItems, creditBytes } = inboxLimits;
    const grown = Math.ceil((maxRelayBytes * creditItems) / firstCreditItems);
    return { creditItems, creditBytes: Math.min(creditBytes, Math.max(maxRelayBytes, grown)) };
  }

  async #apply(lane: InboundLane, batch: RelayBatch): Promise<RelayApplied> {
    try {
      const applied = await lane.add(batch);
      this.#isFull = false;
      return applied;
    } catch (error) {
      if (!hasReason(error, 'STORE_FULL')) throw error;
      this.#isFull = true;
      // Nothing is wrong with the batch, and the sender's own back-off would be a guess.
      const message = 'this node takes nothing new: its disk is full';
      throw new UnavailableError('STORE_FULL', message, {
        retryAfterMs: inboxLimits.fullMs,
        cause: error,
      });
    }
  }

  /**
   * Until a batch that is here now would be taken (ms). What all peers share is used up by others too, while
   * what this one was granted is under way: that much is taken still, and owed.
   */
  #refusalMs(ceiling: PeerCeiling, lane: InboundLane, batch: RelayBatch): number {
    const ownMs = ceiling.waitMs(batch.lane === 'control');
    if (ownMs > 0 || batch.lane === 'control') return ownMs;
    const shareMs = this.#share.waitMs();
    return lane.mayOverdraw(weightOf(batch.items), shareMs > 0) ? 0 : shareMs;
  }

  /** Until the next batch of the peer is taken (ms). */
  #waitMs(peer: string, lane: LaneName): number {
    const isUrgent = lane === 'control';
    const ownMs = this.#ceiling(peer).waitMs(isUrgent);
    return isUrgent ? ownMs : Math.max(ownMs, this.#share.waitMs());
  }

  #ceiling(peer: string): PeerCeiling {
    const { clock } = this.#options.runtime;
    const found = this.#peers.get(peer) ?? new PeerCeiling(clock, this.#ceilings);
    this.#peers.set(peer, found);
    return found;
  }

  /** Fails what waits; resolves when no transaction runs any more. */
  async close(): Promise<void> {
    await Promise.all(Array.from(this.#lanes.values(), (lane) => lane.close()));
  }

  #lane(peer: string, lane: LaneName): InboundLane {
    const key = `${peer} ${lane}`;
    const found = this.#lanes.get(key) ?? new InboundLane(peer, lane, this.#options, this.#share);
    this.#lanes.set(key, found);
    return found;
  }
}

class InboundLane {
  readonly #peer: string;
  readonly #lane: LaneName;
  readonly #options: RelayInboxOptions;
  readonly #share: WriterShare;
  readonly #waiting: Waiting[] = [];
  /** Where the lane stands on disk, as far as it was read; this worker alone moves it. */
  #stream: InboundStream | undefined;
  #isLoaded = false;
  #isClosed = false;
  #worker: Promise<void> | undefined;
  creditItems: number = inboxLimits.firstCreditItems;
  /** Items of batches that are not answered yet. */
  #pending = 0;
  /** The credit that was told last, and a greater one that the peer may still act on. */
  #told: number = inboxLimits.firstCreditItems;
  #toldBefore = 0;
  #loweredMs = 0;
  /** Weight of what was taken since the share of all peers was used up. */
  #overdrawn = 0;

  constructor(peer: string, lane: LaneName, options: RelayInboxOptions, share: WriterShare) {
    this.#peer = peer;
    this.#lane = lane;
    this.#options = options;
    this.#share = share;
  }

  /** The peer learns this credit now. */
  told(creditItems: number): void {
    const nowMs = this.#options.runtime.clock.monotonic();
    if (creditItems < this.#told) {
      this.#toldBefore = Math.max(this.#told, this.#before(nowMs));
      this.#loweredMs = nowMs;
    }
    this.#told = creditItems;
  }

  /**
   * Throws ResourceExhaustedError OVERLOADED when this many items more would be beyond the credit
   * that the peer knows of; its credit begins anew then.
   */
  needCredit(items: number): void {
    const most = this.#mostTold();
    // A lone row may always ask.
    if (this.#pending + items <= most || (items === 1 && this.#pending === 0)) return;
    this.creditItems = inboxLimits.firstCreditItems;
    const text = `${this.#pending + items} items unanswered, the credit is ${most}`;
    throw overloaded(text, inboxLimits.overloadedMs);
  }

  /** Whether items of this weight are taken, though nothing of the share of all peers may be left. */
  mayOverdraw(weight: number, isUsedUp: boolean): boolean {
    if (!isUsedUp) this.#overdrawn = 0;
    else if (this.#overdrawn + weight > this.#mostTold()) return false;
    else this.#overdrawn += weight;
    return true;
  }

  /** A batch was refused before it came here: those that wait for it need not. */
  refused({ streamId, firstSeq }: RelayBatch): void {
    this.#expireStream(streamId, firstSeq);
  }

  #mostTold(): number {
    return Math.max(this.#told, this.#before(this.#options.runtime.clock.monotonic()));
  }

  #before(nowMs: number): number {
    return nowMs < this.#loweredMs + inboxLimits.loweredMs ? this.#toldBefore : 0;
  }

  async add(batch: RelayBatch): Promise<RelayApplied> {
    this.#pending += batch.items.length;
    try {
      return await this.#queue(batch);
    } finally {
      this.#pending -= batch.items.length;
    }
  }

  async #queue(batch: RelayBatch): Promise<RelayApplied> {
    if (this.#isClosed) throw new UnavailableError('DRAINING', 'this node is stopping');
    if (this.#waiting.length >= inboxLimits.batches) {
      throw overloaded(`${this.#waiting.length} batches wait`, inboxLimits.overloadedMs);
    }
    const reply = Promise.withResolvers<RelayApplied>();
    const timer = this.#options.runtime.clock.timer(inboxLimits.gapMs, () => this.#expire(waiting));
    const waiting: Waiting = { batch, reply, timer };
    this.#waiting.push(waiting);
    this.#start();
    return reply.promise;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    const error = new UnavailableError('DRAINING', 'this node is stopping');
    for (const waiting of this.#waiting.splice(0)) this.#end(waiting).reject(error);
    await this.#worker;
  }

  #start(): void {
    this.#worker ??= this.#work().finally(() => {
      this.#worker = undefined;
    });
  }

  async #work(): Promise<void> {
    for (;;) {
      try {
        if (!this.#isLoaded) await this.#load();
      } catch (error) {
        for (const waiting of this.#waiting.splice(0)) this.#end(waiting).reject(error);
        return;
      }
      const next = this.#takeNext();
      if (next === undefined) return;
      try {
        const { batch } = next;
        const { lane, streamId } = batch;
        const write = (): Promise<RelayApplied> =>
          this.#options.store.applyRelay(this.#peer, batch);
        const applied = await this.#share.run(copiesOf(batch.items), write);
        this.#stream = { lane, streamId, cursor: applied.cursor, chain: applied.chain };
        this.creditItems = Math.min(this.creditItems * 2, inboxLimits.creditItems);
        next.reply.resolve(applied);
      } catch (error) {
        this.creditItems = inboxLimits.firstCreditItems;
        // What the store holds may differ from what is remembered here: read it again.
        this.#isLoaded = false;
        await this.#load().catch(() => undefined);
        this.#failed(next, error);
      }
    }
  }

  async #load(): Promise<void> {
    const streams = await this.#options.store.inboundStreams(this.#peer);
    this.#stream = streams.find(({ lane }) => lane === this.#lane);
    this.#isLoaded = true;
  }

  /** The batch that can be applied now: next in its stream, a repeat, or a new stream's first. */
  #takeNext(): Waiting | undefined {
    const index = this.#waiting.findIndex(({ batch }) => {
      const stream = this.#stream;
      const isCurrent = stream !== undefined && sameBytes(stream.streamId, batch.streamId);
      return batch.firstSeq <= (isCurrent ? stream.cursor : 0) + 1;
    });
    const [next] = index < 0 ? [] : this.#waiting.splice(index, 1);
    next?.timer.cancel();
    return next;
  }

  /** A batch was not applied: those behind it in its stream cannot be either. */
  #failed({ batch, reply }: Waiting, error: unknown): void {
    reply.reject(hasReason(error, 'STREAM_GAP') ? this.#gap(batch.streamId) : error);
    this.#expireStream(batch.streamId, 0);
  }

  #expireStream(streamId: Uint8Array, afterSeq: number): void {
    for (const waiting of [...this.#waiting]) {
      const isBehind = waiting.batch.firstSeq > afterSeq;
      if (isBehind && sameBytes(waiting.batch.streamId, streamId)) this.#expire(waiting);
    }
  }

  #expire(waiting: Waiting): void {
    const index = this.#waiting.indexOf(waiting);
    if (index < 0) return;
    this.#waiting.splice(index, 1);
    this.#end(waiting).reject(this.#gap(waiting.batch.streamId));
  }

  #end({ timer, reply }: Waiting): PromiseWithResolvers<RelayApplied> {
    timer.cancel();
    return reply;
  }

  #gap(streamId: Uint8Array): Error {
    const stream = this.#stream;
    const isCurrent = stream !== undefined && sameBytes(stream.streamId, streamId);
    if (isCurrent) return streamGap(stream);
    const none = { lane: this.#lane, streamId, cursor: 0, chain: new Uint8Array(chainBytes) };
    return streamGap(none);
  }
}

function overloaded(message: string, retryAfterMs: number): ResourceExhaustedError {
  return new ResourceExhaustedError('OVERLOADED', message, { retryAfterMs });
}

/** Streams of a peer for a hello, lanes in order. */
export function inOrder(streams: readonly InboundStream[]): InboundStream[] {
  return laneNames.flatMap((lane) => streams.filter((stream) => stream.lane === lane));
}
