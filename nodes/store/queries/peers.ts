/** Peers by domain: their ids, what is queued for them, dial state and records over restarts. */
import type { LaneName } from '@quicprochat/federation';
import { needBytes, needSeq, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';

/** As in federation.proto. */
export const laneNumbers = { control: 1, bulk: 2 } as const satisfies Record<LaneName, number>;

interface PeerRow {
  readonly id: number;
  readonly failures: number;
  readonly next_try_ms: number;
  readonly failing_since_ms: number;
  readonly row_count: number;
  readonly byte_count: number;
  readonly dead_rows: number;
  readonly dead_bytes: number;
  /** When it last lost what it had confirmed; 0: it did not. */
  readonly lost_ms: number;
}

interface MarkRow {
  readonly mark_store_id: Uint8Array | null;
  readonly mark_commits: number;
  readonly mark_proof: Uint8Array | null;
}

interface RecordRow {
  readonly domain: string;
  readonly record: Uint8Array | null;
  readonly retired_pins: Uint8Array;
  readonly candidate: Uint8Array | null;
  readonly candidate_since_ms: number;
  readonly is_found: number;
}

interface NoteRow {
  readonly domain: string;
  readonly seen_ms: number;
  readonly link_state: string;
  readonly last_error: string;
  readonly credit_items: number;
}

type PeerOperations =
  | 'peerState'
  | 'setPeerState'
  | 'peerRecords'
  | 'putPeerRecord'
  | 'peerMark'
  | 'setPeerMark'
  | 'setPeerNote'
  | 'peerNotes';

export interface PeerQueries extends Pick<Operations, PeerOperations> {
  peer(domain: string): PeerRow | undefined;
  /** Id of the peer, made when it is new. */
  ensurePeer(domain: string): number;
  /** Adds to (or takes from) what is queued for the peer. */
  count(peer: number, rows: number, bytes: number): void;
  /** The same for the dead letters that are kept. */
  countDead(peer: number, rows: number, bytes: number): void;
  /** It does not have any more what it confirmed until now: its senders are due to be told. */
  noteLost(nowMs: number, peer: number): void;
}

export function peerQueries({ db }: QueryContext): PeerQueries {
  const byDomain = db.prepare<[string], PeerRow>(
    `SELECT id, failures, next_try_ms, failing_since_ms, row_count, byte_count,
            dead_rows, dead_bytes, lost_ms
       FROM peer WHERE domain = ?`,
  );
  const insert = db.prepare<[string]>('INSERT INTO peer (domain) VALUES (?)');
  const setState = db.prepare<[number, number, number, number]>(
    'UPDATE peer SET failures = ?, next_try_ms = ?, failing_since_ms = ? WHERE id = ?',
  );

  const addCounts = db.prepare<[number, number, number]>(
    'UPDATE peer SET row_count = row_count + ?, byte_count = byte_count + ? WHERE id = ?',
  );
  const addDead = db.prepare<[number, number, number]>(
    'UPDATE peer SET dead_rows = dead_rows + ?, dead_bytes = dead_bytes + ? WHERE id = ?',
  );
  const setLost = db.prepare<[Readonly<Record<string, number>>]>(
    `UPDATE peer SET lost_ms = :nowMs, lost_store_id = mark_store_id, is_loss_untold = 1
      WHERE id = :peer AND (lost_store_id IS NOT mark_store_id OR abs(:nowMs - lost_ms) >= :sameMs)`,
  );
  // An outage that ended may begin anew, and is told anew.
  const forgetTold = db.prepare<[number]>('DELETE FROM delay_told WHERE peer = ?');
  const resetDelay = db.prepare<[number]>('UPDATE peer SET delay_cursor = 0 WHERE id = ?');

  const records = db.prepare<[], RecordRow>(
    `SELECT domain, record, retired_pins, candidate, candidate_since_ms, is_found FROM peer
      WHERE record IS NOT NULL OR candidate IS NOT NULL OR is_found = 1`,
  );
  const setRecord = db.prepare<[Readonly<Record<string, number | Uint8Array | null>>]>(
    `UPDATE peer SET record = :record, retired_pins = :retired, candidate = :candidate,
                     candidate_since_ms = :sinceMs, is_found = :isFound WHERE id = :id`,
  );
  const setNote = db.prepare<[number, string, string, number, number]>(
    'UPDATE peer SET seen_ms = ?, link_state = ?, last_error = ?, credit_items = ? WHERE id = ?',
  );
  const notes = db.prepare<[], NoteRow>(
    'SELECT domain, seen_ms, link_state, last_error, credit_items FROM peer ORDER BY domain',
  );
  const markOf = db.prepare<[string], MarkRow>(
    'SELECT mark_store_id, mark_commits, mark_proof FROM peer WHERE domain = ?',
  );
  // A smaller number of the same store is what a restored copy says before it knows that it is one:
  // just then the greater one is needed.
  const setMark = db.prepare<[Readonly<Record<string, number | Uint8Array>>]>(
    `UPDATE peer SET mark_store_id = :storeId, mark_commits = :commits, mark_proof = :proof
      WHERE id = :id AND (mark_store_id IS NOT :storeId OR mark_commits < :commits)`,
  );

  function ensurePeer(domain: string): number {
    return byDomain.get(domain)?.id ?? Number(insert.run(domain).lastInsertRowid);
  }

  return {
    peer: (domain) => byDomain.get(domain),
    ensurePeer,
    count(peer, rows, bytes) {
      addCounts.run(rows, bytes, peer);
    },
    countDead(peer, rows, bytes) {
      addDead.run(rows, bytes, peer);
    },
    noteLost(nowMs, peer) {
      setLost.run({ nowMs, peer, sameMs: storeBounds.sameLossMs });
    },
    peerState(_nowMs, domain) {
      const row = byDomain.get(domain);
      return {
        failures: row?.failures ?? 0,
        nextTryMs: row?.next_try_ms ?? 0,
        failingSinceMs: row?.failing_since_ms ?? 0,
      };
    },
    setPeerState(_nowMs, domain, { failures, nextTryMs, failingSinceMs }) {
      const peer = ensurePeer(domain);
      setState.run(failures, nextTryMs, failingSinceMs, peer);
      if (failingSinceMs > 0) return;
      forgetTold.run(peer);
      resetDelay.run(peer);
    },
    peerRecords: () =>
      records.all().map((row) => ({
        domain: row.domain,
        record: row.record ?? undefined,
        retiredPins: splitKeys(row.retired_pins),
        candidate: row.candidate ?? undefined,
        candidateSinceMs: row.candidate_since_ms,
        isFound: row.is_found === 1,
      })),
    putPeerRecord(_nowMs, held) {
      for (const pin of held.retiredPins) needBytes(pin, storeBounds.keyBytes, 'retiredPins');
      setRecord.run({
        record: held.record ?? null,
        retired: Buffer.concat(held.retiredPins),
        candidate: held.candidate ?? null,
        sinceMs: held.candidateSinceMs,
        isFound: held.isFound ? 1 : 0,
        id: ensurePeer(held.domain),
      });
    },
    setPeerNote(_nowMs, domain, { seenMs, linkState, lastError, creditItems }) {
      setNote.run(seenMs, linkState, lastError, creditItems, ensurePeer(domain));
    },
    peerNotes: () =>
      notes.all().map((row) => ({
        domain: row.domain,
        seenMs: row.seen_ms,
        linkState: row.link_state,
        lastError: row.last_error,
        creditItems: row.credit_items,
      })),
    peerMark(_nowMs, domain) {
      const row = markOf.get(domain);
      if (row === undefined || row.mark_store_id === null || row.mark_proof === null) {
        return undefined;
      }
      return { storeId: row.mark_store_id, commits: row.mark_commits, proof: row.mark_proof };
    },
    setPeerMark(_nowMs, domain, { storeId, commits, proof }) {
      needBytes(storeId, storeBounds.storeIdBytes, 'storeId');
      needBytes(proof, storeBounds.markProofBytes, 'proof');
      needSeq(commits, 'commits');
      setMark.run({ storeId, commits, proof, id: ensurePeer(domain) });
    },
  };
}

/** Keys or their hashes (32 bytes each), one after the other. */
function splitKeys(bytes: Uint8Array): Uint8Array[] {
  const { keyBytes } = storeBounds;
  return Array.from({ length: bytes.length / keyBytes }, (_, index) =>
    bytes.subarray(index * keyBytes, (index + 1) * keyBytes),
  );
}
