/**
 * Tables `kt_log`, `kt_state` and `key_event` of the device store: which logs are believed, what
 * their clients keep, and what happened to keys.
 */
import type { Database } from './database.ts';

/** The log of a domain, by its node's record. */
export interface PinnedLog {
  readonly domain: string;
  /** Encoded SignedNodeRecord. */
  readonly record: Uint8Array;
  readonly pinnedMs: number;
  /** When the record was asked for last, and was believed. */
  readonly askedMs: number;
  /** The log itself showed this record as the value of `@domain`. */
  readonly isInLog: boolean;
}

/** Something about keys that a person should see. */
export interface StoredKeyEvent {
  readonly atMs: number;
  readonly type: string;
  /** A user id, or the domain of a log. */
  readonly subject: string;
  /** What tells two such events of one subject apart, as text. */
  readonly reason: string;
}

export interface LogRows {
  pinned(domain: string): PinnedLog | undefined;
  /** All of them, in the order of their domains. */
  allPinned(): readonly PinnedLog[];
  putPinned(log: PinnedLog): void;
  /** A blob of a log's client; `log` names one log of one domain. */
  state(log: string, key: string): Uint8Array | undefined;
  /** Undefined deletes. */
  putState(log: string, key: string, bytes: Uint8Array | undefined): void;
  /** True the first time: the same type, subject and reason is kept once. */
  addEvent(event: StoredKeyEvent): boolean;
  hasEvent(type: string, subject: string, reason: string): boolean;
  /** Newest first. */
  events(limit: number): readonly StoredKeyEvent[];
}

export function logRows(db: Database): LogRows {
  const pinnedOf = (row: NonNullable<ReturnType<Database['get']>>): PinnedLog => ({
    domain: row.text('domain'),
    record: row.bytes('record'),
    pinnedMs: row.number('pinned_ms'),
    askedMs: row.number('asked_ms'),
    isInLog: row.number('in_log') === 1,
  });
  return {
    pinned(domain) {
      const row = db.get('SELECT * FROM kt_log WHERE domain = ?', domain);
      return row === undefined ? undefined : pinnedOf(row);
    },
    allPinned: () => db.all('SELECT * FROM kt_log ORDER BY domain').map(pinnedOf),
    putPinned(log) {
      db.run(
        'INSERT OR REPLACE INTO kt_log VALUES (?, ?, ?, ?, ?)',
        log.domain,
        log.record,
        log.pinnedMs,
        log.isInLog ? 1 : 0,
        log.askedMs,
      );
    },
    state: (log, key) =>
      db.get('SELECT bytes FROM kt_state WHERE log = ? AND key = ?', log, key)?.bytes('bytes'),
    putState(log, key, bytes) {
      if (bytes === undefined) {
        db.run('DELETE FROM kt_state WHERE log = ? AND key = ?', log, key);
      } else {
        db.run('INSERT OR REPLACE INTO kt_state VALUES (?, ?, ?)', log, key, bytes);
      }
    },
    addEvent: ({ atMs, type, subject, reason }) =>
      db.run(
        `INSERT INTO key_event (at_ms, type, subject, reason) VALUES (?, ?, ?, ?)
         ON CONFLICT DO NOTHING`,
        atMs,
        type,
        subject,
        reason,
      ) > 0,
    hasEvent: (type, subject, reason) =>
      db.get(
        'SELECT 1 FROM key_event WHERE type = ? AND subject = ? AND reason = ?',
        type,
        subject,
        reason,
      ) !== undefined,
    events: (limit) =>
      db
        .all(
          `SELECT * FROM key_event WHERE type NOT IN ('ownChange', 'evidenceSent', 'convictionTold')
         ORDER BY id DESC LIMIT (? + 0)`,
          limit,
        )
        .map((row) => ({
          atMs: row.number('at_ms'),
          type: row.text('type'),
          subject: row.text('subject'),
          reason: row.text('reason'),
        })),
  };
}
