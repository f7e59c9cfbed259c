/**
 * Room in the outbox of a peer that is away, for everybody (docs: protocol/federation): one device holds at most as much
 * of it as is still free. So however many rows one has waiting there, the next one finds room.
 */
import type { QueryContext } from '../operations.ts';

export interface Room {
  readonly rows: number;
  readonly bytes: number;
}

export interface OutboxShares {
  /** Whether one more row of `size` payload bytes is more than this device's share. `sender`: its log. */
  isBeyond(peer: number, sender: number, free: Room, size: number): boolean;
}

export function outboxShares({ db }: Pick<QueryContext, 'db'>): OutboxShares {
  const held = db.prepare<[number, number], Room>(
    'SELECT row_count AS rows, byte_count AS bytes FROM outbox_share WHERE peer = ? AND sender = ?',
  );
  return {
    isBeyond(peer, sender, free, size) {
      const { rows, bytes } = held.get(peer, sender) ?? { rows: 0, bytes: 0 };
      return rows > 0 && (rows >= free.rows || bytes + size > free.bytes);
    },
  };
}
