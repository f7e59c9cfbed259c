/** Table `card` of the device store: contact cards of people, one of each. */
import type { Database } from './database.ts';

export interface StoredCard {
  readonly userId: string;
  /** Encoded SignedContactCard. */
  readonly bytes: Uint8Array;
  readonly importedMs: number;
  /** When the log of the person's home was asked after it; undefined: not yet. */
  readonly checkedMs: number | undefined;
}

export interface CardRows {
  get(userId: string): StoredCard | undefined;
  /** All of them, oldest first. */
  all(): readonly StoredCard[];
  /** User ids of those that came after a time (ms), without reading them. */
  holders(sinceMs: number): readonly string[];
  /** Takes the place of an older one. */
  put(userId: string, bytes: Uint8Array, nowMs: number): void;
  markChecked(userId: string, nowMs: number): void;
}

/** Cards that are kept; beyond, the oldest go. */
const cardsMax = 1_024;

export function cardRows(db: Database): CardRows {
  const cardOf = (row: ReturnType<Database['get']> & object): StoredCard => ({
    userId: row.text('user_id'),
    bytes: row.bytes('card'),
    importedMs: row.number('imported_ms'),
    checkedMs: row.maybeNumber('checked_ms'),
  });
  return {
    get(userId) {
      const row = db.get('SELECT * FROM card WHERE user_id = ?', userId);
      return row === undefined ? undefined : cardOf(row);
    },
    all: () => db.all('SELECT * FROM card ORDER BY imported_ms, user_id').map(cardOf),
    holders: (sinceMs) =>
      db
        .all('SELECT user_id FROM card WHERE imported_ms > ? ORDER BY user_id', sinceMs)
        .map((row) => row.text('user_id')),
    put(userId, bytes, nowMs) {
      db.run('INSERT OR REPLACE INTO card VALUES (?, ?, ?, NULL)', userId, bytes, nowMs);
      db.run(
        `DELETE FROM card WHERE user_id IN
           (SELECT user_id FROM card ORDER BY imported_ms DESC, user_id LIMIT -1 OFFSET ?)`,
        cardsMax,
      );
    },
    markChecked(userId, nowMs) {
      db.run('UPDATE card SET checked_ms = ? WHERE user_id = ?', nowMs, userId);
    },
  };
}
