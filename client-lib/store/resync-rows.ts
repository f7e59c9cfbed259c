/**
 * Tables `group_join_key`, `lacked_join_key` and `group_resync` of the device store: what opens the state of a group at its
 * hubs, and groups in which this device lost its place.
 */
import type { Database, Row } from './database.ts';

/** BEHIND: others went on behind a commit that cannot be applied here; GAP: the hub keeps none so old;
 * STALE: this store is an older copy of itself. */
export type LossCause = 'BEHIND' | 'GAP' | 'STALE';

/** The own external commit: always this request, and the group after it. */
export interface SentReturn {
  /** Encoded SubmitCommitRequest. */
  readonly request: Uint8Array;
  readonly cold: Uint8Array;
  readonly hot: Uint8Array;
}

export interface ResyncRow {
  readonly groupId: Uint8Array;
  readonly cause: LossCause;
  /** WANTED, SENT while there is `sent`; DONE stays, for the time before which there is no other one. */
  readonly isDone: boolean;
  readonly sent: SentReturn | undefined;
  /** Why the last try came to nothing. */
  readonly reason: string | undefined;
  readonly tries: number;
  /** Not tried before. */
  readonly dueMs: number;
}

export interface ResyncRows {
  joinKey(groupId: Uint8Array): Uint8Array | undefined;
  /** Undefined: none is known. */
  putJoinKey(groupId: Uint8Array, key: Uint8Array | undefined): void;
  /** Id (8 bytes) of the join key that this device lacks to come back; undefined: none that it knows of. */
  lackedKey(groupId: Uint8Array): Uint8Array | undefined;
  putLackedKey(groupId: Uint8Array, keyId: Uint8Array): void;
  /** The group's row, DONE or not. */
  get(groupId: Uint8Array): ResyncRow | undefined;
  /** Not DONE, by the time they are due. */
  open(): readonly ResyncRow[];
  /** False when it is wanted already; a group whose last one is DONE waits for its time. */
  want(groupId: Uint8Array, cause: LossCause, dueMs: number): boolean;
  put(row: ResyncRow): void;
  /** The device has its place again, by whatever other way; not while a commit for it may be on its way. */
  dropWanted(groupId: Uint8Array): void;
  drop(groupId: Uint8Array): void;
}

function rowOf(row: Row): ResyncRow {
  return {
    groupId: row.bytes('group_id'),
    cause: row.text('cause') as LossCause,
    isDone: row.text('state') === 'DONE',
    sent: row.isNull('request')
      ? undefined
      : { request: row.bytes('request'), cold: row.bytes('cold'), hot: row.bytes('hot') },
    reason: row.isNull('reason') ? undefined : row.text('reason'),
    tries: row.number('tries'),
    dueMs: row.number('due_ms'),
  };
}

export function resyncRows(db: Database): ResyncRows {
  const get = (groupId: Uint8Array): ResyncRow | undefined => {
    const row = db.get('SELECT * FROM group_resync WHERE group_id = ?', groupId);
    return row === undefined ? undefined : rowOf(row);
  };
  const put = ({ groupId, cause, isDone, sent, reason, tries, dueMs }: ResyncRow): void => {
    db.run(
      `INSERT OR REPLACE INTO group_resync
         (group_id, cause, state, reason, tries, due_ms, request, cold, hot)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      groupId,
      cause,
      sent === undefined ? (isDone ? 'DONE' : 'WANTED') : 'SENT',
      reason ?? null,
      tries,
      dueMs,
      sent?.request ?? null,
      sent?.cold ?? null,
      sent?.hot ?? null,
    );
  };
  return {
    joinKey: (groupId) =>
      db.get('SELECT key FROM group_join_key WHERE group_id = ?', groupId)?.bytes('key'),
    putJoinKey(groupId, key) {
      // Another key was lacked, or is lacked no more.
      db.run('DELETE FROM lacked_join_key WHERE group_id = ?', groupId);
      if (key === undefined) db.run('DELETE FROM group_join_key WHERE group_id = ?', groupId);
      else db.run('INSERT OR REPLACE INTO group_join_key VALUES (?, ?)', groupId, key);
    },
    lackedKey: (groupId) =>
      db.get('SELECT key_id FROM lacked_join_key WHERE group_id = ?', groupId)?.bytes('key_id'),
    putLackedKey(groupId, keyId) {
      db.run('INSERT OR REPLACE INTO lacked_join_key VALUES (?, ?)', groupId, keyId);
    },
    get,
    open: () =>
      db.all(`SELECT * FROM group_resync WHERE state <> 'DONE' ORDER BY due_ms`).map(rowOf),
    want(groupId, cause, dueMs) {
      const before = get(groupId);
      if (before !== undefined && !before.isDone) {
        // Whatever else it lost its place by: only a new leaf, or a log that was read, frees a restored store. And a leaf
        // that was on its way may have been the lost copy's.
        if (cause === 'STALE') put({ ...before, cause, tries: 0, sent: undefined });
        return false;
      }
      const notBefore = Math.max(dueMs, before?.dueMs ?? 0);
      const row = { groupId, cause, isDone: false, sent: undefined, reason: undefined };
      put({ ...row, tries: 0, dueMs: notBefore });
      return true;
    },
    put,
    dropWanted(groupId) {
      db.run(`DELETE FROM group_resync WHERE group_id = ? AND state = 'WANTED'`, groupId);
    },
    drop(groupId) {
      db.run('DELETE FROM group_resync WHERE group_id = ?', groupId);
    },
  };
}
