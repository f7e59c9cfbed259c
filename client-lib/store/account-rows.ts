/** Table `account` of the device store. */
import type { Database } from './database.ts';
import type { AccountRows } from './store.ts';

export function accountRows(db: Database): AccountRows {
  return {
    get() {
      const row = db.get('SELECT * FROM account WHERE id = 1');
      if (row === undefined) return undefined;
      return {
        userId: row.text('user_id'),
        nodeAddress: row.text('node_address'),
        accountSeed: row.maybeBytes('account_seed'),
        nextAccountSeed: row.maybeBytes('next_account_seed'),
        bundleSeq: row.number('bundle_seq'),
        identitySeed: row.bytes('identity_seed'),
        certificatePem: row.text('certificate_pem'),
        privateKeyPem: row.text('private_key_pem'),
        opaqueServerKey: row.maybeBytes('opaque_server_key'),
        isRegistered: row.number('registered') === 1,
        sessionExpiresMs: row.number('session_expires_ms'),
      };
    },
    put(record) {
      db.run(
        `INSERT OR REPLACE INTO account (id, user_id, node_address, account_seed, identity_seed,
           certificate_pem, private_key_pem, opaque_server_key, registered, session_expires_ms,
           next_account_seed, bundle_seq)
         VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        record.userId,
        record.nodeAddress,
        record.accountSeed ?? null,
        record.identitySeed,
        record.certificatePem,
        record.privateKeyPem,
        record.opaqueServerKey ?? null,
        record.isRegistered ? 1 : 0,
        record.sessionExpiresMs,
        record.nextAccountSeed ?? null,
        record.bundleSeq,
      );
    },
  };
}
