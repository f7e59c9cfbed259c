/** Table `mls_skipped` of the device store: since when message keys wait for their message. */
import type { Database } from './database.ts';

export interface SkippedRow {
  readonly epoch: number;
  readonly leafIndex: number;
  readonly generation: number;
  readonly seenMs: number;
}

export interface SkippedRows {
  of(groupId: Uint8Array): readonly SkippedRow[];
  /** In place of what was known of the group. */
  replace(groupId: Uint8Array, rows: readonly SkippedRow[]): void;
}

export function skippedRows(db: Database): SkippedRows {
  return {
    of: (groupId) =>
      db.all('SELECT * FROM mls_skipped WHERE group_id = ?', groupId).map((row) => ({
        epoch: row.number('epoch'),
        leafIndex: row.number('leaf'),
        generation: row.number('generation'),
        seenMs: row.number('seen_ms'),
      })),
    replace(groupId, rows) {
      db.run('DELETE FROM mls_skipped WHERE group_id = ?', groupId);
      for (const { epoch, leafIndex, generation, seenMs } of rows) {
        db.run(
          'INSERT INTO mls_skipped VALUES (?, ?, ?, ?, ?)',
          groupId,
          epoch,
          leafIndex,
          generation,
          seenMs,
        );
      }
    },
  };
}
