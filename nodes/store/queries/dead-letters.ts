/**
 * Dead letters: rows of an outbox that were given up, kept for the operator (`qpcd outbox`) until
 * they are 30 days old, or rows that can still arrive need their room.
 */
import { storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import { deadLetterReads } from './dead-letter-reads.ts';
import type { StreamQueries } from './outbox-streams.ts';
import type { PayloadQueries } from './payloads.ts';
import type { PeerQueries } from './peers.ts';

/** A row of the outbox, in its stream or deferred. */
export interface HeldRow {
  readonly id: number;
  readonly peer: number;
  readonly lane: number;
  readonly kind: number;
  readonly mid: Uint8Array;
  readonly tag: Uint8Array;
  readonly rids: Uint8Array;
  readonly payload: number;
  readonly size: number;
  readonly created_ms: number;
  readonly expires_ms: number;
  readonly sender: number | null;
  /** As `NewOutboxRow.channel` in outbox.ts; null: the row is for devices. */
  readonly channel: Uint8Array | null;
  /** 16 bytes for each of `rids`, or null. */
  readonly tokens: Uint8Array | null;
  /** As `NewOutboxRow.returns` in outbox.ts; null: none. */
  readonly return_to: string | null;
  readonly return_slips: Uint8Array | null;
}

interface DeadRow extends Omit<HeldRow, 'rids' | 'tokens' | 'return_to' | 'return_slips'> {
  readonly token: Uint8Array | null;
  readonly rid: Uint8Array;
  readonly reason: string;
  readonly dead_ms: number;
}

export interface DeadLetterQueries extends Pick<
  Operations,
  'outboxPeers' | 'deadLetters' | 'retryDead' | 'dropDead'
> {
  /** Keeps what was for one device of a row; it holds the payload on its own. */
  add(
    nowMs: number,
    row: HeldRow,
    device: { readonly rid: Uint8Array; readonly token: Uint8Array | undefined },
    reason: string,
  ): void;
  /** Drops the oldest ones of a peer until a row of `size` bytes has room beside them. */
  makeRoom(domain: string, size: number): void;
  prune(nowMs: number): void;
}

const columns = `id, peer, lane, kind, mid, tag, rid, payload, size, reason, created_ms, dead_ms,
  expires_ms, sender, channel, token`;

export function deadLetterQueries(
  { db, limits }: QueryContext,
  payloads: PayloadQueries,
  peers: PeerQueries,
  streams: StreamQueries,
): DeadLetterQueries {
  const insert = db.prepare<[Readonly<Record<string, number | string | Uint8Array | null>>]>(
    `INSERT INTO dead_letter (peer, lane, kind, mid, tag, rid, payload, size, reason, created_ms,
                              dead_ms, expires_ms, sender, channel, token)
     VALUES (:peer, :lane, :kind, :mid, :tag, :rid, :payload, :size, :reason, :createdMs,
             :deadMs, :expiresMs, :sender, :channel, :token)`,
  );
  const remove = db.prepare<[number]>('DELETE FROM dead_letter WHERE id = ?');
  const byId = db.prepare<[number], DeadRow>(`SELECT ${columns} FROM dead_letter WHERE id = ?`);
  const oldestOfPeer = db.prepare<[number], DeadRow>(
    `SELECT ${columns} FROM dead_letter WHERE peer = ? ORDER BY id LIMIT 1`,
  );
  const oldest = db.prepare<[number, number], DeadRow>(
    `SELECT * FROM (SELECT ${columns} FROM dead_letter ORDER BY id LIMIT (? + 0)) WHERE dead_ms <= ?`,
  );
  const queued = db
    .prepare<[number, Uint8Array, Uint8Array], number>(
      'SELECT 1 FROM outbox WHERE peer = ? AND tag = ? AND rids = ?',
    )
    .pluck();
  const insertRow = db.prepare<[Readonly<Record<string, number | Uint8Array | null>>]>(
    `INSERT INTO outbox (peer, lane, seq, kind, mid, tag, rids, payload, size, chain, created_ms,
                         expires_ms, dead_ms, sender, channel, tokens)
     VALUES (:peer, :lane, :seq, :kind, :mid, :tag, :rid, :payload, :size, :chain, :createdMs,
             :expiresMs, :deadMs, :sender, :channel, :token)`,
  );
  const reads = deadLetterReads(db);

  function forget(row: DeadRow): void {
    remove.run(row.id);
    peers.countDead(row.peer, -1, -row.size);
  }

  function drop(row: DeadRow): void {
    forget(row);
    payloads.release(row.payload);
  }

  function retry(nowMs: number, row: DeadRow): void {
    forget(row);
    if (queued.get(row.peer, row.tag, row.rid) !== undefined) {
      // Its sender sent it anew in the meantime.
      payloads.release(row.payload);
      return;
    }
    const { peer, lane, kind, mid, tag, rid, payload, size, sender, channel, token } = row;
    const { created_ms: createdMs, expires_ms: expiresMs } = row;
    const deadMs = Math.min(expiresMs, nowMs + limits.outboxAgeMs);
    const position = streams.append(peer, lane, tag);
    // The dead letter's reference to the payload becomes the row's.
    const values = { peer, lane, kind, mid, tag, rid, payload, size, sender, channel, token };
    insertRow.run({ ...values, ...position, createdMs, expiresMs, deadMs });
    peers.count(peer, 1, size);
  }

  return {
    add(nowMs, row, { rid, token }, reason) {
      payloads.addRef(row.payload);
      const { peer, lane, kind, mid, tag, payload, size, sender, channel } = row;
      insert.run({
        ...{ peer, lane, kind, mid, tag, rid, payload, size, reason, sender, channel },
        token: token !== undefined && token.length > 0 ? token : null,
        createdMs: row.created_ms,
        deadMs: nowMs,
        expiresMs: row.expires_ms,
      });
      peers.countDead(peer, 1, size);
    },

    makeRoom(domain, size) {
      for (;;) {
        const peer = peers.peer(domain);
        if (peer === undefined || peer.dead_rows === 0) return;
        const hasRoom =
          peer.row_count + peer.dead_rows < limits.outboxRowsPerPeer &&
          peer.byte_count + peer.dead_bytes + size <= limits.outboxBytesPerPeer;
        const row = hasRoom ? undefined : oldestOfPeer.get(peer.id);
        if (row === undefined) return;
        drop(row);
      }
    },

    prune(nowMs) {
      const cutoffMs = nowMs - storeBounds.deadLetterMs;
      for (const row of oldest.all(storeBounds.sweepRows, cutoffMs)) drop(row);
    },

    outboxPeers: () => reads.outboxPeers(),

    deadLetters: (_nowMs, after, max) => reads.deadLetters(after, max),

    retryDead(nowMs, ids) {
      let retried = 0;
      let expired = 0;
      for (const id of ids) {
        const row = byId.get(id);
        if (row === undefined) continue;
        if (row.expires_ms <= nowMs) {
          expired += 1;
          continue;
        }
        retry(nowMs, row);
        retried += 1;
      }
      return { retried, expired };
    },

    dropDead(_nowMs, ids) {
      let dropped = 0;
      for (const id of ids) {
        const row = byId.get(id);
        if (row === undefined) continue;
        drop(row);
        dropped += 1;
      }
      return dropped;
    },
  };
}
