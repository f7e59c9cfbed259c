/**
 * How many rows may wait for what they need to be opened (docs/protocol/delivery.md). Anybody can send what waits
 * for a group, a person or a hub that this device has never heard of, and what is under a key that nobody has: such
 * rows have a share each, so that however many come, those of the own groups find room.
 */
import type { InboxRows, ParkedRow, ParkReason } from '../store/inbox-rows.ts';

const mib = 1024 * 1024;

export const parkedLimits = {
  /** All rows and their payload bytes; what goes beyond is recorded as undecryptable. */
  rows: 4096,
  bytes: 64 * mib,
  /** Of these at most so many that wait for a group, people or hubs unknown here. */
  strangerRows: 1024,
  strangerBytes: 16 * mib,
  /** The same for those under an unknown key: of the own groups as well, until their log was read. */
  keylessRows: 2048,
  keylessBytes: 32 * mib,
  /** When their share is full, those that waited this long (ms) for a key give way. */
  keylessMs: 24 * 3600 * 1000,
} as const;

interface Share {
  readonly reasons: readonly ParkReason[];
  readonly rows: number;
  readonly bytes: number;
}

const { strangerRows, strangerBytes, keylessRows, keylessBytes } = parkedLimits;
const strangers: Share = {
  reasons: ['UNKNOWN_GROUP', 'UNKNOWN_USER', 'UNKNOWN_HUB'],
  rows: strangerRows,
  bytes: strangerBytes,
};
const keyless: Share = { reasons: ['UNKNOWN_KEY'], rows: keylessRows, bytes: keylessBytes };

/** Undefined: the row names an epoch of a group that this device is in. */
function shareOf(reason: ParkReason): Share | undefined {
  return [strangers, keyless].find(({ reasons }) => reasons.includes(reason));
}

/** Whether one more row of `length` payload bytes may wait for this. */
export function hasParkingRoom(
  inbox: Pick<InboxRows, 'parkedSize' | 'parkedFor'>,
  reason: ParkReason,
  length: number,
): boolean {
  const fits = (
    size: { readonly rows: number; readonly bytes: number },
    most: Pick<Share, 'rows' | 'bytes'>,
  ): boolean => size.rows < most.rows && size.bytes + length <= most.bytes;
  const share = shareOf(reason);
  return (
    fits(inbox.parkedSize('all'), parkedLimits) &&
    (share === undefined || fits(inbox.parkedFor(share.reasons), share))
  );
}

/**
 * The same, after what waits under an unknown key for more than a day made room for another such row: most likely
 * nothing brings its key any more, and logs bring those of rows that came just now. Part of a transaction; what gave
 * way, to be recorded.
 */
export function makeParkingRoom(
  inbox: Pick<InboxRows, 'parkedSize' | 'parkedFor' | 'oldestParked' | 'unpark'>,
  reason: ParkReason,
  length: number,
  nowMs: number,
): { readonly isRoom: boolean; readonly gaveWay: readonly ParkedRow[] } {
  const gaveWay: ParkedRow[] = [];
  while (!hasParkingRoom(inbox, reason, length)) {
    const oldest = reason === 'UNKNOWN_KEY' ? inbox.oldestParked(reason) : undefined;
    if (oldest === undefined || nowMs - oldest.parkedMs <= parkedLimits.keylessMs) {
      return { isRoom: false, gaveWay };
    }
    inbox.unpark(oldest.id);
    gaveWay.push(oldest);
  }
  return { isRoom: true, gaveWay };
}
