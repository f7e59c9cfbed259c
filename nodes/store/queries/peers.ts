/** Peers by domain: their ids, what is queued for them, dial state and records over restarts. */
import type { LaneName } from '@quicprochat/federation';
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
}

type PeerOperations = 'peerState' | 'setPeerState' | 'peerRecords' | 'putPeerRecord';

export interface PeerQueries extends Pick<Operations, PeerOperations> {
  peer(domain: string): PeerRow | undefined;
  /** Id of the peer, made when it is new. */
  ensurePeer(domain: string): number;
  /** Adds to (or takes from) what is queued for the peer. */
  count(peer: number, rows: number, bytes: number): void;
}

export function peerQueries({ db }: QueryContext): PeerQueries {
  const byDomain = db.prepare<[string], PeerRow>(
    `SELECT id, failures, next_try_ms, failing_since_ms, row_count, byte_count
       FROM peer WHERE domain = ?`,
  );
  const insert = db.prepare<[string]>('INSERT INTO peer (domain) VALUES (?)');
  const setState = db.prepare<[number, number, number, number]>(
    'UPDATE peer SET failures = ?, next_try_ms = ?, failing_since_ms = ? WHERE id = ?',
  );

  const addCounts = db.prepare<[number, number, number]>(
    'UPDATE peer SET row_count = row_count + ?, byte_count = byte_count + ? WHERE id = ?',
  );

  const records = db.prepare<[], { readonly domain: string; readonly record: Uint8Array }>(
    'SELECT domain, record FROM peer WHERE record IS NOT NULL',
  );
  const setRecord = db.prepare<[Uint8Array, number]>('UPDATE peer SET record = ? WHERE id = ?');

  function ensurePeer(domain: string): number {
    return byDomain.get(domain)?.id ?? Number(insert.run(domain).lastInsertRowid);
  }

  return {
    peer: (domain) => byDomain.get(domain),
    ensurePeer,
    count(peer, rows, bytes) {
      addCounts.run(rows, bytes, peer);
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
      setState.run(failures, nextTryMs, failingSinceMs, ensurePeer(domain));
    },
    peerRecords: () => records.all(),
    putPeerRecord(_nowMs, domain, record) {
      setRecord.run(record, ensurePeer(domain));
    },
  };
}
