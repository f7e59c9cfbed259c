/** Tables `contact`, `device_prekey` and `key_package_claim` of the device store. */
import type { Database } from './database.ts';

/** What showed a contact's keys: the log itself, or a credential that a member passed on. */
export type KeySource = 'log' | 'credential';

export interface ContactRecord {
  readonly userId: string;
  readonly accountKey: Uint8Array;
  /** Encoded SignedManifest: the value of the version in the log. */
  readonly value: Uint8Array;
  readonly version: number;
  readonly firstSeenMs: number;
  /** When it was shown to be the greatest version. */
  readonly verifiedMs: number;
  /** Size of the log at the head that showed it. */
  readonly treeSize: number;
  readonly source: KeySource;
  /** The account key that people compared with each other, if they did. */
  readonly comparedKey: Uint8Array | undefined;
}

export interface ContactRows {
  get(userId: string): ContactRecord | undefined;
  put(contact: ContactRecord): void;
  prekey(
    rid: Uint8Array,
  ): { readonly publicKey: Uint8Array; readonly notAfterMs: number } | undefined;
  putPrekey(rid: Uint8Array, publicKey: Uint8Array, notAfterMs: number): void;
  claim(userId: string): { readonly claimId: Uint8Array; readonly madeMs: number } | undefined;
  putClaim(userId: string, claimId: Uint8Array, madeMs: number): void;
  deleteClaim(userId: string): void;
}

export function contactRows(db: Database): ContactRows {
  return {
    get(userId) {
      const row = db.get('SELECT * FROM contact WHERE user_id = ?', userId);
      if (row === undefined) return undefined;
      return {
        userId,
        accountKey: row.bytes('account_key'),
        value: row.bytes('value'),
        version: row.number('version'),
        firstSeenMs: row.number('first_seen_ms'),
        verifiedMs: row.number('verified_ms'),
        treeSize: row.number('tree_size'),
        source: row.text('source') === 'log' ? 'log' : 'credential',
        comparedKey: row.maybeBytes('compared_key'),
      };
    },
    put(contact) {
      db.run(
        'INSERT OR REPLACE INTO contact VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
        contact.userId,
        contact.accountKey,
        contact.value,
        contact.version,
        contact.firstSeenMs,
        contact.verifiedMs,
        contact.treeSize,
        contact.source,
        contact.comparedKey ?? null,
      );
    },
    prekey(rid) {
      const row = db.get('SELECT * FROM device_prekey WHERE rid = ?', rid);
      if (row === undefined) return undefined;
      return { publicKey: row.bytes('public_key'), notAfterMs: row.number('not_after_ms') };
    },
    putPrekey(rid, publicKey, notAfterMs) {
      // An older prekey never replaces a newer one: a node could serve it to weaken us.
      db.run(
        `INSERT INTO device_prekey VALUES (?, ?, ?) ON CONFLICT (rid) DO UPDATE
         SET public_key = excluded.public_key, not_after_ms = excluded.not_after_ms
         WHERE not_after_ms <= excluded.not_after_ms`,
        rid,
        publicKey,
        notAfterMs,
      );
    },
    claim(userId) {
      const row = db.get('SELECT * FROM key_package_claim WHERE user_id = ?', userId);
      if (row === undefined) return undefined;
      return { claimId: row.bytes('claim_id'), madeMs: row.number('made_ms') };
    },
    putClaim(userId, claimId, madeMs) {
      db.run('INSERT OR REPLACE INTO key_package_claim VALUES (?, ?, ?)', userId, claimId, madeMs);
    },
    deleteClaim(userId) {
      db.run('DELETE FROM key_package_claim WHERE user_id = ?', userId);
    },
  };
}
