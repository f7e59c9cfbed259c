/** The other end of a log: rows that nobody needs any more leave, oldest first; their tags stay. */
import type { SqlDatabase } from '../sqlite.ts';

export interface LogTrim {
  /**
   * Removes the rows with seq <= upTo and notes it as `acked`; upTo is beyond the old one. Returns how
   * many there were.
   */
  trim(nowMs: number, log: number, upTo: number): number;
}

export function logTrimQueries(db: SqlDatabase): LogTrim {
  const bury = db.prepare<[number, number, number]>(
    `INSERT INTO tomb (log, tag, received_ms, gone_ms)
     SELECT log, tag, received_ms, ? FROM entry WHERE log = ? AND seq <= ? ORDER BY seq`,
  );
  // A log has at most one entry for a payload, so each set below holds an id once.
  const dropPayloads = db.prepare<[number, number]>(
    `DELETE FROM payload WHERE refs = 1 AND id IN
       (SELECT payload FROM entry WHERE log = ? AND seq <= ?)`,
  );
  const releasePayloads = db.prepare<[number, number]>(
    `UPDATE payload SET refs = refs - 1 WHERE id IN
       (SELECT payload FROM entry WHERE log = ? AND seq <= ?)`,
  );
  const totals = db.prepare<
    [number, number],
    { readonly row_count: number; readonly byte_count: number }
  >(
    `SELECT count(*) AS row_count, coalesce(sum(size), 0) AS byte_count FROM entry
      WHERE log = ? AND seq <= ?`,
  );
  const remove = db.prepare<[number, number]>('DELETE FROM entry WHERE log = ? AND seq <= ?');
  const advance = db.prepare<[number, number, number, number]>(
    `UPDATE log SET acked = ?, row_count = row_count - ?, byte_count = byte_count - ?
      WHERE id = ?`,
  );

  return {
    trim(nowMs, log, upTo) {
      const gone = totals.get(log, upTo);
      // Payloads first: on a full disk their pages are the room for the tombstones.
      dropPayloads.run(log, upTo);
      releasePayloads.run(log, upTo);
      bury.run(nowMs, log, upTo);
      remove.run(log, upTo);
      const rows = gone?.row_count ?? 0;
      advance.run(upTo, rows, gone?.byte_count ?? 0, log);
      return rows;
    },
  };
}
