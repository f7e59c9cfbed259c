/**
 * Push: one subscription per device reads its inbox from disk and writes message events under a
 * window of unacked rows, so that nothing is buffered for a slow or silent client.
 */
import { CloseCode, type Connection, type PushWriter } from '@quicprochat/proto/transport';
import { hasReason, PushEvent, RowKind, type Log } from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GapEventSchema,
  KeyPackagesLowEventSchema,
  MessageEventSchema,
  NoticeSchema,
  ServerDrainingEventSchema,
  StoreChangedEventSchema,
  SupersededEventSchema,
  toBinary,
} from '@quicprochat/proto/messages';
import type { InboxRow, NodeStore } from './store/store.ts';

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
  /** Rows with a greater seq are pushed. */
  readonly after: number;
  readonly connection: Connection;
  /** Whether the connection still is the device's: asked before each read of the store. */
  readonly isEntitled: () => Promise<boolean>;
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

class Subscription {
  readonly connection: Connection;
  readonly #rid: Uint8Array;
  readonly #store: NodeStore;
  readonly #log: Log;
  readonly #isEntitled: () => Promise<boolean>;
  readonly #bell = new Bell();
  readonly #unacked: Sent[] = [];
  #unackedBytes = 0;
  #sentSeq: number;
  #isClosed = false;
  #writer: PushWriter | undefined;
  /** Pushes that are not rows, sent between two rows. */
  readonly #hints: { eventType: number; payload: Uint8Array }[] = [];

  constructor(subscriber: Subscriber, store: NodeStore, log: Log) {
    const { rid, after, connection, isEntitled } = subscriber;
    this.#rid = rid;
    this.#sentSeq = after;
    this.connection = connection;
    this.#isEntitled = isEntitled;
    this.#store = store;
    this.#log = log;
    void connection.closed.then(() => this.close());
  }

  rowsAdded(): void {
    this.#bell.ring();
  }

  acked(upTo: number): void {
    while (this.#unacked[0] !== undefined && this.#unacked[0].seq <= upTo) {
      this.#unackedBytes -= this.#unacked.shift()?.bytes ?? 0;
    }
    this.#bell.ring();
  }

  hint(eventType: number, payload: Uint8Array): void {
    // A hint is dropped first: the client finds out by itself, only later.
    if (this.#hints.length < 32) this.#hints.push({ eventType, payload });
    this.#bell.ring();
  }

  close(): void {
    this.#isClosed = true;
    this.#bell.ring();
  }

  async run(): Promise<void> {
    try {
      this.#writer = await this.connection.openPushStream();
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
    const roomRows = pushWindow.rows - this.#unacked.length;
    const roomBytes = pushWindow.bytes - this.#unackedBytes;
    if (roomRows <= 0 || roomBytes <= 0) return false;
    const fetched = await this.#store.fetch(
      this.#rid,
      this.#sentSeq,
      Math.min(readRows, roomRows),
      roomBytes,
    );
    const { storeId } = this.#store;
    if (fetched.gap !== undefined) {
      const gap = { from: BigInt(fetched.gap.from), to: BigInt(fetched.gap.to) };
      const event = create(GapEventSchema, { log: {}, storeId, gap });
      await writer.write({ eventType: PushEvent.Gap, payload: toBinary(GapEventSchema, event) });
      this.#sentSeq = fetched.gap.to;
    }
    for (const row of fetched.rows) {
      if (this.#isClosed) break;
      const payload = messageEvent(row, storeId);
      this.#sentSeq = row.seq;
      this.#unacked.push({ seq: row.seq, bytes: row.payload.length });
      this.#unackedBytes += row.payload.length;
      await writer.write({ eventType: eventTypeOf(row), payload });
    }
    return fetched.rows.length > 0 || fetched.gap !== undefined;
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

function messageEvent(row: InboxRow, storeId: Uint8Array): Uint8Array {
  return toBinary(
    MessageEventSchema,
    create(MessageEventSchema, {
      log: {},
      storeId,
      row: { ...row, seq: BigInt(row.seq), receivedMs: BigInt(row.receivedMs) },
    }),
  );
}

/** All subscriptions of a node, one per device. */
export class PushHub {
  readonly #store: NodeStore;
  readonly #log: Log;
  readonly #byRid = new Map<string, Subscription>();
  readonly #running = new Set<Promise<void>>();

  constructor(store: NodeStore, log: Log) {
    this.#store = store;
    this.#log = log;
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
    const subscription = new Subscription(subscriber, this.#store, this.#log);
    this.#byRid.set(key, subscription);
    const running = subscription.run().finally(() => {
      this.#running.delete(running);
      if (this.#byRid.get(key) === subscription) this.#byRid.delete(key);
    });
    this.#running.add(running);
  }

  rowsAdded(ridHex: string): void {
    this.#byRid.get(ridHex)?.rowsAdded();
  }

  acked(rid: Uint8Array, upTo: number): void {
    this.#byRid.get(hex(rid))?.acked(upTo);
  }

  keyPackagesLow(rid: Uint8Array, suite: number, singleUse: number): void {
    const event = create(KeyPackagesLowEventSchema, { suite, singleUse });
    this.hint(rid, PushEvent.KeyPackagesLow, toBinary(KeyPackagesLowEventSchema, event));
  }

  /** Something that the device would find out later by itself; lost where it does not listen. */
  hint(rid: Uint8Array, eventType: number, payload: Uint8Array): void {
    this.#byRid.get(hex(rid))?.hint(eventType, payload);
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

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
