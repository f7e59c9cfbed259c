/** The reading end of a log, inbox or channel: a run of rows without a hole, and the gap before it. */
import { FailedPreconditionError, InvalidArgumentError } from '@quicprochat/proto';
import { needSeq } from '../bounds.ts';
import type { SqlDatabase } from '../sqlite.ts';
import type { Fetched, Peeked } from '../message-store.ts';
import type { LogRow } from './log-append.ts';

interface EntryRow {
  readonly seq: number;
  readonly mid: Uint8Array;
  readonly kind: number;
  readonly size: number;
  readonly received_ms: number;
  readonly payload: number;
}

/** Where a reader stands. */
export interface Position {
  /** Rows with a greater seq are read. */
  readonly after: number;
  /** Rows up to it the reader has, or has acked: their absence is no gap. */
  readonly known: number;
}

export interface LogRead {
  /**
   * The next rows without a hole between them; at least one if there is any, whatever its size.
   * Throws FailedPreconditionError BAD_CURSOR when the position is above the head.
   */
  fetch(log: LogRow, position: Position, maxRows: number, maxBytes: number): Fetched;
  /** As `fetch`, without payloads. */
  peek(log: LogRow, position: Position, maxRows: number): Peeked;
}

export function logReadQueries(db: SqlDatabase): LogRead {
  const floorOfLog = db
    .prepare<[number], number | null>('SELECT min(seq) FROM entry WHERE log = ?')
    .pluck();
  // A bare parameter as the limit would have every run planned anew: five times its cost.
  const entriesAfter = db.prepare<[number, number, number, number], EntryRow>(
    `SELECT seq, mid, kind, size, received_ms, payload FROM entry
      WHERE log = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT (? + 0)`,
  );
  const payloadBytes = db
    .prepare<[number], Uint8Array>('SELECT bytes FROM payload WHERE id = ?')
    .pluck();

  function read(
    log: LogRow,
    { after, known }: Position,
    maxRows: number,
    maxBytes: number,
  ): Omit<Fetched, 'rows'> & { readonly entries: readonly EntryRow[] } {
    needSeq(after, 'after');
    if (!(maxRows >= 1)) throw new InvalidArgumentError('BAD_FIELD', 'maxRows: need at least 1');
    if (after > log.head) {
      throw new FailedPreconditionError('BAD_CURSOR', `after: ${after}, head is ${log.head}`);
    }
    const entries: EntryRow[] = [];
    let bytes = 0;
    let first: number | undefined;
    for (const entry of entriesAfter.all(log.id, after, log.head, maxRows)) {
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
      gap: gapBetween(known + 1, (first ?? log.head + 1) - 1),
    };
  }

  return {
    fetch(log, position, maxRows, maxBytes) {
      const { entries, ...rest } = read(log, position, maxRows, maxBytes);
      const rows = entries.map(({ seq, mid, kind, payload, received_ms: receivedMs }) => ({
        seq,
        mid,
        kind,
        payload: payloadBytes.get(payload) ?? missingPayload(payload),
        receivedMs,
      }));
      return { ...rest, rows };
    },

    peek(log, position, maxRows) {
      const { entries, ...rest } = read(log, position, maxRows, Infinity);
      const rows = entries.map(({ seq, mid, kind, size, received_ms: receivedMs }) => {
        return { seq, mid, kind, size, receivedMs };
      });
      return { ...rest, rows };
    },
  };
}

function gapBetween(from: number, to: number): Fetched['gap'] {
  return from <= to ? { from, to } : undefined;
}

function missingPayload(id: number): never {
  throw new Error(`payload ${id} is gone while a row points at it`);
}
