/**
 * The receiving end of a peer's streams: payloads, entries, verdicts, cursor and chain of a batch
 * are one transaction (docs: protocol/federation), so a retry inserts nothing twice and a lost
 * reply loses no reject.
 */
import {
  DataLossError,
  InvalidArgumentError,
  messageTag,
  ResourceExhaustedError,
  RowKind,
} from '@quicprochat/proto';
import type { LaneName, RelayItemIn, Reject } from '@quicprochat/federation';
import { needBytes, needSeq, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import { emptyChain, nextChain } from './chain.ts';
import type { ChannelQueries } from './channels.ts';
import type { Delivered, InboxQueries } from './inbox.ts';
import { IncomingPayload } from './payloads.ts';
import { laneNumbers, type PeerQueries } from './peers.ts';
import type { ReturnReports } from './return-slips.ts';

interface CursorRow {
  readonly lane: number;
  readonly stream_id: Uint8Array;
  readonly cursor: number;
  readonly chain: Uint8Array;
}

interface RejectRow {
  readonly seq: number;
  readonly rid: Uint8Array;
  readonly reason: string;
  readonly temporary: number;
}

type Verdict = Pick<Reject, 'reason' | 'temporary'>;

const laneNames = new Map<number, LaneName>([
  [laneNumbers.control, 'control'],
  [laneNumbers.bulk, 'bulk'],
]);

export function relayInboxQueries(
  { db, needRoom }: QueryContext,
  inbox: InboxQueries,
  channels: ChannelQueries,
  reports: Pick<ReturnReports, 'take'>,
  peers: PeerQueries,
): Pick<Operations, 'inboundStreams' | 'applyRelay'> {
  const cursorsOfPeer = db.prepare<[number], CursorRow>(
    'SELECT lane, stream_id, cursor, chain FROM peer_cursor WHERE peer = ? ORDER BY lane',
  );
  const cursorOfLane = db.prepare<[number, number], CursorRow>(
    'SELECT lane, stream_id, cursor, chain FROM peer_cursor WHERE peer = ? AND lane = ?',
  );
  const putCursor = db.prepare<[number, number, Uint8Array, number, Uint8Array]>(
    `INSERT OR REPLACE INTO peer_cursor (peer, lane, stream_id, cursor, chain)
     VALUES (?, ?, ?, ?, ?)`,
  );
  const settleRejects = db.prepare<[number, number, number]>(
    'DELETE FROM peer_reject WHERE peer = ? AND lane = ? AND seq <= ?',
  );
  const dropRejects = db.prepare<[number, number]>(
    'DELETE FROM peer_reject WHERE peer = ? AND lane = ?',
  );
  const openRejectCount = db
    .prepare<[number, number, number], number>(
      'SELECT count(*) FROM peer_reject WHERE peer = ? AND lane = ? AND seq > ?',
    )
    .pluck();
  const openRejects = db.prepare<[number, number, number], RejectRow>(
    `SELECT seq, rid, reason, temporary FROM peer_reject
      WHERE peer = ? AND lane = ? AND seq > ? ORDER BY seq, rid`,
  );
  // A device that an item names twice gets one verdict.
  const insertReject = db.prepare<[number, number, number, Uint8Array, string, number]>(
    `INSERT OR IGNORE INTO peer_reject (peer, lane, seq, rid, reason, temporary)
     VALUES (?, ?, ?, ?, ?, ?)`,
  );

  function deliver(
    nowMs: number,
    { id: peer, domain }: { readonly id: number; readonly domain: string },
    item: RelayItemIn,
    tag: Uint8Array,
    reject: (rid: Uint8Array, verdict: Verdict) => void,
  ): void {
    if (item.channel !== undefined) {
      for (const cid of item.rids) {
        const verdict = item.refused ?? channels.relay(nowMs, domain, cid, item, tag);
        if (verdict !== undefined) reject(cid, verdict);
      }
      return;
    }
    const { kind, mid, ttlMs } = item;
    if (kind === RowKind.ExpiredReport && item.refused === undefined) {
      reports.take(nowMs, domain, item.payload);
      return;
    }
    const payload = new IncomingPayload(item.payload);
    for (const [index, rid] of item.rids.entries()) {
      const token = item.tokens?.[index];
      const slip = item.slips?.[index];
      const from = slip === undefined || slip.length === 0 ? undefined : { peer, slip };
      const delivery = { kind, mid, tag, ttlMs, payload, from };
      const verdict = item.refused ?? verdictOf(inbox.deliver(nowMs, rid, delivery, token));
      if (verdict !== undefined) reject(rid, verdict);
    }
  }

  return {
    inboundStreams(_nowMs, domain) {
      const peer = peers.peer(domain);
      if (peer === undefined) return [];
      return cursorsOfPeer.all(peer.id).flatMap(({ lane, stream_id, cursor, chain }) => {
        const name = laneNames.get(lane);
        return name === undefined ? [] : [{ lane: name, streamId: stream_id, cursor, chain }];
      });
    },

    applyRelay(nowMs, domain, { lane: laneName, streamId, acked, firstSeq, items }) {
      needBytes(streamId, storeBounds.streamIdBytes, 'streamId');
      needSeq(firstSeq, 'firstSeq');
      needSeq(acked, 'acked');
      for (const item of items) needItem(item);
      const lane = laneNumbers[laneName];
      const known = peers.peer(domain);
      const held = known && cursorOfLane.get(known.id, lane);
      const isCurrent = held !== undefined && Buffer.compare(held.stream_id, streamId) === 0;
      const start = isCurrent ? held.cursor : 0;
      if (firstSeq < 1) throw new InvalidArgumentError('BAD_FIELD', 'firstSeq: 0, need 1 or more');
      if (firstSeq > start + 1) {
        throw new DataLossError('STREAM_GAP', `firstSeq: ${firstSeq}, the cursor is ${start}`);
      }
      const fresh = items.slice(start + 1 - firstSeq);
      // Each of its devices may be refused, and every verdict that is not settled goes with every reply.
      const copies = fresh.reduce((sum, { rids }) => sum + rids.length, 0);
      const open = isCurrent && known ? (openRejectCount.get(known.id, lane, acked) ?? 0) : 0;
      const isCrowded = open > 0 && copies > 0 && open + copies > storeBounds.rejectsPerLane;
      if (fresh.length > 0) needRoom();
      if (isCrowded) {
        throw new ResourceExhaustedError('OVERLOADED', 'too many rejects are not settled yet');
      }

      const peer = known?.id ?? peers.ensurePeer(domain);
      if (isCurrent) settleRejects.run(peer, lane, acked);
      else dropRejects.run(peer, lane);
      let cursor = start;
      let chain: Uint8Array = isCurrent ? held.chain : emptyChain();
      for (const item of fresh) {
        const tag = messageTag(item.mid, item.payload);
        const seq = cursor + 1;
        deliver(nowMs, { id: peer, domain }, item, tag, (rid, { reason, temporary }) => {
          insertReject.run(peer, lane, seq, rid, reason, temporary ? 1 : 0);
        });
        cursor = seq;
        chain = nextChain(chain, tag);
      }
      if (fresh.length > 0 || !isCurrent) putCursor.run(peer, lane, streamId, cursor, chain);
      const rejects = openRejects
        .all(peer, lane, acked)
        .map((row): Reject => ({ ...row, temporary: row.temporary === 1 }));
      return { cursor, chain, rejects };
    },
  };
}

function needItem({ kind, mid, payload, rids, refused }: RelayItemIn): void {
  needBytes(mid, storeBounds.midBytes, 'mid');
  for (const rid of rids) needBytes(rid, storeBounds.ridBytes, 'rid');
  if (refused !== undefined) return;
  if (payload.length > storeBounds.payloadBytes) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      `payload: ${payload.length} bytes, at most ${storeBounds.payloadBytes}`,
    );
  }
  if (!(kind >= 0 && kind <= 255)) {
    throw new InvalidArgumentError('BAD_FIELD', `kind: ${kind}, need 0 to 255`);
  }
}

function verdictOf(delivered: Delivered): Verdict | undefined {
  switch (delivered.outcome) {
    case 'stored':
    case 'duplicate':
      return undefined;
    case 'unknownDevice':
      return { reason: 'UNKNOWN_DEVICE', temporary: false };
    case 'queueFull':
      return { reason: 'QUEUE_FULL', temporary: delivered.isTemporary };
  }
}
