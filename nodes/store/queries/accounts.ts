/**
 * Reads of accounts and their devices, and the transport key that each logged-in device presents.
 * How accounts come, change and go: account-effects.ts.
 */
import { NotFoundError } from '@quicprochat/proto';
import { needBytes, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import { fromColumns, manifestColumns, type ManifestColumns } from './manifests.ts';

interface AccountRow extends ManifestColumns {
  readonly setup_id: number;
  readonly opaque_record: Uint8Array;
  readonly manifest_seq: number;
}

interface DeviceRow {
  readonly device_id: string;
  readonly identity_pub: Uint8Array;
  readonly transport_spki: Uint8Array | null;
  readonly session_expires_ms: number;
  readonly added_ms: number | null;
}

interface SessionRow {
  readonly user_id: string;
  readonly device_id: string;
  readonly identity_pub: Uint8Array;
  readonly session_expires_ms: number;
}

type AccountOperations = Pick<
  Operations,
  | 'account'
  | 'accountByIdentity'
  | 'devices'
  | 'bindSession'
  | 'endSession'
  | 'sessionByTransportKey'
>;

export function accountQueries({ db }: QueryContext): AccountOperations {
  const accountByUser = db.prepare<[string], AccountRow>(
    `SELECT setup_id, opaque_record, ${manifestColumns}, manifest_seq
       FROM account WHERE user_id = ?`,
  );
  const userByKey = db
    .prepare<[Uint8Array], string>(
      `SELECT account.user_id FROM device JOIN account ON account.id = device.account
        WHERE device.identity_pub = ?`,
    )
    .pluck();
  const devicesOfUser = db.prepare<[string], DeviceRow>(
    `SELECT device_id, identity_pub, transport_spki, session_expires_ms, added_ms
       FROM device JOIN account ON account.id = device.account
      WHERE account.user_id = ? ORDER BY device.id`,
  );
  const deviceOfUser = db
    .prepare<[string, Uint8Array], number>(
      `SELECT device.id FROM device JOIN account ON account.id = device.account
        WHERE account.user_id = ? AND device.identity_pub = ?`,
    )
    .pluck();
  const unbind = db.prepare<[Uint8Array]>(
    'UPDATE device SET transport_spki = NULL WHERE transport_spki = ?',
  );
  const bind = db.prepare<[Uint8Array, number, number]>(
    'UPDATE device SET transport_spki = ?, session_expires_ms = ? WHERE id = ?',
  );
  const sessionBySpki = db.prepare<[Uint8Array], SessionRow>(
    `SELECT account.user_id, device.device_id, device.identity_pub, device.session_expires_ms
       FROM device JOIN account ON account.id = device.account
      WHERE device.transport_spki = ?`,
  );

  return {
    account(_nowMs, userId) {
      const row = accountByUser.get(userId);
      return (
        row && {
          userId,
          setupId: row.setup_id,
          opaqueRecord: row.opaque_record,
          manifest: fromColumns(row),
          manifestSeq: row.manifest_seq,
        }
      );
    },

    accountByIdentity(_nowMs, identityPub) {
      const userId = userByKey.get(identityPub);
      return userId === undefined ? undefined : { userId };
    },

    devices: (_nowMs, userId) =>
      devicesOfUser.all(userId).map((row) => ({
        deviceId: row.device_id,
        identityPub: row.identity_pub,
        transportSpki: row.transport_spki ?? undefined,
        sessionExpiresMs: row.session_expires_ms,
        addedMs: row.added_ms ?? undefined,
      })),

    bindSession(_nowMs, userId, identityPub, transportSpki, sessionExpiresMs) {
      needBytes(transportSpki, storeBounds.keyBytes, 'transportSpki');
      const device = deviceOfUser.get(userId, identityPub);
      if (device === undefined) {
        throw new NotFoundError('UNKNOWN_DEVICE', 'identityPub is not a device of the account');
      }
      unbind.run(transportSpki);
      bind.run(transportSpki, sessionExpiresMs, device);
    },

    endSession(_nowMs, transportSpki) {
      unbind.run(transportSpki);
    },

    sessionByTransportKey(_nowMs, transportSpki) {
      const row = sessionBySpki.get(transportSpki);
      return (
        row && {
          userId: row.user_id,
          deviceId: row.device_id,
          identityPub: row.identity_pub,
          sessionExpiresMs: row.session_expires_ms,
        }
      );
    },
  };
}
