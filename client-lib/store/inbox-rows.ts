/** Tables `seen`, `parked`, `undecryptable`, `gap` and `cursor` of the device store. */
import { InternalError } from '@quicprochat/proto';
import type { Database, Row } from './database.ts';
import { otherPathOf } from './paths.ts';
import type { OtherPath } from './paths.ts';

/** A row of a log as it came from the node. */
export interface InboxRow {
  readonly seq: number;
  readonly mid: Uint8Array;
  readonly kind: number;
  readonly payload: Uint8Array;
  readonly receivedMs: number;
  /** Undefined: from the own node. On other paths there is no seq: it is 0. */
  readonly via?: OtherPath | undefined;
}

/** What a parked row waits for. */
export type ParkReason =
  | 'UNKNOWN_KEY'
  | 'UNKNOWN_GROUP'
  | 'FUTURE_EPOCH'
  | 'UNKNOWN_USER'
  | 'UNKNOWN_HUB';

export interface ParkedRow extends InboxRow {
  readonly id: number;
  readonly reason: ParkReason;
  /** Key id or group id in hex, user ids separated by spaces, or a domain. */
  readonly waitsFor: string;
  readonly parkedMs: number;
}

export interface UndecryptableRow {
  readonly mid: Uint8Array;
  readonly seq: number;
  readonly reason: string;
  readonly bytes: number;
  readonly atMs: number;
}

/** The log of a cursor: empty for the device's own inbox. */
export const inboxLog = new Uint8Array(0);

export interface Cursor {
  /** 8 bytes. */
  readonly storeId: Uint8Array;
  readonly seq: number;
}

export interface InboxRows {
  hasSeen(mark: Uint8Array): boolean;
  addSeen(mark: Uint8Array, nowMs: number): void;
  cursor(log: Uint8Array): Cursor | undefined;
  putCursor(log: Uint8Array, cursor: Cursor): void;
  park(row: InboxRow, reason: ParkReason, waitsFor: string, nowMs: number): number;
  parked(): readonly ParkedRow[];
  /** Whether a row waits for this reason. */
  hasParked(reason: ParkReason): boolean;
  /** Of the rows that wait for this reason the one that waits longest. */
  oldestParked(reason: ParkReason): ParkedRow | undefined;
  /**
   * Number of parked rows, and bytes of their payloads: of all, or of those that no node or
   * a mailbox brought.
   */
  parkedSize(of: 'all' | 'peers' | 'mailbox'): { readonly rows: number; readonly bytes: number };
  /** The same, of those that wait for one of these. */
  parkedFor(reasons: readonly ParkReason[]): { readonly rows: number; readonly bytes: number };
  isParked(id: number): boolean;
  unpark(id: number): void;
  setParkReason(id: number, reason: ParkReason, waitsFor: string): void;
  addUndecryptable(row: UndecryptableRow): void;
  undecryptable(): readonly UndecryptableRow[];
  addGap(storeId: Uint8Array, from: number, to: number, nowMs: number): void;
  gaps(): readonly { readonly from: number; readonly to: number; readonly atMs: number }[];
  /** Forgets marks and records that are too old, and the oldest of too many records. */
  expire(nowMs: number): void;
}

export const inboxBounds = {
  /**
   * How long marks of seen messages and records of lost ones are kept (ms): longer than any time to
   * live and what may be sent again after it.
   */
  keptMs: 90 * 24 * 3600 * 1000,
  /** Records of rows that nothing opens; beyond, the oldest go. */
  undecryptableMax: 10_000,
} as const;

const parkReasons: readonly ParkReason[] = [
  'UNKNOWN_KEY',
  'UNKNOWN_GROUP',
  'FUTURE_EPOCH',
  'UNKNOWN_USER',
  'UNKNOWN_HUB',
];

const parkedOfPath = {
  all: '1',
  peers: `via IN ('direct', 'relay')`,
  mailbox: `via = 'mailbox'`,
} as const;

function parkedOf(row: Row): ParkedRow {
  const reason = parkReasons.find((one) => one === row.text('reason'));
  if (reason === undefined) throw new InternalError('store: a parked row has an unknown reason');
  return {
    id: row.number('id'),
    mid: row.bytes('mid'),
    kind: row.number('kind'),
    payload: row.bytes('payload'),
    seq: row.number('seq'),
    receivedMs: row.number('received_ms'),
    reason,
    waitsFor: row.text('waits_for'),
    parkedMs: row.number('parked_ms'),
    via: row.isNull('via') ? undefined : otherPathOf(row.text('via')),
  };
}

export function inboxRows(db: Database): InboxRows {
  return {
    hasSeen: (mark) => db.get('SELECT 1 FROM seen WHERE mark = ?', mark) !== undefined,
    addSeen(mark, nowMs) {
      db.run('INSERT INTO seen VALUES (?, ?) ON CONFLICT DO NOTHING', mark, nowMs);
    },
    cursor(log) {
      const row = db.get('SELECT * FROM cursor WHERE log = ?', log);
      if (row === undefined) return undefined;
      return { storeId: row.bytes('store_id'), seq: row.number('seq') };
    },
    putCursor(log, { storeId, seq }) {
      db.run('INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)', log, storeId, seq);
    },
    park(row, reason, waitsFor, nowMs) {
      const id = db.insert(
        `INSERT INTO parked (mid, kind, payload, seq, received_ms, reason, waits_for, parked_ms, via)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        row.mid,
        row.kind,
        row.payload,
        row.seq,
        row.receivedMs,
        reason,
        waitsFor,
        nowMs,
        row.via ?? null,
      );
      if (id === undefined) throw new InternalError('store: a row was not parked');
      return id;
    },
    parked: () => db.all('SELECT * FROM parked ORDER BY id').map(parkedOf),
    parkedSize(of) {
      const size = db.get(
        `SELECT count(*) AS rows, coalesce(sum(length(payload)), 0) AS bytes FROM parked
         WHERE ${parkedOfPath[of]}`,
      );
      return { rows: size?.number('rows') ?? 0, bytes: size?.number('bytes') ?? 0 };
    },
    parkedFor(reasons) {
      const size = db.get(
        `SELECT count(*) AS rows, coalesce(sum(length(payload)), 0) AS bytes FROM parked
         WHERE reason IN (${reasons.map(() => '?').join(', ')})`,
        ...reasons,
      );
      return { rows: size?.number('rows') ?? 0, bytes: size?.number('bytes') ?? 0 };
    },
    hasParked: (reason) =>
      db.get('SELECT 1 FROM parked WHERE reason = ? LIMIT 1', reason) !== undefined,
    oldestParked(reason) {
      const row = db.get('SELECT * FROM parked WHERE reason = ? ORDER BY id LIMIT 1', reason);
      return row === undefined ? undefined : parkedOf(row);
    },
    isParked: (id) => db.get('SELECT 1 FROM parked WHERE id = ?', id) !== undefined,
    unpark(id) {
      db.run('DELETE FROM parked WHERE id = ?', id);
    },
    setParkReason(id, reason, waitsFor) {
      db.run('UPDATE parked SET reason = ?, waits_for = ? WHERE id = ?', reason, waitsFor, id);
    },
    addUndecryptable(row) {
      db.run(
        'INSERT INTO undecryptable (mid, seq, reason, bytes, at_ms) VALUES (?, ?, ?, ?, ?)',
        row.mid,
        row.seq,
        row.reason,
        row.bytes,
        row.atMs,
      );
    },
    undecryptable: () =>
      db.all('SELECT * FROM undecryptable ORDER BY id').map((row) => ({
        mid: row.bytes('mid'),
        seq: row.number('seq'),
        reason: row.text('reason'),
        bytes: row.number('bytes'),
        atMs: row.number('at_ms'),
      })),
    addGap(storeId, from, to, nowMs) {
      db.run(
        'INSERT INTO gap VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING',
        storeId,
        from,
        to,
        nowMs,
      );
    },
    gaps: () =>
      db.all('SELECT * FROM gap ORDER BY at_ms').map((row) => ({
        from: row.number('from_seq'),
        to: row.number('to_seq'),
        atMs: row.number('at_ms'),
      })),
    expire(nowMs) {
      const { keptMs, undecryptableMax } = inboxBounds;
      db.transaction(() => {
        db.run('DELETE FROM seen WHERE seen_ms < ?', nowMs - keptMs);
        db.run('DELETE FROM undecryptable WHERE at_ms < ?', nowMs - keptMs);
        db.run(
          `DELETE FROM undecryptable WHERE id IN
             (SELECT id FROM undecryptable ORDER BY id DESC LIMIT -1 OFFSET ?)`,
          undecryptableMax,
        );
        db.run('DELETE FROM gap WHERE at_ms < ?', nowMs - keptMs);
      });
    },
  };
}
