/**
 * Rows of the table `outbox` of the device store for which nothing could be sealed yet: their device has no prekey, as
 * one that was away for longer than its last one was good. They hold their place, SEALED and without bytes, and have a
 * time at which they are sealed.
 */
import type { Database } from './database.ts';
import { longestWaitMs } from './due.ts';
import type { OutboxAbout, OutboxTarget } from './outbox-copies.ts';
import { outboxBounds } from './outbox-bounds.ts';

/** Copies that wait for a prekey of their device. */
export interface PrekeyWaitRows {
  /**
   * Copies of a message for devices without a prekey, due with what waits for that already, else in a minute. `mid`: 16
   * bytes that nothing is sent under. Where too much waits for a device (`outboxBounds.prekeyWaitsPerDevice`), its copy is
   * FAILED at once, with this reason.
   */
  addUnsealed(
    entry: {
      readonly mid: Uint8Array;
      readonly targets: readonly OutboxTarget[];
      readonly messageId: number | undefined;
      readonly about: OutboxAbout;
    },
    failure: string,
    nowMs: number,
  ): void;
  /** Devices whose copies are due to be sealed, and since when the oldest waits (ms); that which waits the longest first. */
  prekeyWaits(
    nowMs: number,
  ): readonly { readonly rid: Uint8Array; readonly userId: string; readonly sinceMs: number }[];
  /** A device is there again, or has a prekey now: what waits for one is due. Returns how many waited. */
  prekeyWaitsDue(rid: Uint8Array, nowMs: number): number;
  /**
   * A device has no prekey yet: what is due of its copies waits on until `dueMs`.
   */
  postponePrekeyWaits(rid: Uint8Array, dueMs: number, nowMs: number): void;
  /**
   * Copies of a device that have waited for as long as any node keeps a row are FAILED. Returns the message of each.
   */
  endPrekeyWaits(rid: Uint8Array, failure: string, nowMs: number): readonly number[];
}

/** SQL: the row `o` waits for a prekey. */
export const waitsForPrekey = `(o.state = 'SEALED' AND o.resend_ms IS NOT NULL AND o.post IS NULL AND EXISTS
  (SELECT 1 FROM outbox_payload p WHERE p.id = o.payload_id AND length(p.bytes) = 0))`;

export function prekeyWaitRows(db: Database, add: AddCopies): PrekeyWaitRows {
  const { prekeyWaitMinMs, prekeyWaitsPerDevice, bytesKeptMs } = outboxBounds;
  return {
    addUnsealed(entry, failure, nowMs) {
      db.transaction(() => {
        const payloadId = add({ ...entry, payload: new Uint8Array(0) }, nowMs);
        db.run(
          `UPDATE outbox AS new SET resend_ms = coalesce(
             (SELECT min(o.resend_ms) FROM outbox o WHERE o.rid = new.rid AND ${waitsForPrekey}), ?)
           WHERE payload_id = ?`,
          nowMs + prekeyWaitMinMs,
          payloadId ?? null,
        );
        db.run(
          `UPDATE outbox AS new SET state = 'FAILED', failure = ?, resend_ms = NULL
           WHERE payload_id = ? AND (SELECT count(*) FROM outbox o
             WHERE o.rid = new.rid AND ${waitsForPrekey}) > ?`,
          failure,
          payloadId ?? null,
          prekeyWaitsPerDevice,
        );
      });
    },
    prekeyWaits: (nowMs) =>
      db
        .all(
          `SELECT o.rid, o.user_id, min(o.created_ms) AS since FROM outbox o
           WHERE (o.resend_ms <= ? OR o.resend_ms > ?) AND ${waitsForPrekey}
           GROUP BY o.rid ORDER BY min(o.id)`,
          nowMs,
          nowMs + longestWaitMs,
        )
        .map((row) => ({
          rid: row.bytes('rid'),
          userId: row.text('user_id'),
          sinceMs: row.number('since'),
        })),
    prekeyWaitsDue: (rid, nowMs) =>
      db.run(
        `UPDATE outbox AS o SET resend_ms = ?
         WHERE o.rid = ? AND o.resend_ms > ? AND ${waitsForPrekey}`,
        nowMs,
        rid,
        nowMs,
      ),
    postponePrekeyWaits(rid, dueMs, nowMs) {
      db.run(
        `UPDATE outbox AS o SET resend_ms = ?
         WHERE o.rid = ? AND (o.resend_ms <= ? OR o.resend_ms > ?) AND ${waitsForPrekey}`,
        dueMs,
        rid,
        nowMs,
        nowMs + longestWaitMs,
      );
    },
    endPrekeyWaits: (rid, failure, nowMs) =>
      db
        .all(
          `UPDATE outbox AS o SET state = 'FAILED', failure = ?, resend_ms = NULL
           WHERE o.rid = ? AND o.created_ms <= ? AND ${waitsForPrekey} RETURNING message_id`,
          failure,
          rid,
          nowMs - bytesKeptMs,
        )
        .flatMap((row) => row.maybeNumber('message_id') ?? []),
  };
}

/** Writes copies down, as OutboxRows.add; returns the id of their bytes. */
type AddCopies = (
  entry: {
    readonly mid: Uint8Array;
    readonly payload: Uint8Array;
    readonly targets: readonly OutboxTarget[];
    readonly messageId: number | undefined;
    readonly about: OutboxAbout;
  },
  nowMs: number,
) => number | undefined;
