/** Tables `log_span` and `closed_key` of the device store: epochs that this device was not in and gets no keys of. */
import type { Database } from './database.ts';

/** A part of a group's log that this device passed by when it came in. */
export interface LogSpan {
  readonly groupId: Uint8Array;
  /** Hash of the entry before it; empty: from the log's beginning. */
  readonly after: Uint8Array;
  /** Hash of the entry that this device came in by. */
  readonly entry: Uint8Array;
  readonly atMs: number;
}

export interface ClosedRows {
  /** What was not read yet, the newest first. */
  spans(): readonly LogSpan[];
  /** What is kept of the same group already is a part of it from then on. */
  addSpan(span: LogSpan): void;
  /** It was read; nothing, if it became another one meanwhile. */
  dropSpan(span: LogSpan): void;
  addKeys(keyIds: readonly Uint8Array[]): void;
  /** Nothing brings a key of this id any more. Of so many known as `closedBounds` says. */
  isClosedKey(keyId: Uint8Array): boolean;
  /** Forgets spans that are too old. */
  expire(nowMs: number): void;
}

export const closedBounds = {
  /** Ids of keys; beyond, the oldest are forgotten. */
  keys: 8192,
  /** What is sealed in an epoch comes no later than this after its end (ms): no node keeps it longer. */
  spanMs: 31 * 24 * 3600 * 1000,
} as const;

export function closedRows(db: Database): ClosedRows {
  return {
    spans: () =>
      db.all('SELECT * FROM log_span ORDER BY at_ms DESC, group_id').map((row) => ({
        groupId: row.bytes('group_id'),
        after: row.bytes('after'),
        entry: row.bytes('entry'),
        atMs: row.number('at_ms'),
      })),
    addSpan({ groupId, after, entry, atMs }) {
      db.run(
        `INSERT INTO log_span (group_id, after, entry, at_ms) VALUES (?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET entry = excluded.entry, at_ms = excluded.at_ms`,
        groupId,
        after,
        entry,
        atMs,
      );
    },
    dropSpan({ groupId, entry }) {
      db.run('DELETE FROM log_span WHERE group_id = ? AND entry = ?', groupId, entry);
    },
    addKeys(keyIds) {
      for (const keyId of keyIds) {
        db.run('INSERT INTO closed_key (key_id) VALUES (?) ON CONFLICT DO NOTHING', keyId);
      }
      db.run(
        'DELETE FROM closed_key WHERE id <= (SELECT max(id) FROM closed_key) - ?',
        closedBounds.keys,
      );
    },
    isClosedKey: (keyId) =>
      db.get('SELECT 1 FROM closed_key WHERE key_id = ?', keyId) !== undefined,
    expire(nowMs) {
      db.run('DELETE FROM log_span WHERE at_ms < ?', nowMs - closedBounds.spanMs);
    },
  };
}
