/**
 * The inbox of a device: an append-only log with gapless seq, tag dedup, quotas, cumulative ack
 * and expiry (docs: protocol/delivery). Rows of other nodes come in through `deliver`.
 */
import {
  FailedPreconditionError,
  messageTag,
  NotFoundError,
  PayloadTooLargeError,
  ResourceExhaustedError,
  RowKind,
  Status,
} from '@quicprochat/proto';
import { needBytes, needSeq, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import type { TargetOutcome } from '../message-store.ts';
import type { TokenQueries } from './delivery-tokens.ts';
import type { Delivery, LogAppend, LogRow } from './log-append.ts';
import { logReadQueries } from './log-read.ts';
import { logTrimQueries } from './log-trim.ts';
import type { MailboxQueries } from './mailboxes.ts';
import type { NoticeQueries } from './notices.ts';
import { IncomingPayload, type PayloadQueries } from './payloads.ts';
import type { ReturnReports } from './return-slips.ts';

interface ExpiredRow {
  readonly id: number;
  readonly log: number;
  readonly mid: Uint8Array;
  readonly sender: number | null;
  readonly tag: Uint8Array;
  readonly payload: number;
  readonly size: number;
  readonly received_ms: number;
  readonly slip: Uint8Array | null;
  readonly peer_domain: string | null;
}

export type Delivered =
  | { readonly outcome: 'stored' | 'duplicate'; readonly receivedMs: number }
  | { readonly outcome: 'unknownDevice' }
  /** `isTemporary`: the sender is no stranger and may try again. */
  | { readonly outcome: 'queueFull'; readonly isTemporary: boolean };

export interface InboxQueries extends Pick<Operations, 'enqueue' | 'fetch' | 'peek' | 'ack'> {
  /** Writes nothing unless the outcome is `stored`. */
  deliver(
    nowMs: number,
    rid: Uint8Array,
    delivery: Delivery,
    token: Uint8Array | undefined,
  ): Delivered;
  /** As `deliver`, also into a mailbox: for what no peer brings. */
  deliverHere: InboxQueries['deliver'];
  /** For a target of a batch. */
  outcomeOf(delivered: Delivered, tag: Uint8Array): TargetOutcome;
  sweep(nowMs: number): void;
}

export function inboxQueries(
  context: QueryContext,
  payloads: PayloadQueries,
  logs: LogAppend,
  notices: NoticeQueries,
  tokens: TokenQueries,
  reports: Pick<ReturnReports, 'send'>,
  mailboxes: Pick<MailboxQueries, 'deliver'>,
): InboxQueries {
  const { db, limits } = context;
  const reads = logReadQueries(db);
  const trims = logTrimQueries(db);
  const expired = db.prepare<[number, number], ExpiredRow>(
    `SELECT entry.id, log, mid, sender, tag, payload, size, received_ms, slip,
            peer.domain AS peer_domain
       FROM entry LEFT JOIN peer ON peer.id = entry.peer
      WHERE expires_ms <= ? ORDER BY expires_ms LIMIT (? + 0)`,
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
    `DELETE FROM tomb WHERE id IN (SELECT id FROM tomb ORDER BY id LIMIT (? + 0))
        AND (gone_ms <= ? OR gone_ms > ?)`,
  );

  function needLog(rid: Uint8Array): LogRow {
    needBytes(rid, storeBounds.ridBytes, 'rid');
    const log = logs.byKey(rid);
    if (log === undefined) throw new NotFoundError('UNKNOWN_DEVICE', 'rid is not of this node');
    return log;
  }

  function deliver(
    nowMs: number,
    rid: Uint8Array,
    delivery: Delivery,
    token: Uint8Array | undefined,
  ): Delivered {
    const log = logs.byKey(rid);
    if (log === undefined) return { outcome: 'unknownDevice' };
    const known = logs.receivedMs(log.id, delivery.tag);
    if (known !== undefined) return { outcome: 'duplicate', receivedMs: known };
    const size = delivery.payload.bytes.length;
    // A commit that was accepted is brought: without it nothing that follows can be read.
    if (delivery.kind === RowKind.GroupControl) context.needLastRoom();
    else context.needRoom();
    const isStranger = tokens.isStranger(log.id, token);
    const isFull =
      log.row_count >= limits.inboxRows ||
      log.byte_count + size > limits.inboxBytes ||
      (isStranger && tokens.strangerRows(log.id, limits.strangerRows) >= limits.strangerRows);
    if (isFull) return { outcome: 'queueFull', isTemporary: !isStranger };
    logs.append(nowMs, log, { ...delivery, isStranger });
    return { outcome: 'stored', receivedMs: nowMs };
  }

  const deliverHere: InboxQueries['deliver'] = (nowMs, rid, delivery, token) => {
    const delivered = deliver(nowMs, rid, delivery, token);
    if (delivered.outcome !== 'unknownDevice') return delivered;
    return mailboxes.deliver(nowMs, rid, delivery, token);
  };

  function outcomeOf(delivered: Delivered, tag: Uint8Array): TargetOutcome {
    switch (delivered.outcome) {
      case 'unknownDevice':
        return { outcome: 'refused', status: Status.NotFound, reason: 'UNKNOWN_DEVICE' };
      case 'queueFull': {
        const refused = { status: Status.ResourceExhausted, reason: 'QUEUE_FULL' } as const;
        const retryAfterMs = delivered.isTemporary ? { retryAfterMs: storeBounds.fullRetryMs } : {};
        return { outcome: 'refused', ...refused, ...retryAfterMs };
      }
      default:
        return { ...delivered, tag };
    }
  }

  return {
    deliver,
    deliverHere,
    outcomeOf,

    enqueue(nowMs, { rid, kind, mid, payload, ttlMs, sender, token }) {
      needBytes(rid, storeBounds.ridBytes, 'rid');
      needBytes(mid, storeBounds.midBytes, 'mid');
      if (payload.length > storeBounds.payloadBytes) {
        throw new PayloadTooLargeError(
          `payload: ${payload.length} bytes, at most ${storeBounds.payloadBytes}`,
        );
      }
      const tag = messageTag(mid, payload);
      const senderLog = sender && logs.byKey(sender)?.id;
      const incoming = new IncomingPayload(payload);
      const delivery = { kind, mid, tag, payload: incoming, ttlMs, sender: senderLog };
      const delivered = deliverHere(nowMs, rid, delivery, token);
      switch (delivered.outcome) {
        case 'unknownDevice':
          throw new NotFoundError('UNKNOWN_DEVICE', 'rid is not of this node');
        case 'queueFull':
          // Without a time: for good, as far as this sender is concerned.
          throw new ResourceExhaustedError(
            'QUEUE_FULL',
            'the inbox is full',
            delivered.isTemporary ? { retryAfterMs: storeBounds.fullRetryMs } : {},
          );
        default:
          return { outcome: delivered.outcome, tag, receivedMs: delivered.receivedMs };
      }
    },

    fetch(_nowMs, rid, after, maxRows, maxBytes) {
      const log = needLog(rid);
      return reads.fetch(log, { after, known: Math.max(after, log.acked) }, maxRows, maxBytes);
    },

    peek(_nowMs, rid, after, maxRows) {
      const log = needLog(rid);
      return reads.peek(log, { after, known: Math.max(after, log.acked) }, maxRows);
    },

    ack(nowMs, rid, upTo) {
      needSeq(upTo, 'upTo');
      const log = needLog(rid);
      if (upTo > log.head) {
        throw new FailedPreconditionError('BAD_CURSOR', `upTo: ${upTo}, head is ${log.head}`);
      }
      if (upTo > log.acked) trims.trim(nowMs, log.id, upTo);
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
          const { slip, peer_domain: peer } = row;
          if (slip !== null && peer !== null) reports.send(nowMs, { peer, mid, tag, rid, slip });
        }
      }
      pruneTombs.run(storeBounds.sweepRows, nowMs - limits.tombstoneMs, nowMs + limits.tombstoneMs);
    },
  };
}
