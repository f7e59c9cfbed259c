/** Table `account` of the device store. */
import type { Database } from './database.ts';

/** The account of this device with every long-term secret. */
export interface AccountRecord {
  readonly userId: string;
  /** `qpc://host:port#pin` of the own node. */
  readonly nodeAddress: string;
  /** Ed25519 seed of the account key (32 bytes); absent on a device that never held it. */
  readonly accountSeed: Uint8Array | undefined;
  /** Seed of an account key that is on its way into the log (32 bytes). */
  readonly nextAccountSeed: Uint8Array | undefined;
  /** Number of the newest recovery bundle that this device made or saw; 0: none. */
  readonly bundleSeq: number;
  /** Ed25519 seed of the device identity key (32 bytes). */
  readonly identitySeed: Uint8Array;
  /** Transport certificate and its PKCS#8 key, PEM. */
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  /** OPAQUE static key of the node, pinned at first use. */
  readonly opaqueServerKey: Uint8Array | undefined;
  /** False between making the keys and the node's answer: the next attempt uses the same keys. */
  readonly isRegistered: boolean;
  /** End of the session (wall ms); 0 when there is none. */
  readonly sessionExpiresMs: number;
}

export interface AccountRows {
  get(): AccountRecord | undefined;
  /** Inserts or replaces the one account of this store. */
  put(record: AccountRecord): void;
}

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
