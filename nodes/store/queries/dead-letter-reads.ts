/** What is read of outboxes and dead letters: by the node's store, and by an operator beside it. */
import type { SqlDatabase } from '../sqlite.ts';
import type { DeadLetter, OutboxPeer } from '../outbox-control.ts';

export interface DeadLetterReads {
  outboxPeers(): readonly OutboxPeer[];
  /** Of all peers, numbers above `after`, in order. */
  deadLetters(after: number, max: number): readonly DeadLetter[];
}

export function deadLetterReads(db: SqlDatabase): DeadLetterReads {
  const totals = db.prepare<[], OutboxPeer>(
    `SELECT domain, failing_since_ms AS awaySinceMs, row_count AS rows, byte_count AS bytes,
            dead_rows AS deadRows, dead_bytes AS deadBytes
       FROM peer ORDER BY domain`,
  );
  const page = db.prepare<[number, number], DeadLetter>(
    `SELECT dead_letter.id, peer.domain AS peer, rid, mid, kind, size AS bytes, reason,
            created_ms AS createdMs, dead_ms AS deadMs, expires_ms AS expiresMs
       FROM dead_letter JOIN peer ON peer.id = dead_letter.peer
      WHERE dead_letter.id > ? ORDER BY dead_letter.id LIMIT (? + 0)`,
  );
  return {
    outboxPeers: () => totals.all(),
    deadLetters: (after, max) => page.all(after, max),
  };
}
