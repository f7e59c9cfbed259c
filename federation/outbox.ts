/**
 * The sending side of the relay: one loop per (peer, lane) that reads the durable outbox, keeps a
 * small window of batches in flight and deletes what the receiver's cursor has passed. The cursor
 * and chain rules are those of docs/protocol/federation.md and decision 0004.
 */
import {
  maxControlBytes,
  maxRelayBytes,
  maxRelayItems,
  methods,
  QpcError,
  TransportError,
  type Runtime,
  sameBytes,
} from '@quicprochat/proto';
import type { FedRelayResponse, StreamState } from '@quicprochat/proto/messages';
import { retryCapMs, retryDelayMs } from './back-off.ts';
import { chainBytes, laneToWire, streamFromGap, streamFromWire, streamGap } from './lane.ts';
import type { LinkSession } from './link-session.ts';
import { PoisonWatch, relayFault } from './poison.ts';
import { itemToWire, rejectsFromWire, takeBatch, type OutBatch } from './relay-batch.ts';
import type { InboundStream, LaneName, OutboundStream, OutboxRow, OutboxStore } from './store.ts';
import type { WireMark } from './store-mark.ts';
import { Wakeup } from './wakeup.ts';

export const outboxLimits = {
  /**
   * Batches in flight per lane. One until the first reply of a session has proven cursor and
   * credit, then four: at 100 ms round trip that is 10 000 items/s, above any peer's ceiling.
   */
  window: 4,
  /** A relay call without an answer for this long (ms) means a dead link. */
  relayMs: 15_000,
  /** Longest pause that a peer may ask for (ms). */
  pauseMaxMs: 5 * 60_000,
  /** Pause when a peer gives no credit and no time (ms). */
  noCreditMs: 5_000,
  /**
   * A new stream rewrites every row that is held, so a receiver may not cause them at will: two in an
   * hour are its right, each further one waits twice as long as the one before, from a second...
   */
  freeRestarts: 2,
  restartMs: 1_000,
  /** ...up to this (ms), until there was none for so long. */
  restartMaxMs: 5 * 60_000,
  restartMemoryMs: 3_600_000,
} as const;

/** Why a stream starts anew: the peer was restored from an older copy, or is new. */
const receiverLost = 'the receiver lost what it had confirmed';

export interface LaneStatus {
  readonly lane: LaneName;
  readonly batchesInFlight: number;
  /** Items that the peer takes unanswered; 0 = none now. */
  readonly creditItems: number;
  /** Last seq that the peer confirmed in the current stream. */
  readonly acked: number;
  readonly isIdle: boolean;
  /** Until the next try (ms); 0 unless paused. */
  readonly pausedForMs: number;
}

export interface LaneSenderOptions {
  readonly peer: string;
  readonly lane: LaneName;
  readonly store: OutboxStore;
  readonly runtime: Runtime;
  /** What the peer says of its store with a reply. */
  readonly onMark?: (mark: WireMark) => Promise<void>;
  /** Rows were refused for now: the store has when they are due. */
  readonly onDeferred?: () => void;
}

/** `acked`: what was confirmed when the batch left. */
type Failure = { readonly batch: OutBatch; readonly error: unknown; readonly acked: number };
type Outcome = { readonly batch: OutBatch; readonly response: FedRelayResponse } | Failure;

const noStream: OutboundStream = {
  streamId: new Uint8Array(0),
  nextSeq: 1,
  acked: 0,
  chain: new Uint8Array(chainBytes),
};

/** Sends one lane's rows to one peer. `run` is called once per session, never twice at a time. */
export class LaneSender {
  readonly #options: LaneSenderOptions;
  readonly #wakeup: Wakeup;
  readonly #poison: PoisonWatch;
  #stream = noStream;
  /** Last seq sent (or known to be there) in the current stream. */
  #sent = 0;
  /** Rows may be waiting that were not read yet. */
  #isDirty = false;
  #isProven = false;
  #credit = { items: 0, bytes: 0 };
  #inFlight = new Map<OutBatch, Promise<void>>();
  #outcomes: Outcome[] = [];
  #failure: Failure | undefined;
  #pausedUntilMs = 0;
  /** Rounds without progress: the exponent of the pause between them. */
  #stalls = 0;
  /** New streams that the receiver's cursor asked for, and when the last one was. */
  #restarts = 0;
  #restartedMs = Number.NEGATIVE_INFINITY;
  /** Where the receiver says it is, once it is time for another new stream. */
  #toldEarly: { readonly told: InboundStream | undefined } | undefined;

  constructor(options: LaneSenderOptions) {
    this.#options = options;
    this.#wakeup = new Wakeup(options.runtime.clock);
    this.#poison = new PoisonWatch(options.runtime.clock);
  }

  get name(): LaneName {
    return this.#options.lane;
  }

  /** True when every row that this lane knows of is confirmed and settled. */
  get isIdle(): boolean {
    const isSettled = this.#inFlight.size === 0 && this.#sent === this.#stream.acked;
    return !this.#isDirty && isSettled && this.#toldEarly === undefined;
  }

  status(): LaneStatus {
    return {
      lane: this.#options.lane,
      batchesInFlight: this.#inFlight.size,
      creditItems: this.#credit.items,
      acked: this.#stream.acked,
      isIdle: this.isIdle,
      pausedForMs: Math.max(0, Math.round(this.#pausedUntilMs - this.#nowMs())),
    };
  }

  /** The store may hold new rows. */
  notify(): void {
    this.#isDirty = true;
    this.#wakeup.raise();
  }

  /**
   * Sends until the session ends. Throws what makes the link useless (the caller then ends the
   * session); refusals of single batches are handled here. No call is in flight when it settles.
   */
  async run(session: LinkSession): Promise<void> {
    const stop = (): void => this.#wakeup.raise();
    session.signal.addEventListener('abort', stop, { once: true });
    try {
      await this.#begin(session);
      while (!session.signal.aborted) await this.#step(session);
    } finally {
      await Promise.all(this.#inFlight.values());
      this.#outcomes = [];
      this.#failure = undefined;
      session.signal.removeEventListener('abort', stop);
    }
  }

  async #begin({ hello }: LinkSession): Promise<void> {
    const { store, peer, lane } = this.#options;
    this.#isProven = false;
    this.#stalls = 0;
    this.#pausedUntilMs = 0;
    this.#toldEarly = undefined;
    this.#credit = { items: hello.creditItems, bytes: hello.creditBytes };
    this.#stream = await store.outboundStream(peer, lane);
    await this.#reconcile(streamOfLane(hello.streams, lane));
  }

  async #step(session: LinkSession): Promise<void> {
    if (this.#outcomes.length > 0) return this.#settle();
    if (this.#toldEarly !== undefined && this.#nowMs() >= this.#pausedUntilMs) {
      return this.#reconcile(this.#toldEarly.told);
    }
    // After a failure the window runs empty first: nothing of an old try may overtake the next.
    if (this.#failure !== undefined && this.#inFlight.size === 0) return this.#recover();
    const maySend = this.#failure === undefined && this.#toldEarly === undefined;
    if (maySend && (await this.#fill(session))) return;
    if (this.#outcomes.length > 0 || session.signal.aborted) return;
    const pauseMs = this.#pausedUntilMs - this.#nowMs();
    await this.#wakeup.wait(pauseMs > 0 ? pauseMs : Number.POSITIVE_INFINITY);
  }

  /**
   * Whether what the receiver says of its streams shows that it does not have any more what it confirmed. Throws what the
   * store throws.
   */
  async isReceiverBehind(streams: readonly StreamState[]): Promise<boolean> {
    const { store, peer, lane } = this.#options;
    const { streamId, acked } = await store.outboundStream(peer, lane);
    const told = streamOfLane(streams, lane);
    const isKnown = told !== undefined && sameBytes(told.streamId, streamId);
    return acked > 0 && (!isKnown || told.cursor < acked);
  }

  /**
   * Compares the receiver's cursor and chain with ours: continue behind it, or, when either side
   * was restored from an older copy, start a new stream with all rows still held.
   */
  async #reconcile(told: InboundStream | undefined): Promise<void> {
    const { store, peer, lane } = this.#options;
    this.#stream = await store.outboundStream(peer, lane);
    const { acked, nextSeq, streamId } = this.#stream;
    // A receiver that does not know the stream stands at its beginning.
    const known = told !== undefined && sameBytes(told.streamId, streamId) ? told : undefined;
    const cursor = known?.cursor ?? 0;
    this.#toldEarly = undefined;
    const why = await this.#whyRestart(known);
    if (why !== undefined) {
      const waitMs = this.#restartWaitMs();
      if (waitMs <= 0) {
        this.#restarts += 1;
        this.#restartedMs = this.#nowMs();
        return this.#restart(why, cursor);
      }
      this.#toldEarly = { told };
      return this.#pause(waitMs, why);
    }
    // A cursor ahead of `acked` means that replies were lost, and rejects with them. Sending the
    // row at the cursor once more brings both back; the receiver skips it.
    this.#sent = cursor > acked ? cursor - 1 : cursor;
    if (nextSeq - 1 > this.#sent) this.#isDirty = true;
  }

  /** Which rule says that the two ends do not mean the same rows; undefined: they do. */
  async #whyRestart(known: InboundStream | undefined): Promise<string | undefined> {
    const { acked, nextSeq } = this.#stream;
    const cursor = known?.cursor ?? 0;
    if (cursor < acked) return receiverLost;
    if (cursor >= nextSeq) return 'this node lost rows that it had sent';
    if (known === undefined || cursor === 0 || (await this.#isOurChain(cursor, known.chain))) {
      return undefined;
    }
    return 'this node and the receiver hold different rows';
  }

  /** Until the receiver may cause another new stream (ms). */
  #restartWaitMs(): number {
    const { freeRestarts, restartMs, restartMaxMs, restartMemoryMs } = outboxLimits;
    const sinceMs = this.#nowMs() - this.#restartedMs;
    if (sinceMs > restartMemoryMs) this.#restarts = 0;
    if (this.#restarts < freeRestarts) return 0;
    const times = Math.min(this.#restarts - freeRestarts, 20);
    return Math.min(restartMs * 2 ** times, restartMaxMs) - sinceMs;
  }

  async #isOurChain(seq: number, chain: Uint8Array): Promise<boolean> {
    const { store, peer, lane } = this.#options;
    const ours = await store.outboxChainAt(peer, lane, seq);
    return ours !== undefined && sameBytes(ours, chain);
  }

  async #restart(why: string, cursor: number): Promise<void> {
    const { store, peer, lane, runtime } = this.#options;
    const { acked, nextSeq } = this.#stream;
    this.#stream = await store.restartOutbound(peer, lane, why === receiverLost);
    this.#sent = 0;
    if (this.#stream.nextSeq > 1) this.#isDirty = true;
    this.#isProven = false;
    this.#poison.renumbered();
    runtime.log.warn('outbox stream restarted', { peer, lane, why, cursor, acked, nextSeq });
  }

  /** Sends one batch if window, credit and rows allow it. Returns whether anything was done. */
  async #fill(session: LinkSession): Promise<boolean> {
    const { store, peer, lane } = this.#options;
    const isCareful = !this.#isProven || this.#poison.isActive;
    if (!this.#isDirty || this.#inFlight.size >= (isCareful ? 1 : outboxLimits.window))
      return false;
    if (this.#nowMs() < this.#pausedUntilMs) return false;
    const room = this.#room();
    if (room.items <= 0 || room.bytes <= 0) return false;
    // Before the read: rows that come during it set it again.
    this.#isDirty = false;
    const rows = await store.readOutbox(peer, lane, this.#sent, room.items, room.bytes);
    const [head] = rows;
    if (head === undefined) return false;
    const isAlone = this.#inFlight.size === 0;
    const batch = takeBatch(rows, this.#sent, room.bytes, isAlone);
    // Whatever ended the read or the batch before the rows did, there may be more.
    const readBytes = rows.reduce((sum, { payload }) => sum + payload.length, 0);
    const isAll = rows.length < room.items && readBytes + maxControlBytes <= room.bytes;
    if (!isAll || batch?.rows.length !== rows.length) this.#isDirty = true;
    if (batch !== undefined) this.#send(session, batch);
    else if (!isAlone) return false;
    else if (head.seq !== this.#sent + 1) await this.#restart('rows are missing', this.#sent);
    else await this.#drop(head, 'TOO_LARGE');
    return true;
  }

  /** What may be sent now: credit less what is unanswered, within one batch. */
  #room(): { readonly items: number; readonly bytes: number } {
    let { items, bytes } = this.#credit;
    if (this.#inFlight.size === 0 && (items === 0 || bytes === 0)) {
      // Without credit, and after the pause that came with it, a single row asks again.
      return { items: 1, bytes: maxRelayBytes };
    }
    for (const batch of this.#inFlight.keys()) {
      items -= batch.rows.length;
      bytes -= batch.bytes;
    }
    return {
      items: Math.min(items, maxRelayItems, this.#poison.itemsMax),
      bytes: Math.min(bytes, maxRelayBytes),
    };
  }

  #send(session: LinkSession, batch: OutBatch): void {
    const { streamId, acked } = this.#stream;
    const request = {
      lane: laneToWire(this.#options.lane),
      streamId,
      acked: BigInt(acked),
      firstSeq: BigInt(batch.firstSeq),
      items: batch.rows.map(itemToWire),
    };
    this.#sent = batch.lastSeq;
    const method = batch.rows.length === 1 ? methods.fedRelay : methods.fedRelayBatch;
    const done = session.call(method, request, { deadlineMs: outboxLimits.relayMs }).then(
      (response) => this.#finish({ batch, response }),
      (error: unknown) => this.#finish({ batch, error, acked }),
    );
    this.#inFlight.set(batch, done);
  }

  #finish(outcome: Outcome): void {
    this.#inFlight.delete(outcome.batch);
    this.#outcomes.push(outcome);
    this.#wakeup.raise();
  }

  /**
   * Handles the replies that are here. The one with the highest cursor speaks for all: the
   * receiver made it last, and it repeats every reject that is not settled yet.
   */
  async #settle(): Promise<void> {
    let best: { readonly batch: OutBatch; readonly response: FedRelayResponse } | undefined;
    for (const outcome of this.#outcomes.splice(0)) {
      if ('error' in outcome) {
        const isFirst =
          this.#failure === undefined || outcome.batch.firstSeq < this.#failure.batch.firstSeq;
        if (isFirst) this.#failure = outcome;
        continue;
      }
      const { response } = outcome;
      this.#credit = { items: response.creditItems, bytes: response.creditBytes };
      const isSpent = response.creditItems === 0 || response.creditBytes === 0;
      const askedMs = Number(response.retryAfterMs) || (isSpent ? outboxLimits.noCreditMs : 0);
      if (askedMs > 0) this.#pause(askedMs, 'the receiver asks for time');
      if (best === undefined || response.cursor > best.response.cursor) best = outcome;
    }
    if (best !== undefined) await this.#confirm(best.batch, best.response);
  }

  async #confirm(batch: OutBatch, response: FedRelayResponse): Promise<void> {
    const { store, peer, lane } = this.#options;
    const { streamId, acked } = this.#stream;
    const told = streamFromWire({ ...response, lane: laneToWire(lane), streamId });
    if (told === undefined || told.cursor < batch.lastSeq) {
      // The receiver applies whole batches; this one speaks another protocol.
      throw new TransportError('protocol', `relay reply: cursor ${response.cursor} is not behind`);
    }
    const row = batch.rows.at(-1);
    const isSame =
      row?.seq === told.cursor
        ? sameBytes(row.chain, told.chain)
        : await this.#isOurChain(told.cursor, told.chain);
    // No row is deleted unless the receiver proves that it holds the same one.
    if (!isSame) {
      this.#failure = { batch, error: streamGap(told), acked };
      return;
    }
    await this.#options.onMark?.(response);
    const rejects = rejectsFromWire(response.rejects, acked, told.cursor);
    await store.settleOutbox(peer, lane, streamId, told.cursor, rejects);
    if (rejects.some(({ temporary }) => temporary)) this.#options.onDeferred?.();
    this.#stream = { ...this.#stream, acked: told.cursor, chain: told.chain };
    this.#sent = Math.max(this.#sent, told.cursor);
    this.#isProven = true;
    this.#stalls = 0;
    this.#poison.succeeded(told.cursor);
  }

  /** Decides what follows a failed batch. Throws what only a new link can mend. */
  async #recover(): Promise<void> {
    const failure = this.#failure;
    if (failure === undefined) return;
    const { batch, error } = failure;
    this.#failure = undefined;
    this.#sent = this.#stream.acked;
    this.#isDirty = true;
    const fault = relayFault(error);
    const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
    const { random } = this.#options.runtime;
    switch (fault) {
      case 'link':
        throw error;
      case 'pause': {
        const askedMs = error instanceof QpcError ? error.retryAfterMs : undefined;
        this.#pause(askedMs ?? retryDelayMs(this.#stalls, retryCapMs(0), random), reason);
        this.#stalls += 1;
        return;
      }
      case 'gap': {
        const told = streamFromGap(error);
        if (told === undefined) throw error;
        if (this.#stalls > 0)
          this.#pause(retryDelayMs(this.#stalls, retryCapMs(0), random), reason);
        this.#stalls += 1;
        // The batch overtook others: what was confirmed since it left is not lost.
        const { streamId, acked } = this.#stream;
        const cursor = sameBytes(told.streamId, streamId) ? told.cursor : 0;
        const isStale = cursor >= failure.acked && cursor < acked;
        return isStale ? undefined : this.#reconcile(told);
      }
      case 'internal':
      case 'refused':
      case 'tooLarge': {
        const [row] = batch.rows;
        const verdict = this.#poison.failed(batch.firstSeq, batch.rows.length, fault);
        if (verdict === 'drop' && row !== undefined) return this.#drop(row, reason);
        const capMs = retryCapMs(this.#poison.failingForMs);
        this.#pause(retryDelayMs(this.#poison.tries, capMs, random), reason);
      }
    }
  }

  #pause(ms: number, why: string): void {
    const { runtime, peer, lane } = this.#options;
    const pauseMs = Math.min(ms, outboxLimits.pauseMaxMs);
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, this.#nowMs() + pauseMs);
    runtime.log.info('relay paused', { peer, lane, why, pauseMs: Math.round(pauseMs) });
  }

  /**
   * Gives one row up: a dead letter for each of its devices. The receiver's cursor never saw it, so
   * the rows behind it start a new stream. A crash between the two steps looks like a receiver that
   * lost a row, and ends in the same new stream.
   */
  async #drop(row: OutboxRow, reason: string): Promise<void> {
    const { store, peer, lane, runtime } = this.#options;
    // Only the first row that is not settled may go; what stands before it is sent first.
    if (row.seq !== this.#stream.acked + 1) {
      this.#sent = this.#stream.acked;
      return;
    }
    const { seq } = row;
    const rejects = row.rids.map((rid) => ({ seq, rid, reason, temporary: false }));
    await store.settleOutbox(peer, lane, this.#stream.streamId, seq, rejects);
    this.#poison.dropped();
    runtime.log.error('outbox row dead', { peer, lane, seq, reason, devices: row.rids.length });
    await this.#restart('a row became a dead letter', seq - 1);
  }

  #nowMs(): number {
    return this.#options.runtime.clock.monotonic();
  }
}

/** Where the peer stands in a lane, by its hello. */
function streamOfLane(streams: readonly StreamState[], lane: LaneName): InboundStream | undefined {
  const wireLane = laneToWire(lane);
  const told = streams.find((stream) => stream.lane === wireLane);
  return told === undefined ? undefined : streamFromWire(told);
}
