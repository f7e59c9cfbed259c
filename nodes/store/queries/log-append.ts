/** The writing end of an inbox: where a row gets its seq, whoever it comes from. */
import type { QueryContext } from '../operations.ts';
import type { IncomingPayload, PayloadQueries } from './payloads.ts';

export interface LogRow {
  readonly id: number;
  /** Device key (32 bytes). */
  readonly key: Uint8Array;
  readonly head: number;
  readonly acked: number;
  readonly row_count: number;
  readonly byte_count: number;
}

/** One message for one or more inboxes. */
export interface Delivery {
  readonly kind: number;
  readonly mid: Uint8Array;
  readonly tag: Uint8Array;
  readonly payload: IncomingPayload;
  readonly ttlMs: number;
  /** Log of the device of this node that sent it. */
  readonly sender?: number | undefined;
  /** Of a message of a peer: whom to tell when it expires, and what that peer gave along for it. */
  readonly from?: { readonly peer: number; readonly slip: Uint8Array } | undefined;
  /** It came without a valid delivery token where one was asked for. */
  readonly isStranger?: boolean;
}

export interface LogAppend {
  byKey(rid: Uint8Array): LogRow | undefined;
  byId(id: number): LogRow | undefined;
  /** When a row with this tag came, if it did and that is still remembered. */
  receivedMs(log: number, tag: Uint8Array): number | undefined;
  /** Writes the row behind the head. Quotas, repeats and room are the caller's business. */
  append(nowMs: number, log: LogRow, delivery: Delivery): void;
  /** Takes the next seq for a row that is not kept: its reader finds a gap. */
  skip(log: LogRow): void;
}

export function logAppendQueries(context: QueryContext, payloads: PayloadQueries): LogAppend {
  const { db } = context;
  const columns = 'id, key, head, acked, row_count, byte_count';
  const byKey = db.prepare<[Uint8Array], LogRow>(
    `SELECT ${columns} FROM log WHERE kind = 1 AND key = ?`,
  );
  const byId = db.prepare<[number], LogRow>(`SELECT ${columns} FROM log WHERE id = ?`);
  const receivedOfEntry = db
    .prepare<[number, Uint8Array], number>(
      'SELECT received_ms FROM entry WHERE log = ? AND tag = ?',
    )
    .pluck();
  const receivedOfTomb = db
    .prepare<[number, Uint8Array], number>('SELECT received_ms FROM tomb WHERE log = ? AND tag = ?')
    .pluck();
  const insertEntry = db.prepare<[Readonly<Record<string, number | bigint | Uint8Array | null>>]>(
    `INSERT INTO entry
       (log, seq, mid, tag, kind, payload, size, received_ms, expires_ms, sender, stranger,
        peer, slip)
     VALUES
       (:log, :seq, :mid, :tag, :kind, :payload, :size, :receivedMs, :expiresMs, :sender,
        :stranger, :peer, :slip)`,
  );
  const appendToLog = db.prepare<[number, number, number]>(
    `UPDATE log SET head = ?, row_count = row_count + 1, byte_count = byte_count + ?
      WHERE id = ?`,
  );
  const skip = db.prepare<[number]>('UPDATE log SET head = head + 1 WHERE id = ?');

  return {
    byKey: (rid) => byKey.get(rid),
    byId: (id) => byId.get(id),
    receivedMs: (log, tag) => receivedOfEntry.get(log, tag) ?? receivedOfTomb.get(log, tag),
    append(nowMs, log, { kind, mid, tag, payload, ttlMs, sender, isStranger, from }) {
      const seq = log.head + 1;
      const size = payload.bytes.length;
      insertEntry.run({
        log: log.id,
        seq,
        mid,
        tag,
        kind,
        payload: payloads.refer(payload),
        size,
        receivedMs: nowMs,
        expiresMs: nowMs + ttlMs,
        sender: sender ?? null,
        stranger: isStranger === true ? 1 : 0,
        peer: from?.peer ?? null,
        slip: from?.slip ?? null,
      });
      appendToLog.run(seq, size, log.id);
      context.wake(log.key);
    },
    skip({ id, key }) {
      skip.run(id);
      context.wake(key);
    },
  };
}
