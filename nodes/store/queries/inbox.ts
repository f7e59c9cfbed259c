/**
 * The inbox of a device: an append-only log with gapless seq, tag dedup, quotas, cumulative ack
 * and expiry (docs: protocol/delivery). Rows of other nodes come in through `deliver`.
 */
import {
  FailedPreconditionError,
  InvalidArgumentError,
  messageTag,
  NotFoundError,
  PayloadTooLargeError,
  ResourceExhaustedError,
} from '@quicprochat/proto';
import { needBytes, needSeq, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import type { Fetched, InboxRow } from '../store.ts';
import type { Delivery, LogAppend, LogRow } from './log-append.ts';
import type { NoticeQueries } from './notices.ts';
import { IncomingPayload, type PayloadQueries } from './payloads.ts';

interface EntryRow {
  readonly seq: number;
  readonly mid: Uint8Array;
  readonly kind: number;
  readonly size: number;
  readonly received_ms: number;
  readonly payload: number;
}

interface ExpiredRow {
  readonly id: number;
  readonly log: number;
  readonly mid: Uint8Array;
  readonly sender: number | null;
  readonly tag: Uint8Array;
  readonly payload: number;
  readonly size: number;
  readonly received_ms: number;
}

export type Delivered =
  | { readonly outcome: 'stored' | 'duplicate'; readonly receivedMs: number }
  | { readonly outcome: 'unknownDevice' | 'queueFull' };

export interface InboxQueries extends Pick<Operations, 'enqueue' | 'fetch' | 'peek' | 'ack'> {
  /** Writes nothing unless the outcome is `stored`. */
  deliver(nowMs: number, rid: Uint8Array, delivery: Delivery): Delivered;
  sweep(nowMs: number): void;
}

export function inboxQueries(
  context: QueryContext,
  payloads: PayloadQueries,
  logs: LogAppend,
  notices: NoticeQueries,
): InboxQueries {
  const { db, limits } = context;
  const floorOfLog = db
    .prepare<[number], number | null>('SELECT min(seq) FROM entry WHERE log = ?')
    .pluck();
  const entriesAfter = db.prepare<[number, number, number], EntryRow>(
    `SELECT seq, mid, kind, size, received_ms, payload FROM entry
      WHERE log = ? AND seq > ? ORDER BY seq LIMIT ?`,
  );
  const payloadBytes = db
    .prepare<[number], Uint8Array>('SELECT bytes FROM payload WHERE id = ?')
    .pluck();
  const buryAcked = db.prepare<[number, number, number]>(
    `INSERT INTO tomb (log, tag, received_ms, gone_ms)
     SELECT log, tag, received_ms, ? FROM entry WHERE log = ? AND seq <= ? ORDER BY seq`,
  );
  // A log has at most one entry for a payload, so each set below holds an id once.
  const dropAckedPayloads = db.prepare<[number, number]>(
    `DELETE FROM payload WHERE refs = 1 AND id IN
       (SELECT payload FROM entry WHERE log = ? AND seq <= ?)`,
  );
  const releaseAckedPayloads = db.prepare<[number, number]>(
    `UPDATE payload SET refs = refs - 1 WHERE id IN
       (SELECT payload FROM entry WHERE log = ? AND seq <= ?)`,
  );
  const ackedTotals = db.prepare<
    [number, number],
    { readonly row_count: number; readonly byte_count: number }
  >(
    `SELECT count(*) AS row_count, coalesce(sum(size), 0) AS byte_count FROM entry
      WHERE log = ? AND seq <= ?`,
  );
  const deleteAcked = db.prepare<[number, number]>('DELETE FROM entry WHERE log = ? AND seq <= ?');
  const ackLog = db.prepare<[number, number, number, number]>(
    `UPDATE log SET acked = ?, row_count = row_count - ?, byte_count = byte_count - ?
      WHERE id = ?`,
  );
  const expired = db.prepare<[number, number], ExpiredRow>(
    `SELECT id, log, mid, sender, tag, payload, size, received_ms FROM entry
      WHERE expires_ms <= ? ORDER BY expires_ms LIMIT ?`,
  );
  const deleteEntry = db.prepare<[number]>('DELETE FROM entry WHERE id = ?');
  const bury = db.prepare<[number, Uint8Array, number, number]>(
    'INSERT INTO tomb (log, tag, received_ms, gone_ms) VALUES (?, ?, ?, ?)',
  );
  const removeFromLog = db.prepare<[number, number]>(
    'UPDATE log SET row_count = row_count - 1, byte_count = byte_count - ? WHERE id = ?',
  );
  // Stamps from the future are from a clock that was wrong: they must not stay for ever.
  const pruneTombs = db.prepare<[number, number, number]>(
    `DELETE FROM tomb WHERE id IN (SELECT id FROM tomb ORDER BY id LIMIT ?)
        AND (gone_ms <= ? OR gone_ms > ?)`,
  );

  function needLog(rid: Uint8Array): LogRow {
    needBytes(rid, storeBounds.ridBytes, 'rid');
    const log = logs.byKey(rid);
    if (log === undefined) throw new NotFoundError('UNKNOWN_DEVICE', 'rid is not of this node');
    return log;
  }

  function deliver(nowMs: number, rid: Uint8Array, delivery: Delivery): Delivered {
    const log = logs.byKey(rid);
    if (log === undefined) return { outcome: 'unknownDevice' };
    const known = logs.receivedMs(log.id, delivery.tag);
    if (known !== undefined) return { outcome: 'duplicate', receivedMs: known };
    const size = delivery.payload.bytes.length;
    context.needRoom();
    if (log.row_count >= limits.inboxRows || log.byte_count + size > limits.inboxBytes) {
      return { outcome: 'queueFull' };
    }
    logs.append(nowMs, log, delivery);
    return { outcome: 'stored', receivedMs: nowMs };
  }

  function readAfter(
    rid: Uint8Array,
    after: number,
    maxRows: number,
    maxBytes: number,
  ): Omit<Fetched, 'rows'> & { readonly entries: readonly EntryRow[] } {
    needSeq(after, 'after');
    if (!(maxRows >= 1)) throw new InvalidArgumentError('BAD_FIELD', 'maxRows: need at least 1');
    const log = needLog(rid);
    if (after > log.head) {
      throw new FailedPreconditionError('BAD_CURSOR', `after: ${after}, head is ${log.head}`);
    }
    const entries: EntryRow[] = [];
    let bytes = 0;
    let first: number | undefined;
    for (const entry of entriesAfter.all(log.id, after, maxRows)) {
      first ??= entry.seq;
      // A row in the middle expired: the next read starts with that gap.
      if (entry.seq !== first + entries.length) break;
      bytes += entry.size;
      if (entries.length > 0 && bytes > maxBytes) break;
      entries.push(entry);
    }
    return {
      floor: floorOfLog.get(log.id) ?? log.head + 1,
      head: log.head,
      entries,
      gap: gapBetween(Math.max(after, log.acked) + 1, (first ?? log.head + 1) - 1),
    };
  }

  return {
    deliver,

    enqueue(nowMs, { rid, kind, mid, payload, ttlMs, sender }) {
      needBytes(rid, storeBounds.ridBytes, 'rid');
      needBytes(mid, storeBounds.midBytes, 'mid');
      if (payload.length > storeBounds.payloadBytes) {
        throw new PayloadTooLargeError(
          `payload: ${payload.length} bytes, at most ${storeBounds.payloadBytes}`,
        );
      }
      const tag = messageTag(mid, payload);
      const delivered = deliver(nowMs, rid, {
        kind,
        mid,
        tag,
        payload: new IncomingPayload(payload),
        ttlMs,
        sender: sender && logs.byKey(sender)?.id,
      });
      switch (delivered.outcome) {
        case 'unknownDevice':
          throw new NotFoundError('UNKNOWN_DEVICE', 'rid is not of this node');
        case 'queueFull':
          throw new ResourceExhaustedError('QUEUE_FULL', 'the inbox is full');
        default:
          return { outcome: delivered.outcome, tag, receivedMs: delivered.receivedMs };
      }
    },

    fetch(_nowMs, rid, after, maxRows, maxBytes) {
      const { entries, ...read } = readAfter(rid, after, maxRows, maxBytes);
      const rows = entries.map((entry): InboxRow => ({
        seq: entry.seq,
        mid: entry.mid,
        kind: entry.kind,
        payload: payloadBytes.get(entry.payload) ?? missingPayload(entry.payload),
        receivedMs: entry.received_ms,
      }));
      return { ...read, rows };
    },

    peek(_nowMs, rid, after, maxRows) {
      const { entries, ...read } = readAfter(rid, after, maxRows, Infinity);
      const rows = entries.map(({ seq, mid, kind, size, received_ms: receivedMs }) => {
        return { seq, mid, kind, size, receivedMs };
      });
      return { ...read, rows };
    },

    ack(nowMs, rid, upTo) {
      needSeq(upTo, 'upTo');
      const log = needLog(rid);
      if (upTo > log.head) {
        throw new FailedPreconditionError('BAD_CURSOR', `upTo: ${upTo}, head is ${log.head}`);
      }
      if (upTo <= log.acked) return;
      const totals = ackedTotals.get(log.id, upTo);
      // Payloads first: on a full disk their pages are the room for the tombstones.
      dropAckedPayloads.run(log.id, upTo);
      releaseAckedPayloads.run(log.id, upTo);
      buryAcked.run(nowMs, log.id, upTo);
      deleteAcked.run(log.id, upTo);
      ackLog.run(upTo, totals?.row_count ?? 0, totals?.byte_count ?? 0, log.id);
    },

    sweep(nowMs) {
      for (const row of expired.all(nowMs, storeBounds.sweepRows)) {
        deleteEntry.run(row.id);
        payloads.release(row.payload);
        removeFromLog.run(row.size, row.log);
        // Remembered, or a late copy of the message would come back to life.
        bury.run(row.log, row.tag, row.received_ms, nowMs);
        const { sender, mid, tag, received_ms: createdMs } = row;
        const rid = logs.byId(row.log)?.key;
        if (rid !== undefined) {
          notices.expired(nowMs, { sender, mid, tag, rid, domain: '', createdMs });
        }
      }
      pruneTombs.run(storeBounds.sweepRows, nowMs - limits.tombstoneMs, nowMs + limits.tombstoneMs);
    },
  };
}

function gapBetween(from: number, to: number): Fetched['gap'] {
  return from <= to ? { from, to } : undefined;
}

function missingPayload(id: number): never {
  throw new Error(`payload ${id} is gone while a row points at it`);
}
