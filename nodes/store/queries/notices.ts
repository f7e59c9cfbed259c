/**
 * Notices: rows of kind 4 by which a device learns that something it sent bounced, expired or waits
 * (docs: protocol/delivery). Written in the transaction of what they tell, so that a row of an
 * outbox or inbox is gone if and only if its sender's inbox says so.
 */
import { createHash } from 'node:crypto';
import { messageTag, RowKind } from '@quicprochat/proto';
import {
  create,
  NoticeSchema,
  NoticeType,
  toBinary,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { storeBounds } from '../bounds.ts';
import type { QueryContext } from '../operations.ts';
import type { LogAppend } from './log-append.ts';
import { IncomingPayload } from './payloads.ts';
import type { PeerQueries } from './peers.ts';

/** A message that ends without having reached a device. */
export interface LostMessage {
  /** Log of the sending device; null: nobody is to be told. */
  readonly sender: number | null;
  readonly mid: Uint8Array;
  readonly tag: Uint8Array;
  readonly rid: Uint8Array;
  /** Home of the device; empty for one of this node. */
  readonly domain: string;
  /** When this node took the message. */
  readonly createdMs: number;
}

export interface NoticeQueries {
  bounced(nowMs: number, lost: LostMessage, reason: string): void;
  expired(nowMs: number, lost: LostMessage): void;
  /** The device's rows for this peer wait; told once in an outage that lasts long enough. */
  waits(nowMs: number, domain: string, sender: number): void;
  /** Tells the devices whose rows wait for peers that are away; bounded work per call. */
  tellWaiting(nowMs: number): void;
  /**
   * Tells the devices that sent to peers which lost what they had confirmed, all of a peer's losses in an hour at
   * once: what was passed on before a notice is read is sent again. Bounded work per call.
   */
  tellRestored(nowMs: number): void;
}

interface LostPeer {
  readonly id: number;
  readonly domain: string;
  readonly lost_ms: number;
  readonly lost_cursor: number;
}

interface AwayPeer {
  readonly id: number;
  readonly domain: string;
  readonly failing_since_ms: number;
  readonly delay_cursor: number;
}

export function noticeQueries(
  { db, limits }: QueryContext,
  logs: LogAppend,
  peers: PeerQueries,
): NoticeQueries {
  const heldNotices = db
    .prepare<[number, number], number>(
      'SELECT count(*) FROM (SELECT 1 FROM entry WHERE log = ? AND kind = 4 LIMIT (? + 0))',
    )
    .pluck();
  const isTold = db
    .prepare<[number, number], number>('SELECT 1 FROM delay_told WHERE peer = ? AND sender = ?')
    .pluck();
  const addTold = db.prepare<[number, number]>(
    'INSERT INTO delay_told (peer, sender) VALUES (?, ?)',
  );
  const awayPeers = db.prepare<[number], AwayPeer>(
    `SELECT id, domain, failing_since_ms, delay_cursor FROM peer
      WHERE failing_since_ms > 0 AND failing_since_ms <= ?`,
  );
  const nextSender = db
    .prepare<[number, number], number | null>(
      'SELECT min(sender) FROM outbox WHERE peer = ? AND sender > ?',
    )
    .pluck();
  const moveCursor = db.prepare<[number, number]>('UPDATE peer SET delay_cursor = ? WHERE id = ?');
  // A clock that went back makes nobody wait longer than the whole time.
  const beginTellingLoss = db.prepare<[Readonly<Record<string, number>>]>(
    `UPDATE peer SET is_loss_untold = 0, lost_cursor = 0, loss_told_next_ms = :restMs +
        CASE WHEN loss_told_next_ms BETWEEN :nowMs AND :nowMs + :aheadMs THEN loss_told_next_ms ELSE :nowMs END
      WHERE is_loss_untold = 1 AND lost_cursor IS NULL
        AND loss_told_next_ms NOT BETWEEN :nowMs + :aheadMs + 1 AND :nowMs + :aheadMs + :restMs`,
  );
  const lostPeers = db.prepare<[], LostPeer>(
    'SELECT id, domain, lost_ms, lost_cursor FROM peer WHERE lost_cursor IS NOT NULL',
  );
  const nextPastSender = db
    .prepare<[number, number], number | null>(
      'SELECT min(sender) FROM outbox_tomb WHERE peer = ? AND sender > ?',
    )
    .pluck();
  const moveLostCursor = db.prepare<[number | null, number]>(
    'UPDATE peer SET lost_cursor = ? WHERE id = ?',
  );
  const waitingMids = db
    .prepare<[number, number, number], Uint8Array>(
      'SELECT mid FROM outbox WHERE peer = ? AND sender = ? ORDER BY id LIMIT (? + 0)',
    )
    .pluck();

  function tell(
    nowMs: number,
    sender: number,
    notice: MessageInitShape<typeof NoticeSchema>,
    mid: Uint8Array,
  ): void {
    const log = logs.byId(sender);
    // The device is gone, and with it everything that it sent.
    if (log === undefined) return;
    const payload = toBinary(NoticeSchema, create(NoticeSchema, notice));
    const tag = messageTag(mid, payload);
    // A node that was restored from an older copy tells the same once more.
    if (logs.receivedMs(log.id, tag) !== undefined) return;
    const { noticesPerInbox: max, noticeTtlMs: ttlMs } = storeBounds;
    // Beyond the bound there is a gap instead: told as well, only not in detail.
    if ((heldNotices.get(log.id, max) ?? 0) >= max) return logs.skip(log);
    const kind = RowKind.Notice;
    logs.append(nowMs, log, { kind, mid, tag, payload: new IncomingPayload(payload), ttlMs });
  }

  function tellLost(nowMs: number, lost: LostMessage, type: NoticeType, reason: string): void {
    const { sender, mid, tag, rid, domain, createdMs } = lost;
    if (sender === null) return;
    const notice = { type, mids: [mid], tag, rid, domain, reason };
    tell(nowMs, sender, notice, noticeMid(type, tag, rid, domain, createdMs));
  }

  function tellWait(nowMs: number, peer: Omit<AwayPeer, 'delay_cursor'>, sender: number): void {
    if (isTold.get(peer.id, sender) !== undefined) return;
    addTold.run(peer.id, sender);
    const { domain, failing_since_ms: sinceMs } = peer;
    const mids = waitingMids.all(peer.id, sender, storeBounds.midsPerNotice);
    const type = NoticeType.DELAYED;
    const none = new Uint8Array(0);
    const mid = noticeMid(type, none, none, domain, sinceMs);
    tell(nowMs, sender, { type, mids, domain, sinceMs: BigInt(sinceMs) }, mid);
  }

  function tellLoss(nowMs: number, { domain, lost_ms: sinceMs }: LostPeer, sender: number): void {
    const type = NoticeType.RESTORED;
    const none = new Uint8Array(0);
    const mid = noticeMid(type, none, none, domain, sinceMs);
    tell(nowMs, sender, { type, domain, sinceMs: BigInt(sinceMs) }, mid);
  }

  return {
    bounced(nowMs, lost, reason) {
      tellLost(nowMs, lost, NoticeType.BOUNCE, reason);
    },

    expired(nowMs, lost) {
      tellLost(nowMs, lost, NoticeType.EXPIRED, '');
    },

    waits(nowMs, domain, sender) {
      const peer = peers.peer(domain);
      if (peer === undefined || peer.failing_since_ms === 0) return;
      if (peer.failing_since_ms > nowMs - limits.delayedAfterMs) return;
      tellWait(nowMs, { ...peer, domain }, sender);
    },

    tellWaiting(nowMs) {
      let left: number = storeBounds.sweepRows;
      for (const peer of awayPeers.all(nowMs - limits.delayedAfterMs)) {
        // From device to device, and never back: who sends later is told when that row comes.
        for (let after = peer.delay_cursor; left > 0; left -= 1) {
          const sender = nextSender.get(peer.id, after) ?? undefined;
          if (sender === undefined) break;
          tellWait(nowMs, peer, sender);
          moveCursor.run(sender, peer.id);
          after = sender;
        }
      }
    },

    tellRestored(nowMs) {
      const { lossToldMs: restMs, lossesToldAtOnce } = storeBounds;
      beginTellingLoss.run({ nowMs, restMs, aheadMs: (lossesToldAtOnce - 1) * restMs });
      let left: number = storeBounds.sweepRows;
      for (const peer of lostPeers.all()) {
        for (let after = peer.lost_cursor; left > 0; left -= 1) {
          const sender = nextPastSender.get(peer.id, after) ?? undefined;
          if (sender !== undefined) tellLoss(nowMs, peer, sender);
          moveLostCursor.run(sender ?? null, peer.id);
          if (sender === undefined) break;
          after = sender;
        }
      }
    },
  };
}

/** The same for the same loss, also when a restored node finds it a second time (16 bytes). */
function noticeMid(
  type: NoticeType,
  tag: Uint8Array,
  rid: Uint8Array,
  domain: string,
  atMs: number,
): Uint8Array {
  const digest = createHash('sha256')
    .update(`qpc-notice ${type} ${atMs} ${domain} `)
    .update(tag)
    .update(rid)
    .digest();
  return new Uint8Array(digest.subarray(0, storeBounds.midBytes));
}
