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
}

interface MarkRow {
  readonly mark_store_id: Uint8Array | null;
  readonly mark_commits: number;
  readonly mark_proof: Uint8Array | null;
}

type PeerOperations =
  | 'peerState'
  | 'setPeerState'
  | 'peerRecords'
  | 'putPeerRecord'
  | 'peerMark'
  | 'setPeerMark';

export interface PeerQueries extends Pick<Operations, PeerOperations> {
  peer(domain: string): PeerRow | undefined;
  /** Id of the peer, made when it is new. */
  ensurePeer(domain: string): number;
  /** Adds to (or takes from) what is queued for the peer. */
  count(peer: number, rows: number, bytes: number): void;
  /** The same for the dead letters that are kept. */
  countDead(peer: number, rows: number, bytes: number): void;
}

export function peerQueries({ db }: QueryContext): PeerQueries {
  const byDomain = db.prepare<[string], PeerRow>(
    `SELECT id, failures, next_try_ms, failing_since_ms, row_count, byte_count,
            dead_rows, dead_bytes
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
  // An outage that ended may begin anew, and is told anew.
  const forgetTold = db.prepare<[number]>('DELETE FROM delay_told WHERE peer = ?');
  const resetDelay = db.prepare<[number]>('UPDATE peer SET delay_cursor = 0 WHERE id = ?');

  const records = db.prepare<[], { readonly domain: string; readonly record: Uint8Array }>(
    'SELECT domain, record FROM peer WHERE record IS NOT NULL',
  );
  const setRecord = db.prepare<[Uint8Array, number]>('UPDATE peer SET record = ? WHERE id = ?');

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
    peerRecords: () => records.all(),
    putPeerRecord(_nowMs, domain, record) {
      setRecord.run(record, ensurePeer(domain));
    },
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
