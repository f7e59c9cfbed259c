/**
 * How rows leave an outbox stream: delivered (a tombstone stays), refused for good or too old (a
 * dead letter stays and the sending device gets a notice), refused for now (deferred, back at the
 * tail later with a new seq).
 */
import type { Reject } from '@quicprochat/federation';
import { storeBounds } from '../bounds.ts';
import type { QueryContext } from '../operations.ts';
import type { DeadLetterQueries, HeldRow } from './dead-letters.ts';
import type { NoticeQueries } from './notices.ts';
import type { StreamQueries } from './outbox-streams.ts';
import type { PayloadQueries } from './payloads.ts';
import type { PeerQueries } from './peers.ts';
import { slipOf, type ReturnReports } from './return-slips.ts';
import { joinTokens, splitTokens } from './row-tokens.ts';

const unknownChannelReason = 'UNKNOWN_CHANNEL';
/** Of a receiver that does not know a row's kind, or not its channel, yet. */
const briefReasons: readonly string[] = ['UNIMPLEMENTED', unknownChannelReason];
/** Of a row whose own time to live is over. */
const expiredReason = 'TIMEOUT';

export interface OutboxExits {
  /** Takes refused rows out of the stream; what their other devices took counts as delivered. */
  refused(nowMs: number, peer: number, lane: number, rejects: readonly Reject[]): void;
  /** All rows up to the cursor that are still in the stream arrived. */
  delivered(nowMs: number, peer: number, lane: number, cursor: number): void;
  requeueDue(nowMs: number): {
    readonly requeuedPeers: readonly string[];
    readonly deadRows: number;
    readonly dueInMs: number | undefined;
  };
  /** Gives up what waits for a peer that is denied; bounded work. Returns the number of rows. */
  bouncePeer(nowMs: number, domain: string): number;
  /** Forgets tombstones and dead letters that are past their time. */
  sweep(nowMs: number): void;
}

const columns =
  'id, peer, lane, kind, mid, tag, rids, payload, size, created_ms, expires_ms, sender, channel, ' +
  'tokens, return_to, return_slips';

export function outboxExitQueries(
  { db, limits }: QueryContext,
  payloads: PayloadQueries,
  peers: PeerQueries,
  streams: StreamQueries,
  deadLetters: DeadLetterQueries,
  notices: NoticeQueries,
  reports: Pick<ReturnReports, 'send'>,
): OutboxExits {
  const rowAt = db.prepare<[number, number, number], HeldRow>(
    `SELECT ${columns} FROM outbox WHERE peer = ? AND lane = ? AND seq = ?`,
  );
  const removeRow = db.prepare<[number]>('DELETE FROM outbox WHERE id = ?');
  // A tombstone may be there: of a row for fewer devices, or of a dead letter that was retried.
  const bury = db.prepare<[rids: Uint8Array, gone: number, row: number]>(
    `INSERT OR IGNORE INTO outbox_tomb (peer, tag, rids, received_ms, gone_ms, sender, mid)
     SELECT peer, tag, ?, created_ms, ?, sender, mid FROM outbox WHERE id = ?`,
  );
  const defer = db.prepare<[Uint8Array, Uint8Array | null, number, number]>(
    'UPDATE outbox SET seq = NULL, chain = NULL, rids = ?, tokens = ?, due_ms = ? WHERE id = ?',
  );
  const twin = db
    .prepare<[number, Uint8Array, Uint8Array, number], number>(
      'SELECT 1 FROM outbox WHERE peer = ? AND tag = ? AND rids = ? AND id <> ?',
    )
    .pluck();
  const buryDelivered = db.prepare<[number, number, number, number]>(
    `INSERT OR IGNORE INTO outbox_tomb (peer, tag, rids, received_ms, gone_ms, sender, mid)
     SELECT peer, tag, rids, created_ms, ?, sender, mid FROM outbox
      WHERE peer = ? AND lane = ? AND seq <= ? ORDER BY seq`,
  );
  const deliveredTotals = db.prepare<
    [number, number, number],
    { readonly row_count: number; readonly byte_count: number }
  >(
    `SELECT count(*) AS row_count, coalesce(sum(size), 0) AS byte_count FROM outbox
      WHERE peer = ? AND lane = ? AND seq <= ?`,
  );
  const deliveredPayloads = db
    .prepare<[number, number, number], number>(
      'SELECT payload FROM outbox WHERE peer = ? AND lane = ? AND seq <= ?',
    )
    .pluck();
  const removeDelivered = db.prepare<[number, number, number]>(
    'DELETE FROM outbox WHERE peer = ? AND lane = ? AND seq <= ?',
  );
  const dueRows = db.prepare<[number, number], HeldRow & { readonly domain: string }>(
    `SELECT ${columns
      .split(', ')
      .map((column) => `outbox.${column}`)
      .join(', ')}, peer.domain
       FROM outbox JOIN peer ON peer.id = outbox.peer
      WHERE due_ms <= ? ORDER BY due_ms, outbox.id LIMIT (? + 0)`,
  );
  const nextDue = db
    .prepare<[], number>(
      'SELECT due_ms FROM outbox WHERE due_ms IS NOT NULL ORDER BY due_ms LIMIT 1',
    )
    .pluck();
  const requeue = db.prepare<[number, Uint8Array, number]>(
    'UPDATE outbox SET seq = ?, chain = ?, due_ms = NULL WHERE id = ?',
  );
  const pastRows = db.prepare<[number, number], HeldRow>(
    `SELECT ${columns} FROM outbox WHERE dead_ms <= ? ORDER BY dead_ms LIMIT (? + 0)`,
  );
  const rowsOfPeer = db.prepare<[string, number], HeldRow>(
    `SELECT ${columns} FROM outbox WHERE peer = (SELECT id FROM peer WHERE domain = ?)
      ORDER BY id LIMIT (? + 0)`,
  );
  const pruneTombs = db.prepare<[number, number, number]>(
    `DELETE FROM outbox_tomb WHERE id IN (SELECT id FROM outbox_tomb ORDER BY id LIMIT (? + 0))
        AND (gone_ms <= ? OR gone_ms > ?)`,
  );
  const domainOf = db.prepare<[number], string>('SELECT domain FROM peer WHERE id = ?').pluck();

  /** The end of a row for one device: a dead letter, and a notice to whom it comes from. */
  function die(
    nowMs: number,
    row: HeldRow,
    rid: Uint8Array,
    reason: string,
    token: Uint8Array | undefined,
  ): void {
    deadLetters.add(nowMs, row, { rid, token }, reason);
    const { sender, mid, tag, created_ms: createdMs } = row;
    const lost = { sender, mid, tag, rid, domain: domainOf.get(row.peer) ?? '', createdMs };
    const { return_to: peer, return_slips: slips } = row;
    const slip = slips === null ? undefined : slipOf(slips, rid);
    if (slip !== undefined && peer !== null) {
      reports.send(nowMs, { peer, mid, tag, rid, slip, reason });
    }
    if (reason === expiredReason) notices.expired(nowMs, lost);
    else notices.bounced(nowMs, lost, reason);
  }

  /** As long as the row has been waiting already, between the shortest wait and ten times that of a full inbox. */
  function deferredForMs(
    nowMs: number,
    { created_ms: createdMs }: HeldRow,
    reason: string,
  ): number {
    const { deferredRetryMs } = limits;
    const isBrief = reason === unknownChannelReason;
    const shortestMs = isBrief ? storeBounds.unknownChannelRetryMs : deferredRetryMs;
    return Math.max(shortestMs, Math.min(nowMs - createdMs, 10 * deferredRetryMs));
  }

  function remove(row: HeldRow): void {
    removeRow.run(row.id);
    payloads.release(row.payload);
    peers.count(row.peer, -1, -row.size);
  }

  function giveUp(nowMs: number, row: HeldRow, reason: string): void {
    const tokens = row.tokens === null ? [] : splitTokens(row.tokens);
    for (const [index, rid] of splitRids(row.rids).entries()) {
      die(nowMs, row, rid, reason, tokens[index]);
    }
    remove(row);
  }

  function refuseRow(nowMs: number, row: HeldRow, rejects: readonly Reject[]): void {
    const deferred: Uint8Array[] = [];
    const deferredTokens: (Uint8Array | undefined)[] = [];
    let deferredMs = 0;
    const taken: Uint8Array[] = [];
    const tokens = row.tokens === null ? [] : splitTokens(row.tokens);
    for (const [index, rid] of splitRids(row.rids).entries()) {
      const reject = rejects.find((one) => Buffer.compare(one.rid, rid) === 0);
      if (reject === undefined) {
        taken.push(rid);
      } else if (isWorthRetry(nowMs, row, reject)) {
        deferred.push(rid);
        deferredTokens.push(tokens[index]);
        deferredMs = Math.max(deferredMs, deferredForMs(nowMs, row, reject.reason));
      } else {
        die(nowMs, row, rid, reject.reason, tokens[index]);
      }
    }
    // Remembered as sent to those who took it: to the others it may be sent anew.
    if (taken.length > 0) bury.run(Buffer.concat(taken), nowMs, row.id);
    const rids = Buffer.concat(deferred);
    // Another row may carry the same bytes for just these devices already.
    const isDone = rids.length === 0 || twin.get(row.peer, row.tag, rids, row.id) !== undefined;
    if (isDone) remove(row);
    else defer.run(rids, joinTokens(deferredTokens) ?? null, nowMs + deferredMs, row.id);
  }

  return {
    refused(nowMs, peer, lane, rejects) {
      for (const [seq, ofRow] of Map.groupBy(rejects, (reject) => reject.seq)) {
        const row = rowAt.get(peer, lane, seq);
        if (row !== undefined) refuseRow(nowMs, row, ofRow);
      }
    },

    delivered(nowMs, peer, lane, cursor) {
      const totals = deliveredTotals.get(peer, lane, cursor);
      if (totals === undefined || totals.row_count === 0) return;
      // Payloads first: on a full disk their pages are the room for the tombstones.
      for (const payload of deliveredPayloads.all(peer, lane, cursor)) payloads.release(payload);
      buryDelivered.run(nowMs, peer, lane, cursor);
      removeDelivered.run(peer, lane, cursor);
      peers.count(peer, -totals.row_count, -totals.byte_count);
    },

    requeueDue(nowMs) {
      // The dead first: what is past its age does not go back to the tail. A row that dies inside
      // its stream leaves a hole, by which the sender sees that it must restart.
      const past = pastRows.all(nowMs, storeBounds.sweepRows);
      for (const row of past) {
        const reason = row.expires_ms <= nowMs ? expiredReason : 'PEER_UNREACHABLE';
        giveUp(nowMs, row, reason);
      }
      const requeuedPeers = new Set<string>();
      for (const row of dueRows.all(nowMs, storeBounds.sweepRows)) {
        const { seq, chain } = streams.append(row.peer, row.lane, row.tag);
        requeue.run(seq, chain, row.id);
        requeuedPeers.add(row.domain);
      }
      notices.tellWaiting(nowMs);
      notices.tellRestored(nowMs);
      const dueMs = nextDue.get();
      const dueInMs = dueMs === undefined ? undefined : Math.max(dueMs - nowMs, 0);
      return { requeuedPeers: [...requeuedPeers], deadRows: past.length, dueInMs };
    },

    bouncePeer(nowMs, domain) {
      const rows = rowsOfPeer.all(domain, storeBounds.sweepRows);
      for (const row of rows) giveUp(nowMs, row, 'PEER_DENIED');
      return rows.length;
    },

    sweep(nowMs) {
      pruneTombs.run(storeBounds.sweepRows, nowMs - limits.tombstoneMs, nowMs + limits.tombstoneMs);
      deadLetters.prune(nowMs);
    },
  };
}

/** What the peer does not know is not tried for as long as a full queue. */
function isWorthRetry(nowMs: number, row: HeldRow, { reason, temporary }: Reject): boolean {
  if (!temporary) return false;
  return !briefReasons.includes(reason) || nowMs - row.created_ms < storeBounds.unknownKindMs;
}

/** Device keys (32 bytes each) of a row. */
export function splitRids(rids: Uint8Array): Uint8Array[] {
  const { ridBytes } = storeBounds;
  return Array.from({ length: rids.length / ridBytes }, (_, index) =>
    rids.subarray(index * ridBytes, (index + 1) * ridBytes),
  );
}
