/**
 * Push: one subscription per device reads its inbox and channels from disk and writes message events
 * under one window of unacked rows, so that nothing is buffered for a slow or silent client.
 */
import { CloseCode, type Connection, type PushWriter } from '@quicprochat/proto/transport';
import { hasReason, PushEvent, RowKind, type Clock, type Log, hex } from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GapEventSchema,
  KeyPackagesLowEventSchema,
  KtEvidenceEventSchema,
  MessageEventSchema,
  NoticeSchema,
  ServerDrainingEventSchema,
  StoreChangedEventSchema,
  TypingEventSchema,
  SupersededEventSchema,
  toBinary,
} from '@quicprochat/proto/messages';
import { EphemeralLane, streamStart } from './ephemeral-lane.ts';
import { LogReader, wakeKey } from './log-reader.ts';
import type { LogPosition } from './store/channel-store.ts';
import type { Fetched, InboxRow } from './store/message-store.ts';
import type { NodeStore } from './store/store.ts';

/** Unacked rows and bytes after which the store is not read for that device. */
export const pushWindow = { rows: 256, bytes: 1024 * 1024 } as const;
const readRows = 64;

interface Sent {
  readonly seq: number;
  readonly bytes: number;
}

/** Who gets the rows of which device. */
export interface Subscriber {
  readonly rid: Uint8Array;
  /** Its logs, and in each the seq behind which rows are pushed. */
  readonly positions: readonly LogPosition[];
  readonly connection: Connection;
  /** Whether the connection still is the device's: asked before each read of the store. */
  readonly isEntitled: () => Promise<boolean>;
  /** Hints get a stream of their own, and streams begin with the caller's number. */
  readonly lanes?: { readonly number: number } | undefined;
}

/** A one-shot signal that is armed again by each wait. */
class Bell {
  #ring: () => void = () => {};
  #isRung = false;
  ring(): void {
    this.#isRung = true;
    this.#ring();
  }
  async wait(): Promise<void> {
    if (!this.#isRung) await new Promise<void>((resolve) => (this.#ring = resolve));
    this.#isRung = false;
  }
}

/** One log of a subscription. */
interface PushedLog {
  readonly cid: Uint8Array;
  readonly key: string;
  sentSeq: number;
  /** It may hold rows that were not read yet. */
  isDirty: boolean;
  readonly unacked: Sent[];
}

export interface PushParts {
  readonly store: NodeStore;
  readonly clock: Clock;
  readonly log: Log;
}

class Subscription {
  readonly connection: Connection;
  readonly #rid: Uint8Array;
  readonly #store: NodeStore;
  readonly #reader: LogReader;
  readonly #log: Log;
  readonly #isEntitled: () => Promise<boolean>;
  readonly #bell = new Bell();
  /** In the order of their turns. */
  #logs: readonly PushedLog[];
  #unackedRows = 0;
  #unackedBytes = 0;
  #isClosed = false;
  #writer: PushWriter | undefined;
  /** Pushes that are not rows, sent between two rows. */
  readonly #hints: { eventType: number; payload: Uint8Array }[] = [];
  readonly #lane: EphemeralLane | undefined;
  readonly #number: number;

  constructor(subscriber: Subscriber, { store, log, clock }: PushParts) {
    const { rid, positions, connection, isEntitled, lanes } = subscriber;
    this.#lane = lanes && new EphemeralLane(connection, clock, log);
    this.#number = lanes?.number ?? 0;
    this.#rid = rid;
    this.#logs = positions.map(({ cid, after }) => ({
      ...{ cid, key: wakeKey(rid, cid), sentSeq: after },
      ...{ isDirty: true, unacked: [] },
    }));
    this.connection = connection;
    this.#isEntitled = isEntitled;
    this.#store = store;
    this.#reader = new LogReader(store);
    this.#log = log;
    void connection.closed.then(() => this.close());
  }

  /** Keys of its logs (log-reader.ts). */
  get keys(): readonly string[] {
    return this.#logs.map(({ key }) => key);
  }

  rowsAdded(key: string): void {
    for (const log of this.#logs) if (log.key === key) log.isDirty = true;
    this.#bell.ring();
  }

  acked(cid: Uint8Array, upTo: number): void {
    const unacked = this.#logs.find((log) => Buffer.compare(log.cid, cid) === 0)?.unacked ?? [];
    while (unacked[0] !== undefined && unacked[0].seq <= upTo) {
      this.#unackedRows -= 1;
      this.#unackedBytes -= unacked.shift()?.bytes ?? 0;
    }
    this.#bell.ring();
  }

  hint(eventType: number, payload: Uint8Array): void {
    // A hint is dropped first: the client finds out by itself, only later.
    if (this.#hints.length < 32) this.#hints.push({ eventType, payload });
    this.#bell.ring();
  }

  /** Something that concerns the device and not its stream. */
  ephemeral(eventType: number, payload: Uint8Array): void {
    if (this.#lane === undefined) return this.hint(eventType, payload);
    this.#lane.offer(eventType, payload);
    // The durable stream looks whether the session still is the device's.
    this.#bell.ring();
  }

  close(): void {
    this.#isClosed = true;
    this.#lane?.close();
    this.#bell.ring();
  }

  async run(): Promise<void> {
    await Promise.all([this.#runDurable(), this.#lane?.run(this.#number)]);
  }

  async #runDurable(): Promise<void> {
    try {
      this.#writer = await this.connection.openPushStream();
      if (this.#lane !== undefined) await this.#writer.write(streamStart(this.#number, false));
      while (!this.#isClosed) {
        const didWork = await this.#step(this.#writer);
        if (!didWork && !this.#isClosed) await this.#bell.wait();
      }
      await this.#flushHints(this.#writer);
      await this.#writer.close();
    } catch (error) {
      // The connection went away, or its stream was cancelled: the client subscribes again.
      this.#log.debug('push ended', { error: String(error) });
      if (hasReason(error, 'INTERNAL', 'BAD_CURSOR')) {
        await this.connection.close(CloseCode.Protocol, 'push failed');
      }
    }
  }

  async #step(writer: PushWriter): Promise<boolean> {
    if (!(await this.#isEntitled())) {
      this.#hints.length = 0;
      this.close();
      return false;
    }
    await this.#flushHints(writer);
    const roomRows = pushWindow.rows - this.#unackedRows;
    const roomBytes = pushWindow.bytes - this.#unackedBytes;
    const log = this.#logs.find(({ isDirty }) => isDirty);
    if (log === undefined || roomRows <= 0 || roomBytes <= 0) return false;
    // Before the read: rows that come during it set it again.
    log.isDirty = false;
    const fetched = await this.#read(log, Math.min(readRows, roomRows), roomBytes);
    if (fetched !== undefined) await this.#write(writer, log, fetched);
    return true;
  }

  /** Undefined: the log is no longer the device's. */
  async #read(log: PushedLog, maxRows: number, maxBytes: number): Promise<Fetched | undefined> {
    const others = this.#logs.filter((other) => other !== log);
    try {
      const position = { cid: log.cid, after: log.sentSeq };
      const fetched = await this.#reader.fetch(this.#rid, position, maxRows, maxBytes);
      // To the end of the queue: a busy log does not starve the others.
      this.#logs = [...others, log];
      return fetched;
    } catch (error) {
      if (!hasReason(error, 'UNKNOWN_CHANNEL', 'QUOTA')) throw error;
      this.#logs = others;
      for (const { bytes } of log.unacked) {
        this.#unackedRows -= 1;
        this.#unackedBytes -= bytes;
      }
      return undefined;
    }
  }

  async #write(writer: PushWriter, log: PushedLog, fetched: Fetched): Promise<void> {
    const { gap, rows, head } = fetched;
    const { storeId } = this.#store;
    const { cid } = log;
    // Rows up to the head are all that there is, until the bell rings again.
    log.isDirty ||= (rows.at(-1)?.seq ?? gap?.to ?? head) < head;
    if (gap !== undefined) {
      const wireGap = { from: BigInt(gap.from), to: BigInt(gap.to) };
      const event = create(GapEventSchema, { log: { cid }, storeId, gap: wireGap });
      await writer.write({ eventType: PushEvent.Gap, payload: toBinary(GapEventSchema, event) });
      log.sentSeq = gap.to;
    }
    for (const row of rows) {
      if (this.#isClosed) break;
      const payload = messageEvent(cid, row, storeId);
      log.sentSeq = row.seq;
      log.unacked.push({ seq: row.seq, bytes: row.payload.length });
      this.#unackedRows += 1;
      this.#unackedBytes += row.payload.length;
      await writer.write({ eventType: eventTypeOf(row), payload });
    }
  }

  async #flushHints(writer: PushWriter): Promise<void> {
    for (let hint = this.#hints.shift(); hint !== undefined; hint = this.#hints.shift()) {
      await writer.write(hint);
    }
  }
}

/** A notice is pushed under its own type. */
function eventTypeOf({ kind, payload }: InboxRow): number {
  // A row of kind 4 was encoded by this node's store, and its types are numbered as the events.
  return kind === RowKind.Notice ? fromBinary(NoticeSchema, payload).type : PushEvent.Message;
}

function messageEvent(cid: Uint8Array, row: InboxRow, storeId: Uint8Array): Uint8Array {
  return toBinary(
    MessageEventSchema,
    create(MessageEventSchema, {
      log: { cid },
      storeId,
      row: { ...row, seq: BigInt(row.seq), receivedMs: BigInt(row.receivedMs) },
    }),
  );
}

/** All subscriptions of a node, one per device. */
export class PushHub {
  readonly #store: NodeStore;
  readonly #parts: PushParts;
  readonly #byRid = new Map<string, Subscription>();
  readonly #byLog = new Map<string, Set<Subscription>>();
  readonly #running = new Set<Promise<void>>();

  constructor(parts: PushParts) {
    this.#store = parts.store;
    this.#parts = parts;
  }

  /** Starts pushing; the device's older subscription is told and ended. */
  subscribe(subscriber: Subscriber): void {
    const key = hex(subscriber.rid);
    const older = this.#byRid.get(key);
    if (older !== undefined) {
      older.hint(
        PushEvent.Superseded,
        toBinary(SupersededEventSchema, create(SupersededEventSchema)),
      );
      older.close();
    }
    const subscription = new Subscription(subscriber, this.#parts);
    this.#byRid.set(key, subscription);
    const { keys } = subscription;
    for (const log of keys) {
      this.#byLog.set(log, (this.#byLog.get(log) ?? new Set()).add(subscription));
    }
    const running = subscription.run().finally(() => {
      this.#running.delete(running);
      for (const log of keys) {
        const subscribed = this.#byLog.get(log);
        subscribed?.delete(subscription);
        if (subscribed?.size === 0) this.#byLog.delete(log);
      }
      if (this.#byRid.get(key) === subscription) this.#byRid.delete(key);
    });
    this.#running.add(running);
  }

  /** The log with this key (log-reader.ts) got rows. */
  rowsAdded(log: string): void {
    for (const subscription of this.#byLog.get(log) ?? []) subscription.rowsAdded(log);
  }

  acked(rid: Uint8Array, cid: Uint8Array, upTo: number): void {
    this.#byRid.get(hex(rid))?.acked(cid, upTo);
  }

  keyPackagesLow(rid: Uint8Array, suite: number, singleUse: number): void {
    const event = create(KeyPackagesLowEventSchema, { suite, singleUse });
    this.hint(rid, PushEvent.KeyPackagesLow, toBinary(KeyPackagesLowEventSchema, event));
  }

  /** Somebody types; lost where nobody listens. */
  typing(rid: Uint8Array, payload: Uint8Array): void {
    // Peers name many devices at once; most listen elsewhere or not at all.
    if (!this.#byRid.has(hex(rid))) return;
    const event = create(TypingEventSchema, { payload });
    this.hint(rid, PushEvent.Typing, toBinary(TypingEventSchema, event));
  }

  /** Something that the device would find out later by itself; lost where it does not listen. */
  hint(rid: Uint8Array, eventType: number, payload: Uint8Array): void {
    this.#byRid.get(hex(rid))?.ephemeral(eventType, payload);
  }

  /** There is evidence against a log: a hint to everybody who listens. */
  keyLogEvidence(origin: string): void {
    const event = create(KtEvidenceEventSchema, { origin });
    const payload = toBinary(KtEvidenceEventSchema, event);
    for (const subscription of this.#byRid.values()) {
      subscription.ephemeral(PushEvent.KeyLogEvidence, payload);
    }
  }

  /** The device logged out or left: its stream ends now, not at the next row. */
  end(rid: Uint8Array): void {
    this.#byRid.get(hex(rid))?.close();
  }

  /** The store has a new id: every device has to begin anew. */
  storeChanged(): void {
    const { storeId } = this.#store;
    const event = create(StoreChangedEventSchema, { storeId });
    const payload = toBinary(StoreChangedEventSchema, event);
    for (const subscription of this.#byRid.values()) {
      subscription.hint(PushEvent.StoreChanged, payload);
      subscription.close();
    }
  }

  /** Tells every subscriber that the node stops, and ends their streams. */
  async drain(): Promise<void> {
    const payload = toBinary(ServerDrainingEventSchema, create(ServerDrainingEventSchema));
    for (const subscription of this.#byRid.values()) {
      subscription.hint(PushEvent.ServerDraining, payload);
      subscription.close();
    }
    await Promise.allSettled(this.#running);
  }
}
