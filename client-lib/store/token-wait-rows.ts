/**
 * Columns of the table `outbox` of the device store that say which copies wait for a delivery token: those
 * that went without one, or with one that their device's node takes for none.
 */
import type { Database } from './database.ts';
import { outboxBounds, unsettled } from './outbox-bounds.ts';

/** Copies that wait for a delivery token. */
export interface TokenWaitRows {
  /**
   * A SEALED row was refused as a stranger's: it waits for a token, or for another one than `token`, with which it
   * went. False when it has waited for as long as that may take, or too much waits: then it is the
   * caller's to fail.
   */
  waitForToken(id: number, token: Uint8Array | undefined, nowMs: number): boolean;
  /**
   * The same for copies that came back; same mid and bytes. So does a copy of what a hub had under this mid, which
   * has its own. Returns the message of each that was not waiting.
   */
  returnForToken(mid: Uint8Array, rid: Uint8Array, nowMs: number): readonly (number | undefined)[];
  /** A copy for this device waits for a token. */
  isWaitingForToken(mid: Uint8Array, rid: Uint8Array): boolean;
  /**
   * Devices (hex of rid) with copies that wait for a token. Held: none of it is known that was not
   * refused, and it is not time to try without; then nothing goes to the device, so that the order stays.
   */
  tokenWaits(nowMs: number): readonly {
    readonly target: string;
    readonly isHeld: boolean;
    /** When it is tried without a token. */
    readonly atMs: number;
  }[];
  /** Whether nothing goes to a device now (see `tokenWaits`). */
  isHeld(ridHex: string, nowMs: number): boolean;
  /** All copies for this device that wait for a token are not tried without one before then. */
  postponeTokenWaits(ridHex: string, atMs: number): void;
  /** SEALED rows to be sent, without those of devices that are held (see `tokenWaits`). */
  sendableCount(nowMs: number): number;
}

// Not yet the time to try without a token. A wait that is longer than any is of a clock that was wrong.
const isEarly = '(max(o.token_wait_ms) > ? AND max(o.token_wait_ms) <= ?)';
const good = 'SELECT rid FROM device_token WHERE refused = 0';

export function tokenWaitRows(db: Database): TokenWaitRows {
  /** That of today only: what came since then may be in force. */
  const refuse = (rid: Uint8Array, token: Uint8Array | undefined): void => {
    if (token === undefined) return;
    db.run('UPDATE device_token SET refused = 1 WHERE rid = ? AND token = ?', rid, token);
  };
  /** A copy goes back to SEALED, to wait for a token; false if it may not. */
  const wait = (id: number, nowMs: number): boolean => {
    const { bytesKeptMs, receiptsKeptMs, tokenWaitMinMs, tokenWaitMaxMs } = outboxBounds;
    const row = db.get(
      `SELECT rid, kind, created_ms, token_waits, payload_id, token_wait_ms FROM outbox
       WHERE id = ? AND ${unsettled}`,
      id,
    );
    if (row === undefined || row.isNull('payload_id')) return false;
    const isOfNone = row.text('kind') === 'RECEIPT' || row.text('kind') === 'RESEND';
    const ageMs = nowMs - row.number('created_ms');
    if (ageMs >= (isOfNone ? receiptsKeptMs : bytesKeptMs)) return false;
    if (row.isNull('token_wait_ms')) {
      const { inAll, ofDevice } = waiting(row.bytes('rid'));
      if (inAll >= outboxBounds.tokenWaitsMax) return false;
      if (ofDevice >= outboxBounds.tokenWaitsPerDevice) return false;
    }
    const waits = row.number('token_waits');
    db.run(
      `UPDATE outbox SET state = 'SEALED', resend_ms = NULL, token_waits = ?, token_wait_ms = ?
       WHERE id = ?`,
      waits + 1,
      nowMs + Math.min(tokenWaitMaxMs, tokenWaitMinMs * 2 ** Math.min(waits, 16)),
      id,
    );
    return true;
  };
  const waiting = (rid: Uint8Array): { readonly inAll: number; readonly ofDevice: number } => {
    const row = db.get(
      `SELECT count(*) AS in_all, coalesce(sum(rid = ?), 0) AS of_device FROM outbox
       WHERE token_wait_ms IS NOT NULL`,
      rid,
    );
    return { inAll: row?.number('in_all') ?? 0, ofDevice: row?.number('of_device') ?? 0 };
  };
  return {
    waitForToken(id, token, nowMs) {
      const rid = db.get('SELECT rid FROM outbox WHERE id = ?', id)?.bytes('rid');
      if (rid !== undefined) refuse(rid, token);
      return wait(id, nowMs);
    },
    returnForToken(mid, rid, nowMs) {
      const found = db.all(
        `SELECT id, message_id, sent_token FROM outbox
         WHERE rid = ? AND ${unsettled} AND token_wait_ms IS NULL
           AND (payload_id IN (SELECT id FROM outbox_payload WHERE mid = ?) OR brought_mid = ?)`,
        rid,
        mid,
        mid,
      );
      for (const row of found) refuse(rid, row.maybeBytes('sent_token'));
      // What comes back is told once more now and then, and the copy is on its own way by then.
      db.run('UPDATE outbox SET brought_mid = NULL WHERE rid = ? AND brought_mid = ?', rid, mid);
      return found
        .filter((row) => wait(row.number('id'), nowMs))
        .map((row) => row.maybeNumber('message_id'));
    },
    isWaitingForToken: (mid, rid) =>
      db.get(
        `SELECT 1 FROM outbox WHERE rid = ? AND state = 'SEALED' AND token_wait_ms IS NOT NULL
           AND payload_id IN (SELECT id FROM outbox_payload WHERE mid = ?) LIMIT 1`,
        rid,
        mid,
      ) !== undefined,
    tokenWaits: (nowMs) =>
      db
        .all(
          `SELECT lower(hex(o.rid)) AS target, t.rid IS NULL AND ${isEarly} AS held,
             max(o.token_wait_ms) AS at
           FROM outbox o LEFT JOIN device_token t ON t.rid = o.rid AND t.refused = 0
           WHERE o.token_wait_ms IS NOT NULL GROUP BY o.rid`,
          nowMs,
          nowMs + outboxBounds.tokenWaitMaxMs,
        )
        .map((row) => ({
          target: row.text('target'),
          isHeld: row.number('held') === 1,
          atMs: row.number('at'),
        })),
    isHeld: (ridHex, nowMs) =>
      db
        .get(
          `SELECT ${isEarly} AS held FROM outbox o
         WHERE o.rid = ? AND o.token_wait_ms IS NOT NULL
           AND o.rid NOT IN (${good})`,
          nowMs,
          nowMs + outboxBounds.tokenWaitMaxMs,
          Buffer.from(ridHex, 'hex'),
        )
        ?.maybeNumber('held') === 1,
    postponeTokenWaits(ridHex, atMs) {
      db.run(
        'UPDATE outbox SET token_wait_ms = ? WHERE rid = ? AND token_wait_ms IS NOT NULL',
        atMs,
        Buffer.from(ridHex, 'hex'),
      );
    },
    sendableCount: (nowMs) =>
      db
        .get(
          `SELECT count(*) AS open FROM outbox WHERE state = 'SEALED' AND resend_ms IS NULL AND rid NOT IN
             (SELECT o.rid FROM outbox o WHERE o.token_wait_ms IS NOT NULL
                AND o.rid NOT IN (${good})
              GROUP BY o.rid HAVING ${isEarly})`,
          nowMs,
          nowMs + outboxBounds.tokenWaitMaxMs,
        )
        ?.number('open') ?? 0,
  };
}
