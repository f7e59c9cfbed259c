/** Tables `hybrid_key`, `key_package` and `key_package_used` of the device store. */
import type { Database, Row } from './database.ts';

/** An X-Wing key of this device. */
export interface HybridKey {
  /** First 8 bytes of SHA-256(public key). */
  readonly keyId: Uint8Array;
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly notAfterMs: number;
  readonly isPublished: boolean;
}

export interface StoredKeyPackage {
  /** KeyPackageRef (RFC 9420 section 5.2). */
  readonly ref: Uint8Array;
  readonly suite: number;
  readonly publicBytes: Uint8Array;
  readonly privateBytes: Uint8Array;
  readonly isLastResort: boolean;
  readonly notAfterMs: number;
  readonly isPublished: boolean;
}

export interface KeyRows {
  putHybridKey(key: HybridKey): void;
  hybridKey(keyId: Uint8Array): HybridKey | undefined;
  /** The key that lasts longest. */
  newestHybridKey(): HybridKey | undefined;
  markHybridKeyPublished(keyId: Uint8Array): void;
  addKeyPackages(packages: readonly StoredKeyPackage[]): void;
  keyPackage(ref: Uint8Array): StoredKeyPackage | undefined;
  unpublishedKeyPackages(): readonly StoredKeyPackage[];
  markKeyPackagesPublished(refs: readonly Uint8Array[]): void;
  /** Deletes a single-use package and remembers its reference. */
  consumeKeyPackage(ref: Uint8Array, nowMs: number): void;
  wasKeyPackageConsumed(ref: Uint8Array): boolean;
  newestLastResort(suite: number): StoredKeyPackage | undefined;
  /** Removes keys and packages whose `not_after` lies before `beforeMs`. */
  expire(beforeMs: number): void;
}

function hybridKeyOf(row: Row | undefined): HybridKey | undefined {
  if (row === undefined) return undefined;
  return {
    keyId: row.bytes('key_id'),
    seed: row.bytes('seed'),
    publicKey: row.bytes('public_key'),
    notAfterMs: row.number('not_after_ms'),
    isPublished: row.number('published') === 1,
  };
}

function keyPackageOf(row: Row): StoredKeyPackage {
  return {
    ref: row.bytes('ref'),
    suite: row.number('suite'),
    publicBytes: row.bytes('public_bytes'),
    privateBytes: row.bytes('private_bytes'),
    isLastResort: row.number('last_resort') === 1,
    notAfterMs: row.number('not_after_ms'),
    isPublished: row.number('published') === 1,
  };
}

export function keyRows(db: Database): KeyRows {
  return {
    putHybridKey(key) {
      db.run(
        'INSERT OR REPLACE INTO hybrid_key VALUES (?, ?, ?, ?, ?)',
        key.keyId,
        key.seed,
        key.publicKey,
        key.notAfterMs,
        key.isPublished ? 1 : 0,
      );
    },
    hybridKey: (keyId) => hybridKeyOf(db.get('SELECT * FROM hybrid_key WHERE key_id = ?', keyId)),
    newestHybridKey: () =>
      hybridKeyOf(db.get('SELECT * FROM hybrid_key ORDER BY not_after_ms DESC LIMIT 1')),
    markHybridKeyPublished(keyId) {
      db.run('UPDATE hybrid_key SET published = 1 WHERE key_id = ?', keyId);
    },
    addKeyPackages(packages) {
      db.transaction(() => {
        for (const one of packages) {
          db.run(
            'INSERT INTO key_package VALUES (?, ?, ?, ?, ?, ?, ?)',
            one.ref,
            one.suite,
            one.publicBytes,
            one.privateBytes,
            one.isLastResort ? 1 : 0,
            one.notAfterMs,
            one.isPublished ? 1 : 0,
          );
        }
      });
    },
    keyPackage(ref) {
      const row = db.get('SELECT * FROM key_package WHERE ref = ?', ref);
      return row === undefined ? undefined : keyPackageOf(row);
    },
    unpublishedKeyPackages: () =>
      db.all('SELECT * FROM key_package WHERE published = 0 ORDER BY ref').map(keyPackageOf),
    markKeyPackagesPublished(refs) {
      db.transaction(() => {
        for (const ref of refs) db.run('UPDATE key_package SET published = 1 WHERE ref = ?', ref);
      });
    },
    consumeKeyPackage(ref, nowMs) {
      if (db.run('DELETE FROM key_package WHERE ref = ? AND last_resort = 0', ref) > 0) {
        db.run('INSERT INTO key_package_used VALUES (?, ?) ON CONFLICT DO NOTHING', ref, nowMs);
      }
    },
    wasKeyPackageConsumed: (ref) =>
      db.get('SELECT 1 FROM key_package_used WHERE ref = ?', ref) !== undefined,
    newestLastResort(suite) {
      const row = db.get(
        `SELECT * FROM key_package WHERE suite = ? AND last_resort = 1
         ORDER BY not_after_ms DESC LIMIT 1`,
        suite,
      );
      return row === undefined ? undefined : keyPackageOf(row);
    },
    expire(beforeMs) {
      db.transaction(() => {
        db.run('DELETE FROM key_package WHERE not_after_ms < ?', beforeMs);
        db.run('DELETE FROM hybrid_key WHERE not_after_ms < ?', beforeMs);
        db.run('DELETE FROM key_package_used WHERE used_ms < ?', beforeMs);
      });
    },
  };
}
