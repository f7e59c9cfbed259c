/** What an operator sees of the peers: one read beside whoever writes the database now, or nobody. */
import { needDatabase, openForReading } from './database.ts';

export interface PeerView {
  readonly domain: string;
  readonly isFound: boolean;
  /** As the node wrote it down last: idle, connecting, active, backoff, suspended. */
  readonly linkState: string;
  readonly lastError: string;
  /** Items that the peer takes at once, as it said last. */
  readonly creditItems: number;
  /** Unix ms; 0: never. */
  readonly seenMs: number;
  readonly awaySinceMs: number;
  readonly rows: number;
  readonly bytes: number;
  /** When the oldest row that waits came (Unix ms); 0: none waits. */
  readonly oldestMs: number;
  readonly deadRows: number;
  /** Encoded SignedNodeRecord. */
  readonly record: Uint8Array | undefined;
  /** Since when the domain's site shows unknown keys (Unix ms); 0: it does not. */
  readonly candidateSinceMs: number;
}

/** Peers by domain. Throws StoreOpenError. */
export function readPeerRows(path: string, key: Uint8Array): readonly PeerView[] {
  needDatabase(path);
  const db = openForReading(path, key);
  try {
    const rows = db
      .prepare<[], Omit<PeerView, 'isFound' | 'record'> & { isFound: number; record: unknown }>(
        `SELECT domain, is_found AS isFound, link_state AS linkState, last_error AS lastError,
                credit_items AS creditItems, seen_ms AS seenMs, failing_since_ms AS awaySinceMs,
                row_count AS rows, byte_count AS bytes, dead_rows AS deadRows, record,
                CASE WHEN candidate IS NULL THEN 0 ELSE candidate_since_ms END AS candidateSinceMs,
                coalesce((SELECT min(created_ms) FROM outbox WHERE outbox.peer = peer.id), 0)
                  AS oldestMs
           FROM peer ORDER BY domain`,
      )
      .all();
    return rows.map((row) => ({
      ...row,
      isFound: row.isFound === 1,
      record: row.record instanceof Uint8Array ? new Uint8Array(row.record) : undefined,
    }));
  } finally {
    db.close();
  }
}
