/**
 * KeyPackages and signed prekeys of devices (RFC 9420 section 10; docs: protocol/keys). A single-use
 * package is handed out once; the last-resort package is handed out again and again and stays.
 */
import { NotFoundError, ResourceExhaustedError } from '@quicprochat/proto';
import { needBytes, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import type { ClaimKeyPackages, ClaimedKeyPackage, StoredPrekey } from '../key-store.ts';
import { fromColumns, manifestColumns, type ManifestColumns } from './manifests.ts';

interface AccountRow extends ManifestColumns {
  readonly id: number;
}

interface ClaimedRow {
  readonly device: number;
  readonly identity_pub: Uint8Array;
  readonly suite: number;
  readonly bytes: Uint8Array;
  readonly last_resort: number;
}

interface CountRow {
  readonly suite: number;
  readonly single_use: number;
  readonly last_resort: number;
  readonly used: number;
}

type KeyOperations = Pick<
  Operations,
  'addKeyPackages' | 'keyPackageCounts' | 'claimKeyPackages' | 'putPrekey' | 'prekeys'
>;

export function keyQueries(context: QueryContext): KeyOperations & { sweep(nowMs: number): void } {
  const { db, needRoom } = context;
  const deviceByKey = db
    .prepare<[Uint8Array], number>('SELECT id FROM device WHERE identity_pub = ?')
    .pluck();
  const accountByUser = db.prepare<[string], AccountRow>(
    `SELECT id, ${manifestColumns} FROM account WHERE user_id = ?`,
  );
  const isRefKnown = db
    .prepare<[number, Uint8Array], number>('SELECT 1 FROM key_package WHERE device = ? AND ref = ?')
    .pluck();
  const availableCount = db
    .prepare<[number], number>(
      'SELECT count(*) FROM key_package WHERE device = ? AND gone_ms IS NULL',
    )
    .pluck();
  const insertPackage = db.prepare<
    [number, Uint8Array, number, Uint8Array, number, number, number]
  >(
    `INSERT INTO key_package (device, ref, suite, bytes, not_before_ms, not_after_ms, last_resort)
     VALUES (?, ?, ?, ?, ?, ?, ?)`,
  );
  const replaceLastResort = db.prepare<[number, number, number]>(
    `UPDATE key_package SET gone_ms = ?
      WHERE device = ? AND suite = ? AND last_resort = 1 AND gone_ms IS NULL`,
  );
  const counts = db.prepare<[number, number], CountRow>(
    `SELECT suite, sum(last_resort = 0) AS single_use, max(last_resort) AS last_resort,
            max(used) AS used
       FROM key_package
      WHERE device = ? AND gone_ms IS NULL AND not_after_ms > ?
      GROUP BY suite ORDER BY suite`,
  );
  const putPrekey = db.prepare<[number, Uint8Array, Uint8Array, number]>(
    `INSERT INTO prekey (device, prekey, signature, not_after_ms) VALUES (?, ?, ?, ?)
     ON CONFLICT (device) DO UPDATE SET
       prekey = excluded.prekey, signature = excluded.signature,
       not_after_ms = excluded.not_after_ms`,
  );
  const prekeyOfDevice = db.prepare<[number, number], StoredPrekey>(
    'SELECT prekey, signature FROM prekey WHERE device = ? AND not_after_ms > ?',
  );
  const prekeysOfAccount = db.prepare<
    [number, number],
    StoredPrekey & { readonly identity_pub: Uint8Array }
  >(
    `SELECT device.identity_pub, prekey.prekey, prekey.signature
       FROM device JOIN prekey ON prekey.device = device.id
      WHERE device.account = ? AND prekey.not_after_ms > ? ORDER BY device.id`,
  );
  const claims = claimQueries(context);
  const sweepers = [
    // Expired packages are gone like consumed ones: their refs stay known.
    db.prepare<[{ nowMs: number; limit: number }]>(
      `UPDATE key_package SET gone_ms = :nowMs WHERE id IN
         (SELECT id FROM key_package WHERE gone_ms IS NULL AND not_after_ms <= :nowMs LIMIT (:limit + 0))`,
    ),
    db.prepare<[{ claimsMs: number; limit: number }]>(
      `DELETE FROM claim WHERE id IN
         (SELECT id FROM claim WHERE created_ms <= :claimsMs LIMIT (:limit + 0))`,
    ),
    db.prepare<[{ claimsMs: number; limit: number }]>(
      `UPDATE key_package SET bytes = NULL WHERE id IN
         (SELECT id FROM key_package AS gone
           WHERE gone_ms <= :claimsMs AND bytes IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM claim_package WHERE key_package = gone.id)
           LIMIT (:limit + 0))`,
    ),
    db.prepare<[{ refsMs: number; limit: number }]>(
      `DELETE FROM key_package WHERE id IN
         (SELECT id FROM key_package AS gone
           WHERE gone_ms <= :refsMs
             AND NOT EXISTS (SELECT 1 FROM claim_package WHERE key_package = gone.id)
           LIMIT (:limit + 0))`,
    ),
  ];

  function needDevice(identityPub: Uint8Array): number {
    const device = deviceByKey.get(identityPub);
    if (device === undefined) throw new NotFoundError('UNKNOWN_DEVICE', 'identityPub is unknown');
    return device;
  }

  function countsOf(nowMs: number, device: number): ReturnType<KeyOperations['keyPackageCounts']> {
    return counts.all(device, nowMs).map((row) => ({
      suite: row.suite,
      singleUse: row.single_use,
      hasLastResort: row.last_resort === 1,
      lastResortUsed: row.used === 1,
    }));
  }

  return {
    addKeyPackages(nowMs, identityPub, packages) {
      const device = needDevice(identityPub);
      const held = availableCount.get(device) ?? 0;
      if (held + packages.length > storeBounds.keyPackagesPerDevice) {
        throw new ResourceExhaustedError(
          'QUOTA',
          `keyPackages: ${held} held and ${packages.length} new, ` +
            `at most ${storeBounds.keyPackagesPerDevice}`,
        );
      }
      needRoom();
      let stored = 0;
      for (const { ref, suite, bytes, notBeforeMs, notAfterMs, lastResort } of packages) {
        if (isRefKnown.get(device, ref) !== undefined) continue;
        if (lastResort) replaceLastResort.run(nowMs, device, suite);
        insertPackage.run(device, ref, suite, bytes, notBeforeMs, notAfterMs, lastResort ? 1 : 0);
        stored += 1;
      }
      return { stored, counts: countsOf(nowMs, device) };
    },

    keyPackageCounts: (nowMs, identityPub) => countsOf(nowMs, needDevice(identityPub)),

    claimKeyPackages(nowMs, claim) {
      needBytes(claim.claimId, storeBounds.claimIdBytes, 'claimId');
      const account = accountByUser.get(claim.userId);
      if (account === undefined) return undefined;
      const packages = claims.claim(nowMs, claim, account.id).map((row): ClaimedKeyPackage => ({
        identityPub: row.identity_pub,
        suite: row.suite,
        bytes: row.bytes,
        lastResort: row.last_resort === 1,
        prekey: prekeyOfDevice.get(row.device, nowMs),
      }));
      return {
        manifest: fromColumns(account),
        packages,
      };
    },

    putPrekey(_nowMs, identityPub, { prekey, signature }, notAfterMs) {
      putPrekey.run(needDevice(identityPub), prekey, signature, notAfterMs);
    },

    prekeys(nowMs, userId) {
      const account = accountByUser.get(userId);
      if (account === undefined) return undefined;
      return {
        manifest: fromColumns(account),
        prekeys: prekeysOfAccount
          .all(account.id, nowMs)
          .map(({ identity_pub, prekey, signature }) => ({
            identityPub: identity_pub,
            prekey: { prekey, signature },
          })),
      };
    },

    sweep(nowMs) {
      const bounds = {
        nowMs,
        claimsMs: nowMs - storeBounds.claimWindowMs,
        refsMs: nowMs - storeBounds.consumedRefMs,
        limit: storeBounds.sweepRows,
      };
      for (const sweeper of sweepers) sweeper.run(bounds);
    },
  };
}

/** The claim itself: one package for each device that has one, remembered under the claim's id. */
function claimQueries({ db }: QueryContext): {
  claim(nowMs: number, claim: ClaimKeyPackages, account: number): readonly ClaimedRow[];
} {
  const devicesOfAccount = db
    .prepare<[number], number>('SELECT id FROM device WHERE account = ? ORDER BY id')
    .pluck();
  const claimById = db
    .prepare<[string, Uint8Array, number, number], number>(
      `SELECT id FROM claim
        WHERE requester = ? AND claim_id = ? AND account = ? AND created_ms > ?
        ORDER BY id DESC LIMIT 1`,
    )
    .pluck();
  const recentClaims = db
    .prepare<[string, number], number>(
      'SELECT count(*) FROM claim WHERE requester = ? AND created_ms > ? AND single_use = 1',
    )
    .pluck();
  const recentClaimsOfTarget = db
    .prepare<[string, number, number], number>(
      `SELECT count(*) FROM claim
        WHERE scope = ? AND account = ? AND created_ms > ? AND single_use = 1`,
    )
    .pluck();
  const insertClaim = db.prepare<[string, string, Uint8Array, number, number, number]>(
    `INSERT INTO claim (scope, requester, claim_id, account, single_use, created_ms)
     VALUES (?, ?, ?, ?, ?, ?)`,
  );
  const insertClaimPackage = db.prepare<[number | bigint, number, number]>(
    'INSERT INTO claim_package (claim, position, key_package) VALUES (?, ?, ?)',
  );
  const claimed = db.prepare<[number | bigint], ClaimedRow>(
    `SELECT device.id AS device, device.identity_pub, key_package.suite, key_package.bytes,
            key_package.last_resort
       FROM claim_package
       JOIN key_package ON key_package.id = claim_package.key_package
       JOIN device ON device.id = key_package.device
      WHERE claim_package.claim = ? ORDER BY claim_package.position`,
  );
  const available = db
    .prepare<[number, number, number, number, number], number>(
      `SELECT id FROM key_package
        WHERE device = ? AND suite = ? AND last_resort = ? AND gone_ms IS NULL
          AND not_before_ms <= ? AND not_after_ms > ?
        ORDER BY id LIMIT 1`,
    )
    .pluck();
  const consume = db.prepare<[number, number]>('UPDATE key_package SET gone_ms = ? WHERE id = ?');
  const markUsed = db.prepare<[number]>(
    'UPDATE key_package SET used = 1 WHERE id = ? AND used = 0',
  );

  /** The package of the best suite that the device has one of. */
  function choose(
    nowMs: number,
    device: number,
    suites: readonly number[],
    maySingleUse: boolean,
  ): { readonly id: number; readonly isSingleUse: boolean } | undefined {
    for (const suite of suites) {
      const single = maySingleUse ? available.get(device, suite, 0, nowMs, nowMs) : undefined;
      if (single !== undefined) return { id: single, isSingleUse: true };
      const lastResort = available.get(device, suite, 1, nowMs, nowMs);
      if (lastResort !== undefined) return { id: lastResort, isSingleUse: false };
    }
    return undefined;
  }

  return {
    claim(nowMs, request, account) {
      const { scope, requester, claimId, suites } = request;
      const replayed = claimById.get(
        requester,
        claimId,
        account,
        nowMs - storeBounds.claimReplayMs,
      );
      if (replayed !== undefined) return claimed.all(replayed);

      const sinceMs = nowMs - storeBounds.claimWindowMs;
      const maySingleUse =
        (recentClaims.get(requester, sinceMs) ?? 0) < request.singleUsePerRequesterPerHour &&
        (recentClaimsOfTarget.get(scope, account, sinceMs) ?? 0) <
          request.singleUsePerTargetPerHour;
      const chosen = devicesOfAccount
        .all(account)
        .map((device) => choose(nowMs, device, suites, maySingleUse))
        .filter((choice) => choice !== undefined);
      // Nothing was taken, so there is nothing to repeat; a later call may find packages.
      if (chosen.length === 0) return [];
      const singleUse = chosen.some(({ isSingleUse }) => isSingleUse);
      const { lastInsertRowid: claim } = insertClaim.run(
        scope,
        requester,
        claimId,
        account,
        singleUse ? 1 : 0,
        nowMs,
      );
      for (const [position, { id, isSingleUse }] of chosen.entries()) {
        if (isSingleUse) consume.run(nowMs, id);
        else markUsed.run(id);
        insertClaimPackage.run(claim, position, id);
      }
      return claimed.all(claim);
    },
  };
}
