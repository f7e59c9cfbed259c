/**
 * Tables `own_token`, `device_token` and `blocked_user` of the device store, and which own token the
 * members of a conversation have (table `conversation`).
 */
import type { Database } from './database.ts';

export const tokenBounds = {
  /** For so long nobody can replace a token of a third device by another one that is passed on (ms). */
  passedKeptMs: 30 * 24 * 3_600_000,
} as const;

export interface OwnToken {
  readonly id: number;
  /** 16 bytes. */
  readonly token: Uint8Array;
  /** The own node has it: only then it is handed out. */
  readonly isTold: boolean;
}

export interface TokenRows {
  /** The newest own token, the one in force. */
  own(): OwnToken | undefined;
  /** Replaces the own token. */
  putOwn(token: Uint8Array, nowMs: number): void;
  /** The own node has the own token with this id. */
  markAtNode(id: number): void;
  /** Of another device (32 bytes); also one that was refused: it is worth no less than none. */
  of(rid: Uint8Array): Uint8Array | undefined;
  /** One is known that was not refused. */
  hasGood(rid: Uint8Array): boolean;
  /** That of a device, if it was not refused, and others may have it. */
  toPass(rid: Uint8Array): Uint8Array | undefined;
  /** A device handed out its own token: nothing stands above that. */
  put(rid: Uint8Array, token: Uint8Array, mayPass: boolean, nowMs: number): void;
  /** Somebody passed a token on: it takes the place of nothing, or of one that somebody passed on and that is old or was refused. */
  putPassed(rid: Uint8Array, token: Uint8Array, nowMs: number): void;
  /** Conversations whose members do not have the own token with this id. */
  untold(id: number): readonly Uint8Array[];
  /** The same id that `markTold` was given; a negative one: told to some, until somebody is unblocked. */
  isTold(conversationId: Uint8Array, id: number): boolean;
  markTold(conversationId: Uint8Array, id: number): void;
  /** User ids, sorted. */
  blocked(): readonly string[];
  isBlocked(userId: string): boolean;
  block(userId: string, nowMs: number): void;
  unblock(userId: string): void;
}

export function tokenRows(db: Database): TokenRows {
  return {
    own() {
      const row = db.get('SELECT * FROM own_token ORDER BY id DESC LIMIT 1');
      if (row === undefined) return undefined;
      const isTold = row.number('told_to_node') === 1;
      return { id: row.number('id'), token: row.bytes('token'), isTold };
    },
    putOwn(token, nowMs) {
      db.transaction(() => {
        db.run('DELETE FROM own_token');
        db.insert(
          'INSERT INTO own_token (token, made_ms, told_to_node) VALUES (?, ?, 0)',
          token,
          nowMs,
        );
      });
    },
    markAtNode(id) {
      db.run('UPDATE own_token SET told_to_node = 1 WHERE id = ?', id);
    },
    of: (rid) => db.get('SELECT token FROM device_token WHERE rid = ?', rid)?.bytes('token'),
    hasGood: (rid) =>
      db.get('SELECT 1 FROM device_token WHERE rid = ? AND refused = 0', rid) !== undefined,
    toPass: (rid) =>
      db
        .get('SELECT token FROM device_token WHERE rid = ? AND may_pass = 1 AND refused = 0', rid)
        ?.bytes('token'),
    put(rid, token, mayPass, nowMs) {
      db.run(
        `INSERT INTO device_token (rid, token, is_own, at_ms, may_pass) VALUES (?, ?, 1, ?, ?)
         ON CONFLICT (rid) DO UPDATE SET token = excluded.token, is_own = 1,
           at_ms = excluded.at_ms, may_pass = excluded.may_pass, refused = 0`,
        rid,
        token,
        nowMs,
        mayPass ? 1 : 0,
      );
    },
    putPassed(rid, token, nowMs) {
      db.run(
        `INSERT INTO device_token (rid, token, is_own, at_ms) VALUES (?, ?, 0, ?)
         ON CONFLICT (rid) DO UPDATE SET token = excluded.token, at_ms = excluded.at_ms,
           refused = 0
         WHERE is_own = 0 AND (device_token.at_ms < ?
           OR refused = 1 AND device_token.token <> excluded.token)`,
        rid,
        token,
        nowMs,
        nowMs - tokenBounds.passedKeptMs,
      );
    },
    untold: (id) =>
      db
        .all('SELECT id FROM conversation WHERE told_token <> ? ORDER BY joined_ms, id', id)
        .map((row) => row.bytes('id')),
    isTold: (conversationId, id) =>
      db.get('SELECT 1 FROM conversation WHERE id = ? AND told_token = ?', conversationId, id) !==
      undefined,
    markTold(conversationId, id) {
      db.run('UPDATE conversation SET told_token = ? WHERE id = ?', id, conversationId);
    },
    blocked: () =>
      db.all('SELECT user_id FROM blocked_user ORDER BY user_id').map((row) => row.text('user_id')),
    isBlocked: (userId) =>
      db.get('SELECT 1 FROM blocked_user WHERE user_id = ?', userId) !== undefined,
    block(userId, nowMs) {
      db.run(
        'INSERT INTO blocked_user (user_id, at_ms) VALUES (?, ?) ON CONFLICT DO NOTHING',
        userId,
        nowMs,
      );
    },
    unblock(userId) {
      db.transaction(() => {
        db.run('DELETE FROM blocked_user WHERE user_id = ?', userId);
        db.run('UPDATE conversation SET told_token = 0 WHERE told_token < 0');
      });
    },
  };
}
