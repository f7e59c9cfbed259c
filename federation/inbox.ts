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
} from '@quicprochat/proto';
import type {
  FedRelayRequest,
  FedRelayResponseSchema,
  MessageInitShape,
} from '@quicprochat/proto/messages';
import { chainBytes, laneNames, sameBytes, streamGap } from './lane.ts';
import { acceptedKinds, parseRelay } from './relay-batch.ts';
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
} as const;

export type RelayReply = MessageInitShape<typeof FedRelayResponseSchema>;

export interface RelayInboxOptions {
  readonly store: RelayInboxStore;
  readonly runtime: Runtime;
  /** Row kinds that are taken; others are rejected for now. Default: envelopes. */
  readonly kinds?: ReadonlySet<number>;
}

interface Waiting {
  readonly batch: RelayBatch;
  readonly reply: PromiseWithResolvers<RelayApplied>;
  readonly timer: Timer;
}

/** Applies the batches of all peers. */
export class RelayInbox {
  readonly #options: RelayInboxOptions;
  readonly #lanes = new Map<string, InboundLane>();

  constructor(options: RelayInboxOptions) {
    this.#options = options;
  }

  /**
   * Applies one batch of an authenticated peer; durable when it resolves. Throws
   * InvalidArgumentError BAD_FIELD, DataLossError STREAM_GAP (details: StreamState) when the batch
   * before it does not come, ResourceExhaustedError OVERLOADED when too many wait, and what the
   * store throws.
   */
  async relay(peer: string, request: FedRelayRequest): Promise<RelayReply> {
    const batch = parseRelay(request, this.#options.kinds ?? acceptedKinds);
    const lane = this.#lane(peer, batch.lane);
    const applied = await lane.add(batch);
    return {
      cursor: BigInt(applied.cursor),
      chain: applied.chain,
      rejects: applied.rejects.map((reject) => ({ ...reject, seq: BigInt(reject.seq) })),
      ...this.credit(peer, batch.lane),
    };
  }

  /** What the peer may have unanswered in a lane. */
  credit(
    peer: string,
    lane: LaneName,
  ): { readonly creditItems: number; readonly creditBytes: number } {
    return {
      creditItems: this.#lane(peer, lane).creditItems,
      creditBytes: inboxLimits.creditBytes,
    };
  }

  /** Fails what waits; resolves when no transaction runs any more. */
  async close(): Promise<void> {
    await Promise.all(Array.from(this.#lanes.values(), (lane) => lane.close()));
  }

  #lane(peer: string, lane: LaneName): InboundLane {
    const key = `${peer} ${lane}`;
    const found = this.#lanes.get(key) ?? new InboundLane(peer, lane, this.#options);
    this.#lanes.set(key, found);
    return found;
  }
}

class InboundLane {
  readonly #peer: string;
  readonly #lane: LaneName;
  readonly #options: RelayInboxOptions;
  readonly #waiting: Waiting[] = [];
  /** Where the lane stands on disk, as far as it was read; this worker alone moves it. */
  #stream: InboundStream | undefined;
  #isLoaded = false;
  #isClosed = false;
  #worker: Promise<void> | undefined;
  creditItems: number = inboxLimits.firstCreditItems;

  constructor(peer: string, lane: LaneName, options: RelayInboxOptions) {
    this.#peer = peer;
    this.#lane = lane;
    this.#options = options;
  }

  async add(batch: RelayBatch): Promise<RelayApplied> {
    if (this.#isClosed) throw new UnavailableError('DRAINING', 'this node is stopping');
    if (this.#waiting.length >= inboxLimits.batches) {
      throw new ResourceExhaustedError('OVERLOADED', `${this.#waiting.length} batches wait`, {
        retryAfterMs: inboxLimits.overloadedMs,
      });
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
        const applied = await this.#options.store.applyRelay(this.#peer, next.batch);
        const { lane, streamId } = next.batch;
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
    for (const waiting of [...this.#waiting]) {
      if (sameBytes(waiting.batch.streamId, batch.streamId)) this.#expire(waiting);
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

/** Streams of a peer for a hello, lanes in order. */
export function inOrder(streams: readonly InboundStream[]): InboundStream[] {
  return laneNames.flatMap((lane) => streams.filter((stream) => stream.lane === lane));
}
