/** Tables `contact`, `contact_refused`, `device_prekey` and `key_package_claim` of the device store. */
import type { Database } from './database.ts';
import type { ContactRows } from './store.ts';

export function contactRows(db: Database): ContactRows {
  return {
    get(userId) {
      const row = db.get('SELECT * FROM contact WHERE user_id = ?', userId);
      if (row === undefined) return undefined;
      return {
        userId,
        accountKey: row.bytes('account_key'),
        manifest: row.bytes('manifest'),
        signature: row.bytes('signature'),
        manifestSeq: row.number('manifest_seq'),
        firstSeenMs: row.number('first_seen_ms'),
        checkedMs: row.number('checked_ms'),
        verification: 'firstUse',
      };
    },
    put(contact) {
      db.run(
        'INSERT OR REPLACE INTO contact VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
        contact.userId,
        contact.accountKey,
        contact.manifest,
        contact.signature,
        contact.manifestSeq,
        contact.firstSeenMs,
        contact.checkedMs,
        contact.verification,
      );
    },
    addRefused: (userId, accountKey, nowMs) =>
      db.run(
        'INSERT INTO contact_refused VALUES (?, ?, ?) ON CONFLICT DO NOTHING',
        userId,
        accountKey,
        nowMs,
      ) > 0,
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
