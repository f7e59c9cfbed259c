/**
 * The outbox of a peer: two streams of rows with gapless seq and a hash chain, and what happens to
 * rows when the peer's cursor passes them, or refuses them (docs: protocol/federation). Rows that
 * leave a stream otherwise are in outbox-exits.ts.
 */
import {
  InvalidArgumentError,
  messageTag,
  PayloadTooLargeError,
  RowKind,
  UnavailableError,
} from '@quicprochat/proto';
import type { OutboundStream, OutboxRow } from '@quicprochat/federation';
import { needBytes, needSeq, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import { emptyChain } from './chain.ts';
import { deadLetterQueries } from './dead-letters.ts';
import type { LogAppend } from './log-append.ts';
import type { NoticeQueries } from './notices.ts';
import { outboxExitQueries, splitRids } from './outbox-exits.ts';
import { outboxShares } from './outbox-shares.ts';
import { returnReports, type ReturnReports, type ReturnSlips } from './return-slips.ts';
import { joinTokens, splitTokens } from './row-tokens.ts';
import { streamQueries, type StreamRow } from './outbox-streams.ts';
import { IncomingPayload, type PayloadQueries } from './payloads.ts';
import { laneNumbers, type PeerQueries } from './peers.ts';

interface DatedRids {
  readonly rids: Uint8Array;
  readonly ms: number;
}

interface ReadRow {
  readonly seq: number;
  readonly kind: number;
  readonly mid: Uint8Array;
  readonly rids: Uint8Array;
  readonly payload: number;
  readonly size: number;
  readonly chain: Uint8Array;
  readonly expires_ms: number;
  readonly created_ms: number;
  readonly tag: Uint8Array;
  readonly sender: number | null;
  readonly tokens: Uint8Array | null;
  readonly channel: Uint8Array | null;
}

/** A row on its way into an outbox. */
export interface NewOutboxRow {
  /** Device keys, or the cid of a channel (32 bytes each, concatenated). */
  readonly rids: Uint8Array;
  readonly kind: number;
  readonly mid: Uint8Array;
  readonly tag: Uint8Array;
  readonly payload: IncomingPayload;
  readonly ttlMs: number;
  /** Delivery tokens, 16 bytes for each of `rids`, zeros for none; undefined: none at all. */
  readonly tokens?: Uint8Array | undefined;
  /** Log of the sending device of this node. */
  readonly sender?: number | undefined;
  /** Of a row for a channel: epoch (8 bytes, big-endian) and signature (64 bytes, or none). */
  readonly channel?: Uint8Array | undefined;
  /** Of a Welcome for a committer elsewhere: its node, which is told what does not arrive (`joinSlips`). */
  readonly returns?: { readonly to: string; readonly slips: Uint8Array } | undefined;
}

export interface OutboxAppend {
  /** When the peer's device was written to with this tag, as far as that is remembered. */
  receivedMs(
    domain: string,
    tag: Uint8Array,
    rid: Uint8Array,
    passedOnSinceMs?: number,
  ): number | undefined;
  /**
   * Why a new row of `size` payload bytes is not taken for the peer now; undefined: it is. `sender`: the log of the
   * device of this node that it comes from.
   */
  refusal(nowMs: number, domain: string, size: number, sender?: number): string | undefined;
  /** Writes the row, unless one with the same tag and rids is here or was: when that came. */
  append(nowMs: number, domain: string, row: NewOutboxRow): number | undefined;
}

export type OutboxOperations = Pick<
  Operations,
  | 'enqueueRemote'
  | 'outboundStream'
  | 'readOutbox'
  | 'outboxChainAt'
  | 'settleOutbox'
  | 'restartOutbound'
  | 'peersWithRows'
  | 'requeueDue'
  | 'outboxPeers'
  | 'deadLetters'
  | 'retryDead'
  | 'dropDead'
  | 'bouncePeer'
>;

export function outboxQueries(
  context: QueryContext,
  payloads: PayloadQueries,
  peers: PeerQueries,
  logs: LogAppend,
  notices: NoticeQueries,
  slips: ReturnSlips,
): OutboxOperations & OutboxAppend & { sweep(nowMs: number): void; reports: ReturnReports } {
  const { db, limits } = context;
  const streams = streamQueries(context);
  const shares = outboxShares(context);
  const deadLetters = deadLetterQueries(context, payloads, peers, streams);
  const reports = returnReports(slips, { append, refusal }, notices);
  const exits = outboxExitQueries(context, payloads, peers, streams, deadLetters, notices, reports);
  const datesOfRows = db.prepare<[number, Uint8Array], DatedRids>(
    'SELECT rids, created_ms AS ms FROM outbox WHERE peer = ? AND tag = ?',
  );
  const datesOfTombs = db.prepare<[number, Uint8Array, number], DatedRids>(
    'SELECT rids, received_ms AS ms FROM outbox_tomb WHERE peer = ? AND tag = ? AND gone_ms > ?',
  );
  const insertRow = db.prepare<
    [Readonly<Record<string, number | bigint | string | Uint8Array | null>>]
  >(
    `INSERT INTO outbox (peer, lane, seq, kind, mid, tag, rids, payload, size, chain, created_ms,
                         expires_ms, dead_ms, tokens, sender, channel, return_to, return_slips)
     VALUES (:peer, :lane, :seq, :kind, :mid, :tag, :rids, :payload, :size, :chain, :createdMs,
             :expiresMs, :deadMs, :tokens, :sender, :channel, :returnTo, :returnSlips)`,
  );
  const rowsAfter = db.prepare<[number, number, number, number], ReadRow>(
    `SELECT seq, kind, mid, rids, payload, size, chain, created_ms, expires_ms, tokens, channel,
            tag, sender FROM outbox
      WHERE peer = ? AND lane = ? AND seq > ? ORDER BY seq LIMIT (? + 0)`,
  );
  const payloadBytes = db
    .prepare<[number], Uint8Array>('SELECT bytes FROM payload WHERE id = ?')
    .pluck();
  const chainAt = db
    .prepare<[number, number, number], Uint8Array>(
      'SELECT chain FROM outbox WHERE peer = ? AND lane = ? AND seq = ?',
    )
    .pluck();
  const domainsWithRows = db
    .prepare<[], string>(
      `SELECT domain FROM peer
        WHERE EXISTS (SELECT 1 FROM outbox WHERE peer = peer.id AND lane = 1 AND seq > 0)
           OR EXISTS (SELECT 1 FROM outbox WHERE peer = peer.id AND lane = 2 AND seq > 0)
        ORDER BY domain`,
    )
    .pluck();

  function refusal(
    nowMs: number,
    domain: string,
    size: number,
    sender?: number,
  ): string | undefined {
    const peer = peers.peer(domain);
    if (peer === undefined) return undefined;
    const free = {
      rows: limits.outboxRowsPerPeer - peer.row_count,
      bytes: limits.outboxBytesPerPeer - peer.byte_count,
    };
    if (free.rows <= 0 || size > free.bytes) return 'the outbox of that domain is full';
    if (sender !== undefined && shares.isBeyond(peer.id, sender, free, size))
      return 'too much of this device waits for that domain';
    const isLost = peer.failing_since_ms > 0 && nowMs - peer.failing_since_ms >= limits.outboxAgeMs;
    return isLost ? 'that domain is unreachable for too long' : undefined;
  }

  /** A row may be for many devices, and a retry for one of them, or for others beside it. */
  function receivedMs(
    domain: string,
    tag: Uint8Array,
    rid: Uint8Array,
    passedOnSinceMs = 0,
  ): number | undefined {
    const known = peers.peer(domain);
    if (known === undefined) return undefined;
    const isFor = ({ rids }: DatedRids): boolean =>
      splitRids(rids).some((one) => Buffer.compare(one, rid) === 0);
    return (
      datesOfRows.all(known.id, tag).find(isFor) ??
      datesOfTombs.all(known.id, tag, Math.max(passedOnSinceMs, known.lost_ms)).find(isFor)
    )?.ms;
  }

  function append(nowMs: number, domain: string, row: NewOutboxRow): number | undefined {
    const { rids, kind, mid, tag, payload, ttlMs, tokens, sender, channel, returns } = row;
    const known = receivedMs(domain, tag, rids, nowMs - storeBounds.repeatMs);
    if (known !== undefined) return known;
    const size = payload.bytes.length;
    deadLetters.makeRoom(domain, size);
    const peer = peers.ensurePeer(domain);
    const lane = kind === RowKind.Envelope ? laneNumbers.bulk : laneNumbers.control;
    insertRow.run({
      peer,
      lane,
      ...streams.append(peer, lane, tag),
      kind,
      mid,
      tag,
      rids,
      payload: payloads.refer(payload),
      size,
      createdMs: nowMs,
      expiresMs: nowMs + ttlMs,
      deadMs: nowMs + Math.min(ttlMs, limits.outboxAgeMs),
      tokens: tokens ?? null,
      sender: sender ?? null,
      channel: channel ?? null,
      returnTo: returns?.to ?? null,
      returnSlips: returns?.slips ?? null,
    });
    peers.count(peer, 1, size);
    if (sender !== undefined) notices.waits(nowMs, domain, sender);
    return undefined;
  }

  /** Channels have no receipts of single devices, and reports are about nothing of ours. */
  function slipsOf(
    peer: string,
    { mid, tag, sender, created_ms: createdMs, kind, channel }: ReadRow,
    rids: readonly Uint8Array[],
  ): readonly Uint8Array[] {
    if (sender === null || channel !== null || kind === RowKind.ExpiredReport) return [];
    return rids.flatMap((rid) => slips.seal({ peer, mid, tag, rid }, { sender, createdMs }) ?? []);
  }

  return {
    receivedMs,
    refusal,
    append,
    reports,

    enqueueRemote(nowMs, domain, { rid, kind, mid, payload, ttlMs, sender, token }) {
      needBytes(rid, storeBounds.ridBytes, 'rid');
      needBytes(mid, storeBounds.midBytes, 'mid');
      if (payload.length > storeBounds.payloadBytes) {
        throw new PayloadTooLargeError(
          `payload: ${payload.length} bytes, at most ${storeBounds.payloadBytes}`,
        );
      }
      const tag = messageTag(mid, payload);
      const known = receivedMs(domain, tag, rid, nowMs - storeBounds.repeatMs);
      if (known !== undefined) return { outcome: 'duplicate', tag, receivedMs: known };
      context.needRoom();
      const senderLog = sender && logs.byKey(sender)?.id;
      const refused = refusal(nowMs, domain, payload.length, senderLog);
      if (refused !== undefined) throw new UnavailableError('PEER_UNREACHABLE', refused);
      append(nowMs, domain, {
        rids: rid,
        kind,
        mid,
        tag,
        payload: new IncomingPayload(payload),
        ttlMs,
        tokens: joinTokens([token]),
        sender: senderLog,
      });
      return { outcome: 'stored', tag, receivedMs: nowMs };
    },

    outboundStream(_nowMs, domain, lane) {
      return outbound(streams.ensure(peers.ensurePeer(domain), laneNumbers[lane]));
    },

    readOutbox(nowMs, domain, lane, after, maxItems, maxBytes) {
      needSeq(after, 'after');
      const peer = peers.peer(domain);
      const rows: OutboxRow[] = [];
      if (peer === undefined) return rows;
      let bytes = 0;
      for (const row of rowsAfter.all(peer.id, laneNumbers[lane], after, maxItems)) {
        bytes += row.size;
        if (rows.length > 0 && bytes > maxBytes) break;
        const payload = payloadBytes.get(row.payload);
        if (payload === undefined) throw new Error(`outbox: payload ${row.payload} is gone`);
        const rids = splitRids(row.rids);
        const sealed = slipsOf(domain, row, rids);
        rows.push({
          seq: row.seq,
          kind: row.kind,
          mid: row.mid,
          payload,
          rids,
          ...(sealed.length === 0 ? {} : { slips: sealed }),
          ...(row.tokens === null ? {} : { tokens: splitTokens(row.tokens) }),
          ...(row.channel === null ? {} : { channel: parseChannel(row.channel) }),
          ttlLeftMs: Math.max(0, row.expires_ms - nowMs),
          chain: row.chain,
        });
      }
      return rows;
    },

    outboxChainAt(_nowMs, domain, lane, seq) {
      const peer = peers.peer(domain);
      if (peer === undefined) return undefined;
      const laneNumber = laneNumbers[lane];
      const stream = streams.get(peer.id, laneNumber);
      return stream?.acked === seq ? stream.chain : chainAt.get(peer.id, laneNumber, seq);
    },

    settleOutbox(nowMs, domain, lane, streamId, cursor, rejects) {
      needSeq(cursor, 'cursor');
      const peer = peers.peer(domain);
      const stream = peer && streams.get(peer.id, laneNumbers[lane]);
      if (peer === undefined || stream === undefined) return;
      if (Buffer.compare(stream.stream_id, streamId) !== 0 || cursor <= stream.acked) return;
      if (cursor >= stream.next_seq) {
        throw new InvalidArgumentError(
          'BAD_FIELD',
          `cursor: ${cursor}, need less than ${stream.next_seq}`,
        );
      }
      const isOpen = ({ seq }: { readonly seq: number }): boolean =>
        seq > stream.acked && seq <= cursor;
      const chain = chainAt.get(peer.id, laneNumbers[lane], cursor) ?? emptyChain();
      exits.refused(nowMs, peer.id, laneNumbers[lane], rejects.filter(isOpen));
      exits.delivered(nowMs, peer.id, laneNumbers[lane], cursor);
      streams.settle(peer.id, laneNumbers[lane], cursor, chain);
    },

    restartOutbound(nowMs, domain, lane, hasLost = false) {
      const peer = peers.ensurePeer(domain);
      if (hasLost) {
        peers.noteLost(nowMs, peer);
        notices.tellRestored(nowMs);
      }
      return outbound(streams.restart(peer, laneNumbers[lane]));
    },

    peersWithRows: () => domainsWithRows.all(),
    requeueDue: (nowMs) => exits.requeueDue(nowMs),
    outboxPeers: deadLetters.outboxPeers,
    deadLetters: deadLetters.deadLetters,
    retryDead: deadLetters.retryDead,
    dropDead: deadLetters.dropDead,
    bouncePeer: (nowMs, domain) => exits.bouncePeer(nowMs, domain),
    sweep: (nowMs) => exits.sweep(nowMs),
  };
}

function outbound(row: StreamRow): OutboundStream {
  return { streamId: row.stream_id, nextSeq: row.next_seq, acked: row.acked, chain: row.chain };
}

/** Epoch and signature as `NewOutboxRow.channel` carries them. */
export function encodeChannel(epoch: number, signature: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(8 + signature.length);
  bytes.writeBigUInt64BE(BigInt(epoch));
  bytes.set(signature, 8);
  return bytes;
}

function parseChannel(bytes: Uint8Array): { epoch: number; signature: Uint8Array } {
  const epoch = Number(Buffer.from(bytes.subarray(0, 8)).readBigUInt64BE());
  return { epoch, signature: bytes.subarray(8) };
}
