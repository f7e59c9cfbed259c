/**
 * Follows the inbox of this device at its node: Subscribe from the persisted cursor, push with
 * FetchWait as the fallback, and the ack rule of docs/protocol/delivery.md: ack what is durable here,
 * up to 64 rows or 100 ms late. What becomes of a row is receiver's business.
 */
import {
  hasReason,
  lanesCapability,
  maxFetchRows,
  maxWaitMs,
  methods,
  PushEvent,
  QpcError,
  Status,
  TransportError,
  type PushFrame,
  type Runtime,
  sameBytes,
} from '@quicprochat/proto';
import {
  fromBinary,
  GapEventSchema,
  KeyChangeEventSchema,
  MessageEventSchema,
  StreamStartEventSchema,
  TypingEventSchema,
  type FetchResponse,
  type Gap,
  type Row,
} from '@quicprochat/proto/messages';
import type { EventBus } from '../events.ts';
import type { Session } from '../session.ts';
import type { Outbox } from '../sending/outbox.ts';
import type { Receiver } from './receiver.ts';
import { inboxLog, type InboxRow } from '../store/inbox-rows.ts';
import type { ClientStore } from '../store/store.ts';

export const syncLimits = {
  /** Rows after which, or time after which (ms), what is durable gets acked. */
  ackRows: 64,
  ackDelayMs: 100,
  /** Wait before a failed ack is repeated (ms). */
  ackRetryMs: 1_000,
  /** Rows being taken in at once: below the node's window. */
  rowsInFlight: 128,
  /** Push streams that may break on one connection before FetchWait takes over. */
  pushBreaks: 3,
} as const;

export interface SyncParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly receiver: Receiver;
  readonly outbox: Outbox;
  /** Rows may have been lost before they came here; done when it is durable what is to be asked for. */
  readonly onRowsLost: () => Promise<void>;
  readonly onKeyPackagesLow: (session: Session) => void;
  /** A node's hint that somebody's keys changed; undefined: the own ones. */
  readonly onKeyHint: (userId?: string) => void;
  /** The node says that it has evidence against a log. */
  readonly onLogEvidence: () => void;
  /** A payload of the ephemeral lane. */
  readonly onTyping: (payload: Uint8Array) => void;
}

/** Follows the inbox over one session after the other. */
export class Sync {
  readonly #parts: SyncParts;
  #isSuperseded = false;
  /** Whether the store is known to be the newest one of this device; a file can be copied back only while it is closed. */
  #isNewest = false;
  #isPolling = false;

  constructor(parts: SyncParts) {
    this.#parts = parts;
  }

  /** The inbox is asked for by FetchWait, for want of a push stream. */
  get isPolling(): boolean {
    return this.#isPolling;
  }

  /** Receives again after another connection of this device took over. True if one had. */
  resume(): boolean {
    const wasSuperseded = this.#isSuperseded;
    this.#isSuperseded = false;
    return wasSuperseded;
  }

  /**
   * Takes over a new session, before anything was called on it: subscribes, opens the outbox with
   * the node's store id, and runs until the session ends.
   */
  attach(session: Session): void {
    const { log } = this.#parts.runtime;
    const run = new SessionSync(this.#parts, session, {
      superseded: () => {
        this.#isSuperseded = true;
        this.#parts.events.emit({ type: 'link', state: 'superseded', reason: 'SUPERSEDED' });
      },
      gap: () => {
        this.#isNewest = false;
      },
      polling: () => {
        this.#isPolling = true;
      },
    });
    const work = async (): Promise<void> => {
      this.#isPolling = false;
      if (!this.#isNewest) await run.checkCopy();
      this.#isNewest = true;
      await run.run(!this.#isSuperseded);
    };
    work().catch((error: unknown) => {
      if (session.signal.aborted) return;
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      log.warn('receiving failed', { reason, error: String(error) });
      // The link dials again after a while; the cursor is where it was.
      session.end('receiving failed');
    });
  }
}

/** What a session tells whoever starts the next one. */
interface Happenings {
  superseded(): void;
  /** Rows were missing without a word. */
  gap(): void;
  /** Push does not work over this session. */
  polling(): void;
}

/** The inbox over one session. */
class SessionSync {
  readonly #parts: SyncParts;
  readonly #session: Session;
  readonly #on: Happenings;
  #storeId: Uint8Array = new Uint8Array(0);
  /** Resolves when the store id is known: pushes may overtake the answer to Subscribe. */
  readonly #subscribed = Promise.withResolvers<void>();
  #subscriptions = 0;
  readonly #hasLanes: boolean;
  #streams = 0;
  #breaks = 0;
  #isOver = false;

  readonly #inFlight = new Set<Promise<void>>();
  #durableSeq = 0;
  #ackedSeq = 0;
  #isAckTimerSet = false;
  #acking: Promise<void> | undefined;

  constructor(parts: SyncParts, session: Session, on: Happenings) {
    this.#parts = parts;
    this.#hasLanes = session.hello.capabilities.includes(lanesCapability);
    this.#session = session;
    this.#on = on;
    this.#subscribed.promise.catch(() => undefined);
    session.signal.addEventListener('abort', () => this.#subscribed.reject(session.signal.reason));
  }

  /**
   * Asks the node what it still has behind our cursor: rows that are gone without being a gap were
   * acknowledged by a later state of this store, which is lost.
   */
  async checkCopy(): Promise<void> {
    const { store, receiver, onRowsLost } = this.#parts;
    const cursor = store.inbox.cursor(inboxLog);
    if (cursor === undefined) return;
    let fetched: FetchResponse;
    try {
      fetched = await this.#session.call(methods.fetch, {
        log: {},
        after: BigInt(cursor.seq),
        maxRows: 1,
      });
    } catch (error) {
      // A cursor beyond the head: that node was rewound, not we.
      if (hasReason(error, 'BAD_CURSOR')) return;
      throw error;
    }
    const behind = startOf(fetched);
    if (!sameBytes(fetched.storeId, cursor.storeId) || behind <= cursor.seq) return;
    await onRowsLost();
    await receiver.passLost(behind, cursor.storeId);
  }

  async run(isReceiving: boolean): Promise<void> {
    const { outbox } = this.#parts;
    const session = this.#session;
    session.connection.onPushStream((frames) => this.#onStream(frames));
    if (isReceiving) {
      await this.#subscribe();
    } else {
      const { storeId } = await session.call(methods.fetch, { log: {}, maxRows: 1 });
      this.#storeId = storeId;
    }
    outbox.open(session, this.#storeId);
    // Acks that got lost with the last connection.
    if (isReceiving) this.#durable(this.#cursorSeq());
    if (isReceiving && this.#breaks > syncLimits.pushBreaks) await this.#poll();
  }

  async #subscribe(): Promise<void> {
    const { store } = this.#parts;
    const session = this.#session;
    for (let attempt = 0; ; attempt += 1) {
      const cursor = store.inbox.cursor(inboxLog);
      this.#subscriptions += 1;
      try {
        const { storeId } = await session.call(methods.subscribe, {
          cursors: [
            {
              log: {},
              after: BigInt(cursor?.seq ?? 0),
              storeId: cursor?.storeId ?? new Uint8Array(0),
            },
          ],
          ephemeralLane: this.#hasLanes,
          subscription: this.#subscriptions,
        });
        if (cursor === undefined || !sameBytes(cursor.storeId, storeId)) {
          await this.#newStore(storeId, 0);
        }
        this.#storeId = storeId;
        this.#subscribed.resolve();
        return;
      } catch (error) {
        if (error instanceof QpcError && error.status === Status.Unimplemented) {
          return this.#withoutPush();
        }
        if (attempt > 0 || !hasReason(error, 'STORE_CHANGED', 'BAD_CURSOR')) throw error;
        // Cursors are void, also one beyond the head: that store was rewound.
        await this.#startOver();
      }
    }
  }

  /** A node without push: the store id comes from a fetch, rows by polling. */
  async #withoutPush(): Promise<void> {
    const fetched = await this.#session.call(methods.fetch, { log: {}, maxRows: 1 });
    const { storeId } = fetched;
    const cursor = this.#parts.store.inbox.cursor(inboxLog);
    if (cursor === undefined || !sameBytes(cursor.storeId, storeId)) {
      await this.#newStore(storeId, startOf(fetched));
    }
    this.#storeId = storeId;
    this.#breaks = syncLimits.pushBreaks + 1;
    this.#subscribed.resolve();
  }

  async #startOver(): Promise<void> {
    const fetched = await this.#session.call(methods.fetch, { log: {}, maxRows: 1 });
    await this.#newStore(fetched.storeId, startOf(fetched));
  }

  /** The cursor starts anew, and what the other store had accepted is sent once more. */
  async #newStore(storeId: Uint8Array, seq: number): Promise<void> {
    const { store, outbox, events, onRowsLost } = this.#parts;
    const isFirst = store.inbox.cursor(inboxLog) === undefined;
    // First, so that a crash between the two asks again.
    if (!isFirst) await onRowsLost();
    const resent = store.transaction(() => {
      store.inbox.putCursor(inboxLog, { storeId, seq });
      return isFirst ? 0 : outbox.storeChanged(storeId);
    });
    if (!isFirst) events.emit({ type: 'storeChanged', resent });
  }

  async #onStream(frames: AsyncIterable<PushFrame>): Promise<void> {
    // A node with lanes numbers its streams; of another there is one for each subscription, in order.
    this.#streams += 1;
    let stream = this.#hasLanes ? Infinity : this.#streams;
    let isEphemeral = false;
    try {
      await this.#subscribed.promise;
      for await (const frame of frames) {
        this.#session.heard();
        if (this.#isOver) return;
        if (frame.eventType === PushEvent.StreamStart) {
          const start = fromBinary(StreamStartEventSchema, frame.payload);
          ({ subscription: stream, isEphemeral } = start);
        } else {
          await this.#onFrame(frame, stream);
        }
      }
      await Promise.all(this.#inFlight);
    } catch (error) {
      if (this.#session.signal.aborted) return;
      this.#fail(error);
      return;
    }
    if (isEphemeral) return;
    // An older stream ends when we subscribe anew; only the newest one matters.
    if (stream < this.#subscriptions || this.#isOver || this.#session.signal.aborted) return;
    this.#breaks += 1;
    this.#again().catch((error: unknown) => this.#fail(error));
  }

  /** The stream ended alone: subscribe again, or poll when that happens too often. */
  async #again(): Promise<void> {
    if (this.#breaks > syncLimits.pushBreaks) return this.#poll();
    return this.#subscribe();
  }

  async #onFrame(frame: PushFrame, stream: number): Promise<void> {
    switch (frame.eventType) {
      case PushEvent.Message:
      case PushEvent.Bounce:
      case PushEvent.Expired:
      case PushEvent.Delayed:
      case PushEvent.PeerRestored: {
        const { storeId, row } = fromBinary(MessageEventSchema, frame.payload);
        if (row !== undefined) await this.#take(row, storeId);
        break;
      }
      case PushEvent.Gap: {
        const { storeId, gap } = fromBinary(GapEventSchema, frame.payload);
        if (gap !== undefined) await this.#pass(gap, storeId);
        break;
      }
      case PushEvent.Superseded:
        // On an older stream it is the echo of our own newer Subscribe.
        if (stream < this.#subscriptions) return;
        this.#isOver = true;
        this.#on.superseded();
        break;
      case PushEvent.KeyPackagesLow:
        this.#parts.onKeyPackagesLow(this.#session);
        break;
      case PushEvent.KeyChange:
        this.#parts.onKeyHint(fromBinary(KeyChangeEventSchema, frame.payload).userId);
        break;
      case PushEvent.Typing:
        this.#parts.onTyping(fromBinary(TypingEventSchema, frame.payload).payload);
        break;
      case PushEvent.KeyLogEvidence:
        this.#parts.onLogEvidence();
        break;
      case PushEvent.DeviceChange:
        this.#parts.onKeyHint();
        break;
      case PushEvent.StoreChanged:
        this.#session.end('the store changed');
        break;
      default:
        // Later versions know more events; ServerDraining needs no action, the close follows.
        break;
    }
  }

  /** Hands a row on; waits only when too many are on their way. */
  async #take(wire: Row, storeId: Uint8Array): Promise<void> {
    const row: InboxRow = {
      seq: seqOf(wire.seq),
      mid: wire.mid,
      kind: wire.kind,
      payload: wire.payload,
      receivedMs: Number(wire.receivedMs),
    };
    this.#track(this.#parts.receiver.receive(row, storeId).then(() => this.#durable(row.seq)));
    if (this.#inFlight.size >= syncLimits.rowsInFlight) await Promise.race(this.#inFlight);
  }

  async #pass(gap: Gap, storeId: Uint8Array): Promise<void> {
    const to = seqOf(gap.to);
    // First, so that a crash between the two has it told again.
    await this.#parts.onRowsLost();
    await this.#parts.receiver.passGap(seqOf(gap.from), to, storeId);
    this.#durable(to);
  }

  #track(work: Promise<void>): void {
    const tracked = work
      .catch((error: unknown) => this.#fail(error))
      .finally(() => this.#inFlight.delete(tracked));
    this.#inFlight.add(tracked);
  }

  #fail(error: unknown): void {
    if (this.#isOver || this.#session.signal.aborted) return;
    this.#isOver = true;
    if (hasReason(error, 'STREAM_GAP')) this.#on.gap();
    const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
    this.#parts.runtime.log.warn('receiving failed', { reason, error: String(error) });
    this.#session.end('receiving failed');
  }

  /** FetchWait until the session ends. */
  async #poll(): Promise<void> {
    const session = this.#session;
    this.#on.polling();
    while (!session.signal.aborted && !this.#isOver) {
      const { logs } = await session.call(
        methods.fetchWait,
        {
          cursors: [{ log: {}, after: BigInt(this.#cursorSeq()), storeId: this.#storeId }],
          waitMs: maxWaitMs,
        },
        { signal: session.signal },
      );
      for (const { fetched } of logs) if (fetched !== undefined) await this.#takeAll(fetched);
    }
  }

  async #takeAll({ storeId, gap, rows }: FetchResponse): Promise<void> {
    if (gap !== undefined) await this.#pass(gap, storeId);
    for (const row of rows.slice(0, maxFetchRows)) await this.#take(row, storeId);
    await Promise.all(this.#inFlight);
  }

  #cursorSeq(): number {
    return this.#parts.store.inbox.cursor(inboxLog)?.seq ?? 0;
  }

  /** Everything up to `seq` is on disk: say so, but not for each row. */
  #durable(seq: number): void {
    this.#durableSeq = Math.max(this.#durableSeq, seq);
    const unacked = this.#durableSeq - this.#ackedSeq;
    if (unacked <= 0) return;
    if (unacked >= syncLimits.ackRows) this.#ack();
    else this.#ackIn(syncLimits.ackDelayMs);
  }

  #ackIn(delayMs: number): void {
    if (this.#isAckTimerSet) return;
    this.#isAckTimerSet = true;
    this.#parts.runtime.clock.timer(delayMs, () => {
      this.#isAckTimerSet = false;
      this.#ack();
    });
  }

  #ack(): void {
    if (this.#acking !== undefined || this.#session.signal.aborted) return;
    const upTo = this.#durableSeq;
    if (upTo <= this.#ackedSeq) return;
    this.#acking = this.#session
      .call(methods.ack, { log: {}, storeId: this.#storeId, upTo: BigInt(upTo) })
      .then(
        () => {
          this.#ackedSeq = Math.max(this.#ackedSeq, upTo);
          this.#acking = undefined;
          this.#durable(this.#durableSeq);
        },
        (error: unknown) => {
          this.#acking = undefined;
          if (hasReason(error, 'STORE_CHANGED', 'BAD_CURSOR')) this.#fail(error);
          else this.#ackIn(syncLimits.ackRetryMs);
        },
      );
  }
}

/**
 * A seq as the number that it must stay: a cursor beyond 2^53 - 1 would be refused by every node.
 * Throws TransportError `protocol`.
 */
export function seqOf(seq: bigint): number {
  if (seq <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(seq);
  throw new TransportError('protocol', 'inbox: a seq above 2^53 - 1');
}

/**
 * Where a store begins for us, by its answer to a fetch from 0: behind what this device acked before
 * the copy was made that the node was restored from. Those rows are no gap, so none is told.
 */
export function startOf({ gap, rows, head }: FetchResponse): number {
  const first = gap?.from ?? rows[0]?.seq ?? head + 1n;
  return first === 0n ? 0 : seqOf(first - 1n);
}
