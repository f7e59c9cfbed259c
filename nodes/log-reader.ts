/** The logs that one device may read, by one set of calls: its inbox, and channels that it subscribes to. */
import type { LogPosition } from './store/channel-store.ts';
import type { Fetched, Peeked } from './store/message-store.ts';
import type { NodeStore } from './store/store.ts';

/** Its methods throw what the store throws for the inbox or for the channel. */
export class LogReader {
  readonly #store: NodeStore;

  constructor(store: NodeStore) {
    this.#store = store;
  }

  fetch(
    rid: Uint8Array,
    position: LogPosition,
    maxRows: number,
    maxBytes: number,
  ): Promise<Fetched> {
    return isInbox(position)
      ? this.#store.fetch(rid, position.after, maxRows, maxBytes)
      : this.#store.fetchChannel(rid, position, maxRows, maxBytes);
  }

  peek(rid: Uint8Array, position: LogPosition, maxRows: number): Promise<Peeked> {
    return isInbox(position)
      ? this.#store.peek(rid, position.after, maxRows)
      : this.#store.peekChannel(rid, position, maxRows);
  }

  ack(rid: Uint8Array, cid: Uint8Array, upTo: number): Promise<void> {
    return cid.length === 0 ? this.#store.ack(rid, upTo) : this.#store.ackChannel(rid, cid, upTo);
  }
}

function isInbox({ cid }: LogPosition): boolean {
  return cid.length === 0;
}

/** By which the store tells of new rows (hex): the device key of an inbox, or the cid. */
export function wakeKey(rid: Uint8Array, cid: Uint8Array): string {
  return Buffer.from(cid.length === 0 ? rid : cid).toString('hex');
}
