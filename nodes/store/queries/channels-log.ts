/**
 * The shared log of a channel: one row per post and node, a cursor for each subscriber, and rows that
 * go when every subscriber whose lease holds has passed them, or when the log is full (docs:
 * protocol/channels).
 */
import {
  FailedPreconditionError,
  InvalidArgumentError,
  RowKind,
  verifyChannelPost,
} from '@quicprochat/proto';
import { fromBinary, GroupControlSchema } from '@quicprochat/proto/messages';
import type { Fetched, Peeked } from '../message-store.ts';
import { needSeq, storeBounds } from '../bounds.ts';
import type { QueryContext } from '../operations.ts';
import {
  channelBounds,
  unknownChannel,
  type ChannelMemberQueries,
  type ChannelRow,
  type CursorRow,
} from './channels-members.ts';
import type { Delivery, LogAppend } from './log-append.ts';
import type { LogRead, Position } from './log-read.ts';
import type { LogTrim } from './log-trim.ts';

/** Rows that one ack, or one turn of the sweep, removes; the rest goes at the next turn. */
const trimRows = 2_000;

export interface PostProof {
  readonly epoch: number;
  readonly signature: Uint8Array;
}

/** A post that was here already: since when (Unix ms), and whether a live key signed the repeat too. */
export interface KnownPost {
  readonly receivedMs: number;
  readonly isSigned: boolean;
}

export interface ChannelLogQueries {
  /**
   * Whether the channel is here, once its write key of that epoch signed `signed` under `mid`. Throws
   * InvalidArgumentError BAD_SIGNATURE, NotFoundError UNKNOWN_CHANNEL for an epoch to come.
   */
  isWritable(
    nowMs: number,
    cid: Uint8Array,
    proof: PostProof,
    mid: Uint8Array,
    signed: Uint8Array,
  ): boolean;
  /** Writes a row whose writer was checked, behind the head; nothing where the channel is not here. */
  append(nowMs: number, cid: Uint8Array, delivery: Delivery): void;
  /**
   * Writes the row behind the head, unless it was here already. NotFoundError UNKNOWN_CHANNEL,
   * InvalidArgumentError BAD_SIGNATURE before any write.
   */
  post(nowMs: number, cid: Uint8Array, proof: PostProof, delivery: Delivery): KnownPost | undefined;
  fetch(
    nowMs: number,
    rid: Uint8Array,
    cid: Uint8Array,
    after: number,
    maxRows: number,
    maxBytes: number,
  ): Fetched;
  peek(rid: Uint8Array, cid: Uint8Array, after: number, maxRows: number): Peeked;
  ack(nowMs: number, rid: Uint8Array, cid: Uint8Array, upTo: number): void;
  /** Ends leases, removes rows that nobody waits for, forgets channels without subscribers. */
  sweep(nowMs: number): void;
}

export function channelLogQueries(
  { db, limits, needRoom }: QueryContext,
  members: ChannelMemberQueries,
  logs: LogAppend,
  reads: LogRead,
  trims: LogTrim,
): ChannelLogQueries {
  const slowest = db
    .prepare<[number], number>(
      `SELECT acked FROM channel_cursor WHERE log = ? AND is_live = 1 ORDER BY acked LIMIT 1`,
    )
    .pluck();
  const nthRow = db
    .prepare<[number, number, number], number>(
      'SELECT seq FROM entry WHERE log = ? AND seq <= ? ORDER BY seq LIMIT 1 OFFSET ?',
    )
    .pluck();
  const oldestRows = db.prepare<[number], { readonly seq: number; readonly size: number }>(
    'SELECT seq, size FROM entry WHERE log = ? ORDER BY seq',
  );
  const bury = db.prepare<[number, Uint8Array, number, number]>(
    'INSERT INTO tomb (log, tag, received_ms, gone_ms) VALUES (?, ?, ?, ?)',
  );
  const setTrimDue = db.prepare<[number, number]>('UPDATE channel SET trim_due = ? WHERE log = ?');
  const renew = db.prepare<[number, number, number]>(
    `UPDATE channel_cursor SET lease_until_ms = ?, is_live = 1, is_stranger = 0
      WHERE log = ? AND device = ?`,
  );
  const moveCursor = db.prepare<[number, number, number]>(
    'UPDATE channel_cursor SET acked = ? WHERE log = ? AND device = ?',
  );
  const ended = db.prepare<[number, number], { readonly log: number; readonly device: number }>(
    'SELECT log, device FROM channel_cursor WHERE is_live = 1 AND lease_until_ms <= ? LIMIT (? + 0)',
  );
  const lapse = db.prepare<[number, number]>(
    'UPDATE channel_cursor SET is_live = 0 WHERE log = ? AND device = ?',
  );
  const dropLapsed = db.prepare<[number, number]>(
    'DELETE FROM channel_cursor WHERE log = ? AND device = ? AND until IS NOT NULL',
  );
  const dropRead = db.prepare<[number, number]>(
    'DELETE FROM channel_cursor WHERE log = ? AND device = ? AND until <= acked',
  );
  const dueLogs = db.prepare<
    [],
    { readonly id: number; readonly head: number; readonly acked: number }
  >(
    `SELECT log.id, log.head, log.acked FROM channel JOIN log ON log.id = channel.log
      WHERE trim_due = 1 LIMIT 100`,
  );
  const emptyLogs = db
    .prepare<[number], number>(
      `SELECT channel.log FROM channel JOIN log ON log.id = channel.log
        WHERE empty_since_ms <= ? AND row_count = 0 LIMIT 100`,
    )
    .pluck();
  const forget = [
    'DELETE FROM tomb WHERE log = ?',
    'DELETE FROM channel_key WHERE log = ?',
    'DELETE FROM channel_cursor WHERE log = ?',
    'DELETE FROM channel WHERE log = ?',
    'DELETE FROM log WHERE id = ?',
  ].map((sql) => db.prepare<[number]>(sql));

  /**
   * Removes what every live subscriber has passed, at most `trimRows` of it at once. Returns how many
   * rows that were.
   */
  function trimPassed(
    nowMs: number,
    { id, head, acked }: { readonly id: number; readonly head: number; readonly acked: number },
  ): number {
    const passed = slowest.get(id) ?? head;
    if (passed <= acked) {
      setTrimDue.run(0, id);
      return 0;
    }
    const bound = nthRow.get(id, passed, trimRows - 1);
    const rows = trims.trim(nowMs, id, bound ?? passed);
    setTrimDue.run(bound === undefined || bound === passed ? 0 : 1, id);
    return rows;
  }

  /** A full log loses its oldest rows, whoever still waits for them: their readers find a gap. */
  function makeRoom(nowMs: number, channel: ChannelRow, size: number): void {
    let rows = channel.row_count;
    let bytes = channel.byte_count;
    let upTo = 0;
    const isFull = () =>
      rows > 0 && (rows >= limits.channelRows || bytes + size > limits.channelBytes);
    if (!isFull()) return;
    for (const row of oldestRows.iterate(channel.id)) {
      rows -= 1;
      bytes -= row.size;
      upTo = row.seq;
      if (!isFull()) break;
    }
    trims.trim(nowMs, channel.id, upTo);
  }

  function isSigned(
    nowMs: number,
    { id, key: cid }: ChannelRow,
    { epoch, signature }: PostProof,
    mid: Uint8Array,
    signed: Uint8Array,
  ): boolean {
    const writePub = members.writePub(nowMs, id, epoch);
    const post = { cid, epoch, mid, payload: signed };
    return writePub !== undefined && verifyChannelPost(post, signature, writePub);
  }

  function needWriter(
    nowMs: number,
    channel: ChannelRow,
    proof: PostProof,
    mid: Uint8Array,
    signed: Uint8Array,
  ): void {
    // The update with that epoch's key is on its way.
    if (proof.epoch > channel.epoch) throw unknownChannel(channel.key);
    if (isSigned(nowMs, channel, proof, mid, signed)) return;
    throw new InvalidArgumentError('BAD_SIGNATURE', 'no valid write key signed the post');
  }

  function append(nowMs: number, channel: ChannelRow, delivery: Delivery): void {
    if (channel.empty_since_ms !== null) return;
    if (slowest.get(channel.id) === undefined) {
      // Nobody's lease holds. Whoever comes back finds the gap.
      logs.skip(channel);
      bury.run(channel.id, delivery.tag, nowMs, nowMs);
      return;
    }
    makeRoom(nowMs, channel, delivery.payload.bytes.length);
    logs.append(nowMs, channel, delivery);
  }

  function touch(nowMs: number, channel: ChannelRow, cursor: CursorRow): void {
    // Who was taken out has until then, and no longer.
    if (cursor.until !== null) return;
    const leftMs = cursor.lease_until_ms - nowMs;
    const isFresh = leftMs > channelBounds.leaseMs - channelBounds.renewAfterMs;
    // A lease from a clock that was ahead must not stay for ever.
    const isSane = leftMs <= channelBounds.leaseMs;
    if (isFresh && isSane && cursor.is_live === 1 && cursor.is_stranger === 0) return;
    renew.run(nowMs + channelBounds.leaseMs, channel.id, cursor.device);
  }

  function position({ joined, acked }: CursorRow, after: number): Position {
    needSeq(after, 'after');
    const from = Math.max(after, joined);
    // Who was taken out and came back before it had read all: the rows in between it does not get any more.
    const isBack = after > 0 && after < joined && acked === joined;
    return { after: from, known: isBack ? after : Math.max(from, acked) };
  }

  /** The channel and its reader; for who was taken out it ends where that was. */
  function readable(rid: Uint8Array, cid: Uint8Array) {
    const { channel, cursor } = members.need(rid, cid);
    const head = Math.min(channel.head, cursor.until ?? channel.head);
    return { channel, cursor, seen: { ...channel, head } };
  }

  function needHead(channel: ChannelRow, seq: number, name: string): void {
    needSeq(seq, name);
    if (seq <= channel.head) return;
    throw new FailedPreconditionError('BAD_CURSOR', `${name}: ${seq}, head is ${channel.head}`, {
      details: channel.key,
    });
  }

  return {
    isWritable(nowMs, cid, proof, mid, signed) {
      const channel = members.byCid(cid);
      if (channel !== undefined) needWriter(nowMs, channel, proof, mid, signed);
      return channel !== undefined;
    },

    append(nowMs, cid, delivery) {
      const channel = members.byCid(cid);
      if (channel !== undefined) append(nowMs, channel, delivery);
    },

    post(nowMs, cid, proof, delivery) {
      const channel = members.byCid(cid);
      if (channel === undefined) throw unknownChannel(cid);
      const { tag, mid, kind, payload } = delivery;
      const signed = signedPart(kind, payload.bytes);
      const receivedMs = logs.receivedMs(channel.id, tag);
      if (receivedMs !== undefined) {
        return { receivedMs, isSigned: isSigned(nowMs, channel, proof, mid, signed) };
      }
      needWriter(nowMs, channel, proof, mid, signed);
      needRoom();
      append(nowMs, channel, delivery);
      return undefined;
    },

    fetch(nowMs, rid, cid, after, maxRows, maxBytes) {
      const { channel, cursor, seen } = readable(rid, cid);
      needHead(seen, after, 'after');
      const fetched = reads.fetch(seen, position(cursor, after), maxRows, maxBytes);
      touch(nowMs, channel, cursor);
      // A cursor begins where its device joined, which acked nothing by that.
      return { ...fetched, acked: cursor.acked > cursor.joined ? cursor.acked : 0 };
    },

    peek(rid, cid, after, maxRows) {
      const { cursor, seen } = readable(rid, cid);
      needHead(seen, after, 'after');
      return reads.peek(seen, position(cursor, after), maxRows);
    },

    ack(nowMs, rid, cid, upTo) {
      const { channel, cursor, seen } = readable(rid, cid);
      needHead(seen, upTo, 'upTo');
      touch(nowMs, channel, cursor);
      if (upTo <= cursor.acked) return;
      moveCursor.run(upTo, channel.id, cursor.device);
      dropRead.run(channel.id, cursor.device);
      // Only the slowest can have kept rows.
      if (cursor.acked <= channel.acked) trimPassed(nowMs, channel);
    },

    sweep(nowMs) {
      for (const { log, device } of ended.all(nowMs, storeBounds.sweepRows)) {
        lapse.run(log, device);
        dropLapsed.run(log, device);
        setTrimDue.run(1, log);
      }
      let left = trimRows;
      for (const log of dueLogs.all()) {
        if (left <= 0) break;
        left -= trimPassed(nowMs, log);
        members.noteEmpty(nowMs, log.id);
      }
      for (const log of emptyLogs.all(nowMs - channelBounds.emptyMs)) {
        for (const statement of forget) statement.run(log);
      }
    },
  };
}

/** What the writer of a row signed: of a hub's row the commit, beside which the hub's word stands. */
function signedPart(kind: number, payload: Uint8Array): Uint8Array {
  if (kind !== RowKind.GroupControl) return payload;
  try {
    return fromBinary(GroupControlSchema, payload).commit;
  } catch (cause) {
    throw new InvalidArgumentError('BAD_FIELD', 'group control: does not parse', { cause });
  }
}
