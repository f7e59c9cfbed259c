/**
 * Mailboxes (docs: protocol/p2p): a log for a device of another node, with bounds of its own, that goes
 * with all its rows when its device does not ask for it again.
 */
import { createHash } from 'node:crypto';
import {
  DataLossError,
  FailedPreconditionError,
  NotFoundError,
  ResourceExhaustedError,
  sameBytes,
} from '@quicprochat/proto';
import { needBytes, needSeq, storeBounds } from '../bounds.ts';
import type { MailboxLimits, WantedMailbox } from '../mailbox-store.ts';
import type { Operations, QueryContext } from '../operations.ts';
import type { TokenQueries } from './delivery-tokens.ts';
import type { Delivered } from './inbox.ts';
import type { Delivery, LogAppend, LogRow } from './log-append.ts';
import { logReadQueries } from './log-read.ts';
import { logTrimQueries } from './log-trim.ts';

/** Who was refused for want of a place asks again after so long (ms). */
const placeRetryMs = 10 * 60_000;
/** Mailboxes that one sweep removes, of up to `rows` rows each. */
const sweepMailboxes = 16;

interface MailboxRow extends LogRow {
  readonly nonce: Uint8Array;
  readonly user_id: string;
  readonly expires_ms: number;
}

export interface MailboxQueries extends Pick<
  Operations,
  'grantMailbox' | 'endMailbox' | 'fetchMailbox' | 'peekMailbox' | 'ackMailbox'
> {
  /** The log of a device's mailbox, if it has one now. */
  readonly logOf: (nowMs: number, rid: Uint8Array) => LogRow | undefined;
  /** Into a mailbox; `unknownDevice` where there is none. Writes nothing unless the outcome is `stored`. */
  deliver(
    nowMs: number,
    rid: Uint8Array,
    delivery: Delivery,
    token: Uint8Array | undefined,
  ): Delivered;
  sweep(nowMs: number): void;
}

export function mailboxQueries(
  context: QueryContext,
  logs: LogAppend,
  tokens: TokenQueries,
  storeId: () => Uint8Array,
): MailboxQueries {
  const { db, random } = context;
  const limits: MailboxLimits | undefined = context.limits.mailboxes;
  const reads = logReadQueries(db);
  const trims = logTrimQueries(db);
  const byRid = db.prepare<[Uint8Array], MailboxRow>(
    `SELECT id, key, head, acked, row_count, byte_count, nonce, user_id, expires_ms
       FROM log JOIN mailbox ON mailbox.log = log.id WHERE kind = 3 AND key = ?`,
  );
  const countAll = db
    .prepare<[number], number>('SELECT count(*) FROM mailbox WHERE expires_ms > ?')
    .pluck();
  const countOfDomain = db
    .prepare<[string, number], number>(
      'SELECT count(*) FROM mailbox WHERE domain = ? AND expires_ms > ?',
    )
    .pluck();
  const countOfUser = db
    .prepare<[string, number], number>(
      'SELECT count(*) FROM mailbox WHERE user_id = ? AND expires_ms > ?',
    )
    .pluck();
  const insertLog = db.prepare<[Uint8Array]>('INSERT INTO log (kind, key) VALUES (3, ?)');
  const insert = db.prepare<[number | bigint, Uint8Array, string, string, number]>(
    'INSERT INTO mailbox (log, nonce, user_id, domain, expires_ms) VALUES (?, ?, ?, ?, ?)',
  );
  const prolong = db.prepare<[string, string, number, number]>(
    'UPDATE mailbox SET user_id = ?, domain = ?, expires_ms = ? WHERE log = ?',
  );
  const over = db
    .prepare<[number, number], number>(
      'SELECT log FROM mailbox WHERE expires_ms <= ? ORDER BY expires_ms LIMIT (? + 0)',
    )
    .pluck();
  // A log has at most one entry for a payload; payloads first, as in an ack (a full disk).
  const remove = [
    `DELETE FROM payload WHERE refs = 1 AND id IN (SELECT payload FROM entry WHERE log = ?)`,
    `UPDATE payload SET refs = refs - 1 WHERE id IN (SELECT payload FROM entry WHERE log = ?)`,
    'DELETE FROM entry WHERE log = ?',
    'DELETE FROM tomb WHERE log = ?',
    'DELETE FROM token_set WHERE log = ?',
    'DELETE FROM mailbox WHERE log = ?',
    'DELETE FROM log WHERE id = ?',
  ].map((sql) => db.prepare<[number]>(sql));

  const purge = (log: number): void => {
    for (const statement of remove) statement.run(log);
  };

  /** The mailbox, unless its time is over. */
  function live(nowMs: number, rid: Uint8Array): MailboxRow | undefined {
    const mailbox = byRid.get(rid);
    return mailbox !== undefined && mailbox.expires_ms > nowMs ? mailbox : undefined;
  }

  function need(nowMs: number, rid: Uint8Array): MailboxRow {
    needBytes(rid, storeBounds.ridBytes, 'rid');
    const mailbox = live(nowMs, rid);
    if (mailbox !== undefined) return mailbox;
    throw new NotFoundError('UNKNOWN_DEVICE', 'the device has no mailbox here');
  }

  /** A cursor holds for one store and one making of the mailbox: rows of another have other numbers. */
  function idOf({ nonce }: MailboxRow): Uint8Array {
    const hash = createHash('sha256')
      .update('qpc-mailbox')
      .update(storeId())
      .update(nonce)
      .digest();
    return new Uint8Array(hash.subarray(0, storeBounds.storeIdBytes));
  }

  function requirePlace(nowMs: number, { userId, domain }: WantedMailbox): void {
    const { places, perDomain, perUser } = limits ?? { places: 0, perDomain: 0, perUser: 0 };
    const full =
      (countAll.get(nowMs) ?? 0) >= places
        ? `${places} mailboxes`
        : (countOfDomain.get(domain, nowMs) ?? 0) >= perDomain
          ? `${perDomain} mailboxes of one domain`
          : (countOfUser.get(userId, nowMs) ?? 0) >= perUser
            ? `${perUser} mailboxes of one user`
            : undefined;
    if (full === undefined) return;
    throw new ResourceExhaustedError('QUOTA', full, { retryAfterMs: placeRetryMs });
  }

  return {
    logOf: live,

    deliver(nowMs, rid, delivery, token) {
      const mailbox = live(nowMs, rid);
      if (mailbox === undefined || limits === undefined) return { outcome: 'unknownDevice' };
      const known = logs.receivedMs(mailbox.id, delivery.tag);
      if (known !== undefined) return { outcome: 'duplicate', receivedMs: known };
      context.needRoom();
      const size = delivery.payload.bytes.length;
      const isStranger = tokens.isStranger(mailbox.id, token);
      // A few rows of strangers are large enough to fill it.
      const bytesMax = isStranger ? limits.bytes / 2 : limits.bytes;
      const isFull =
        mailbox.row_count >= limits.rows ||
        mailbox.byte_count + size > bytesMax ||
        (isStranger && tokens.strangerRows(mailbox.id, limits.strangerRows) >= limits.strangerRows);
      if (isFull) return { outcome: 'queueFull', isTemporary: !isStranger };
      const ttlMs = Math.min(delivery.ttlMs, limits.lifetimeMs);
      // That this copy expires says nothing of the message: its sender is not told.
      const row = { ...delivery, ttlMs, isStranger, sender: undefined };
      logs.append(nowMs, mailbox, row);
      return { outcome: 'stored', receivedMs: nowMs };
    },

    grantMailbox(nowMs, wanted) {
      const { rid, userId, domain, tokenHashes } = wanted;
      needBytes(rid, storeBounds.ridBytes, 'rid');
      if (limits === undefined || limits.places === 0) {
        throw new FailedPreconditionError('FEATURE_OFF', 'this node keeps no mailboxes');
      }
      const known = byRid.get(rid);
      const mailbox = known !== undefined && known.expires_ms > nowMs ? known : undefined;
      const expiresMs = nowMs + limits.lifetimeMs;
      if (mailbox === undefined) context.needRoom();
      if (mailbox?.user_id !== userId) requirePlace(nowMs, wanted);
      if (mailbox !== undefined) {
        prolong.run(userId, domain, expiresMs, mailbox.id);
        tokens.put(mailbox.id, tokenHashes);
        return;
      }
      // What lay in one whose time is over does not come back to life.
      if (known !== undefined) purge(known.id);
      const log = Number(insertLog.run(rid).lastInsertRowid);
      insert.run(log, random.bytes(8), userId, domain, expiresMs);
      tokens.put(log, tokenHashes);
    },

    endMailbox(_nowMs, rid) {
      needBytes(rid, storeBounds.ridBytes, 'rid');
      const mailbox = byRid.get(rid);
      if (mailbox !== undefined) purge(mailbox.id);
    },

    fetchMailbox(nowMs, rid, after, maxRows, maxBytes) {
      const mailbox = need(nowMs, rid);
      const position = { after, known: Math.max(after, mailbox.acked) };
      return { ...reads.fetch(mailbox, position, maxRows, maxBytes), storeId: idOf(mailbox) };
    },

    peekMailbox(nowMs, rid, after, maxRows) {
      const mailbox = need(nowMs, rid);
      const position = { after, known: Math.max(after, mailbox.acked) };
      return { ...reads.peek(mailbox, position, maxRows), storeId: idOf(mailbox) };
    },

    ackMailbox(nowMs, rid, id, upTo) {
      needSeq(upTo, 'upTo');
      const mailbox = need(nowMs, rid);
      const details = idOf(mailbox);
      if (!sameBytes(id, details)) {
        throw new DataLossError('STORE_CHANGED', 'cursor of another mailbox: start at 0', {
          details,
        });
      }
      if (upTo > mailbox.head) {
        throw new FailedPreconditionError('BAD_CURSOR', `upTo: ${upTo}, head is ${mailbox.head}`);
      }
      if (upTo > mailbox.acked) trims.trim(nowMs, mailbox.id, upTo);
    },

    sweep(nowMs) {
      for (const log of over.all(nowMs, sweepMailboxes)) purge(log);
    },
  };
}
