/**
 * What waits in this device's inbox at its node, without taking it: for badges and push extensions
 * (Peek). Works beside a running client, and asks over a connection of its own.
 */
import { hasReason, maxPeekRows, methods, sameBytes } from '@quicprochat/proto';
import type { Caller } from '../dial.ts';
import { inboxLog } from '../store/inbox-rows.ts';
import type { ClientStore } from '../store/store.ts';

/** The rows that the node still holds for this device. */
export interface Waiting {
  /** At most 1 000 are counted. */
  readonly rows: number;
  /** There are more than were counted. */
  readonly hasMore: boolean;
  /** Bytes of their payloads. */
  readonly bytes: number;
  /** How long the oldest has been there (ms); 0 when nothing waits. */
  readonly oldestMs: number;
}

/** Asks the node. Throws TransportError and the node's own errors. */
export async function waitingRows(
  store: ClientStore,
  caller: Caller,
  signal?: AbortSignal,
): Promise<Waiting> {
  const options = signal === undefined ? {} : { signal };
  const cursor = store.inbox.cursor(inboxLog);
  const peek = (after: number) =>
    caller.call(methods.peek, { log: {}, after: BigInt(after), maxRows: maxPeekRows }, options);
  let peeked = await peek(cursor?.seq ?? 0).catch((error: unknown) => {
    // The cursor is of a store that the node no longer has.
    if (hasReason(error, 'BAD_CURSOR')) return undefined;
    throw error;
  });
  const isOurs = cursor === undefined || (peeked && sameBytes(cursor.storeId, peeked.storeId));
  if (peeked === undefined || isOurs !== true) peeked = await peek(0);
  const { rows, head } = peeked;
  const last = rows.at(-1);
  return {
    rows: rows.length,
    hasMore: last !== undefined && last.seq < head,
    bytes: rows.reduce((sum, { size }) => sum + size, 0),
    oldestMs: Number(rows[0]?.ageMs ?? 0n),
  };
}
