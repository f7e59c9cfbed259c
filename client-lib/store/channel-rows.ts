/** Tables `channel` and `channel_roster` of the device store. */
import type { Database, Row } from './database.ts';

export const channelRowBounds = {
  /** How long it is known who could read an own post (ms): as long as the row of the outbox. */
  rosterKeptMs: 45 * 24 * 3600 * 1000,
  /** How long a channel is read that the group has left (ms): rows live 30 days at nodes. */
  leftKeptMs: 31 * 24 * 3600 * 1000,
} as const;

/** A channel that this device reads. */
export interface FollowedChannel {
  readonly cid: Uint8Array;
  readonly groupId: Uint8Array;
  /** The group has another one, or none, since then; undefined: it is the group's. */
  readonly leftMs: number | undefined;
  /** The node had no room to show it: members are asked for the last time when that ends. */
  readonly isCrowded: boolean;
}

export interface ChannelRows {
  /** The group's channel is this one from now on; undefined: none. */
  follow(groupId: Uint8Array, cid: Uint8Array | undefined, nowMs: number): void;
  all(): readonly FollowedChannel[];
  get(cid: Uint8Array): FollowedChannel | undefined;
  setCrowded(cid: Uint8Array, isCrowded: boolean): void;
  /** It is read from the start; its rows are known. */
  startOver(cid: Uint8Array): void;
  /** It is read no more. */
  forget(cid: Uint8Array): void;
  /** Those who could read what was posted in an epoch: device keys, without the own one. */
  putRoster(groupId: Uint8Array, epoch: number, rids: readonly Uint8Array[], nowMs: number): void;
  /** Whether a device was among them; false also where nothing was posted. */
  wasReader(groupId: Uint8Array, epoch: number, rid: Uint8Array): boolean;
  /** Part of a transaction. */
  expire(nowMs: number): void;
}

function channelOf(row: Row): FollowedChannel {
  return {
    cid: row.bytes('cid'),
    groupId: row.bytes('group_id'),
    leftMs: row.maybeNumber('left_ms'),
    isCrowded: row.number('crowded') === 1,
  };
}

const ridBytes = 32;

export function channelRows(db: Database): ChannelRows {
  return {
    follow(groupId, cid, nowMs) {
      db.run(
        `UPDATE channel SET left_ms = ? WHERE group_id = ? AND left_ms IS NULL AND cid IS NOT ?`,
        nowMs,
        groupId,
        cid ?? null,
      );
      if (cid === undefined) return;
      db.run(
        `INSERT INTO channel (cid, group_id, since_ms) VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET left_ms = NULL`,
        cid,
        groupId,
        nowMs,
      );
    },
    all: () => db.all('SELECT * FROM channel ORDER BY since_ms DESC, cid').map(channelOf),
    get(cid) {
      const row = db.get('SELECT * FROM channel WHERE cid = ?', cid);
      return row === undefined ? undefined : channelOf(row);
    },
    setCrowded(cid, isCrowded) {
      db.run('UPDATE channel SET crowded = ? WHERE cid = ?', isCrowded ? 1 : 0, cid);
    },
    startOver(cid) {
      db.run('DELETE FROM cursor WHERE log = ?', cid);
    },
    forget(cid) {
      db.run('DELETE FROM channel WHERE cid = ?', cid);
      db.run('DELETE FROM cursor WHERE log = ?', cid);
    },
    putRoster(groupId, epoch, rids, nowMs) {
      db.run(
        'INSERT INTO channel_roster VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING',
        groupId,
        epoch,
        Buffer.concat(rids),
        nowMs,
      );
    },
    wasReader(groupId, epoch, rid) {
      const rids = db
        .get('SELECT rids FROM channel_roster WHERE group_id = ? AND epoch = ?', groupId, epoch)
        ?.bytes('rids');
      for (let at = 0; rids !== undefined && at < rids.length; at += ridBytes) {
        if (Buffer.compare(rids.subarray(at, at + ridBytes), rid) === 0) return true;
      }
      return false;
    },
    expire(nowMs) {
      const { rosterKeptMs, leftKeptMs } = channelRowBounds;
      db.run('DELETE FROM channel_roster WHERE made_ms < ?', nowMs - rosterKeptMs);
      const left = 'SELECT cid FROM channel WHERE left_ms < ?';
      db.run(`DELETE FROM cursor WHERE log IN (${left})`, nowMs - leftKeptMs);
      db.run('DELETE FROM channel WHERE left_ms < ?', nowMs - leftKeptMs);
    },
  };
}
