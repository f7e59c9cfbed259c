/** Tables `swarm`, `endpoint` and `relay_place` of the device store, and which conversation has the own record. */
import type { SignedEndpointRecord } from '@quicprochat/proto/messages';
import { create, SignedEndpointRecordSchema } from '@quicprochat/proto/messages';
import type { Database } from './database.ts';

export const endpointBounds = {
  /** Records of other devices; beyond, those that expire first go. */
  records: 4_096,
} as const;

export interface StoredEndpoint {
  readonly signed: SignedEndpointRecord;
  readonly seq: number;
  readonly expiresMs: number;
}

/** A place at the relay of another node. */
export interface RelayPlaceRow {
  readonly domain: string;
  /** SignedNodeRecord, encoded. */
  readonly record: Uint8Array;
  /** With "/p2p/" and the relay's peer id. */
  readonly relay: string;
}

export interface EndpointRows {
  /** Seed of the swarm key (32 bytes), and the highest seq that was ever signed. */
  own(): { readonly seed: Uint8Array; readonly seq: number } | undefined;
  putOwn(seed: Uint8Array): void;
  /** It only rises. */
  putOwnSeq(seq: number): void;
  get(rid: Uint8Array): StoredEndpoint | undefined;
  /** Replaces only what has a lower seq. */
  put(
    rid: Uint8Array,
    signed: SignedEndpointRecord,
    facts: { readonly seq: number; readonly expiresMs: number },
  ): void;
  /** Whether a conversation lacks the own record `seq`, and was told none after `sinceMs`. */
  isDue(conversationId: Uint8Array, seq: number, sinceMs: number): boolean;
  /** All of those that this device wrote in. */
  due(seq: number, sinceMs: number): readonly Uint8Array[];
  markTold(conversationId: Uint8Array, seq: number, nowMs: number): void;
  expire(nowMs: number): void;
  /** Sorted by domain. */
  places(): readonly RelayPlaceRow[];
  putPlace(place: RelayPlaceRow): void;
  deletePlace(domain: string): void;
}

export function endpointRows(db: Database): EndpointRows {
  return {
    own() {
      const row = db.get('SELECT seed, seq FROM swarm');
      if (row === undefined) return undefined;
      return { seed: row.bytes('seed'), seq: row.number('seq') };
    },
    putOwn(seed) {
      db.run('INSERT INTO swarm (id, seed, seq) VALUES (1, ?, 0)', seed);
    },
    putOwnSeq(seq) {
      db.run('UPDATE swarm SET seq = max(seq, ?)', seq);
    },
    get(rid) {
      const row = db.get('SELECT * FROM endpoint WHERE rid = ?', rid);
      if (row === undefined) return undefined;
      const signed = create(SignedEndpointRecordSchema, {
        record: row.bytes('record'),
        signature: row.bytes('signature'),
      });
      return { signed, seq: row.number('seq'), expiresMs: row.number('expires_ms') };
    },
    put(rid, { record, signature }, { seq, expiresMs }) {
      db.run(
        `INSERT INTO endpoint (rid, record, signature, seq, expires_ms) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (rid) DO UPDATE SET record = excluded.record, signature = excluded.signature,
           seq = excluded.seq, expires_ms = excluded.expires_ms
         WHERE excluded.seq > endpoint.seq`,
        rid,
        record,
        signature,
        seq,
        expiresMs,
      );
      db.run(
        `DELETE FROM endpoint WHERE rid IN
           (SELECT rid FROM endpoint ORDER BY expires_ms DESC LIMIT -1 OFFSET ?)`,
        endpointBounds.records,
      );
    },
    isDue: (conversationId, seq, sinceMs) =>
      db.get(
        `SELECT 1 FROM conversation
         WHERE id = ? AND told_endpoint <> ? AND told_endpoint_ms <= ?`,
        conversationId,
        seq,
        sinceMs,
      ) !== undefined,
    due: (seq, sinceMs) =>
      db
        .all(
          `SELECT id FROM conversation WHERE told_endpoint <> ? AND told_endpoint_ms <= ?
             AND sent_count > 0 ORDER BY joined_ms, id`,
          seq,
          sinceMs,
        )
        .map((row) => row.bytes('id')),
    markTold(conversationId, seq, nowMs) {
      db.run(
        'UPDATE conversation SET told_endpoint = ?, told_endpoint_ms = ? WHERE id = ?',
        seq,
        nowMs,
        conversationId,
      );
    },
    expire(nowMs) {
      db.run('DELETE FROM endpoint WHERE expires_ms <= ?', nowMs);
    },
    places: () =>
      db.all('SELECT * FROM relay_place ORDER BY domain').map((row) => ({
        domain: row.text('domain'),
        record: row.bytes('record'),
        relay: row.text('relay'),
      })),
    putPlace({ domain, record, relay }) {
      db.run('INSERT OR REPLACE INTO relay_place VALUES (?, ?, ?)', domain, record, relay);
    },
    deletePlace(domain) {
      db.run('DELETE FROM relay_place WHERE domain = ?', domain);
    },
  };
}
