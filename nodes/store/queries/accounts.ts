/**
 * Accounts, their devices, and the transport key that each logged-in device presents. A device
 * gets its inbox in the transaction that creates it.
 */
import { ConflictError, NotFoundError } from '@quicprochat/proto';
import { needBytes, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';

interface AccountRow {
  readonly setup_id: number;
  readonly opaque_record: Uint8Array;
  readonly manifest: Uint8Array;
  readonly manifest_signature: Uint8Array;
  readonly manifest_seq: number;
}

interface SessionRow {
  readonly user_id: string;
  readonly device_id: string;
  readonly identity_pub: Uint8Array;
  readonly session_expires_ms: number;
}

type AccountOperations = Pick<
  Operations,
  'createAccount' | 'account' | 'bindSession' | 'endSession' | 'sessionByTransportKey'
>;

export function accountQueries({ db, needRoom }: QueryContext): AccountOperations {
  const accountByUser = db.prepare<[string], AccountRow>(
    `SELECT setup_id, opaque_record, manifest, manifest_signature, manifest_seq
       FROM account WHERE user_id = ?`,
  );
  const insertAccount = db.prepare<[string, number, Uint8Array, Uint8Array, Uint8Array, number]>(
    `INSERT INTO account
       (user_id, setup_id, opaque_record, manifest, manifest_signature, manifest_seq)
     VALUES (?, ?, ?, ?, ?, ?)`,
  );
  const insertDevice = db.prepare<[number | bigint, string, Uint8Array, Uint8Array, number]>(
    `INSERT INTO device (account, device_id, identity_pub, transport_spki, session_expires_ms)
     VALUES (?, ?, ?, ?, ?)`,
  );
  const insertInbox = db.prepare<[Uint8Array]>('INSERT INTO log (kind, key) VALUES (1, ?)');
  const isDeviceKnown = db
    .prepare<[Uint8Array], number>('SELECT 1 FROM device WHERE identity_pub = ?')
    .pluck();
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
    createAccount(_nowMs, account) {
      const { device } = account;
      needBytes(device.identityPub, storeBounds.keyBytes, 'identityPub');
      needBytes(device.transportSpki, storeBounds.keyBytes, 'transportSpki');
      if (accountByUser.get(account.userId) !== undefined) {
        throw new ConflictError('NAME_TAKEN', 'userId is taken');
      }
      if (isDeviceKnown.get(device.identityPub) !== undefined) {
        throw new ConflictError('NAME_TAKEN', 'identityPub belongs to an account already');
      }
      needRoom();
      const { lastInsertRowid } = insertAccount.run(
        account.userId,
        account.setupId,
        account.opaqueRecord,
        account.manifest.manifest,
        account.manifest.signature,
        account.manifestSeq,
      );
      // A transport key speaks for one device: the newest.
      unbind.run(device.transportSpki);
      insertDevice.run(
        lastInsertRowid,
        device.deviceId,
        device.identityPub,
        device.transportSpki,
        account.sessionExpiresMs,
      );
      insertInbox.run(device.identityPub);
    },

    account(_nowMs, userId) {
      const row = accountByUser.get(userId);
      return (
        row && {
          userId,
          setupId: row.setup_id,
          opaqueRecord: row.opaque_record,
          manifest: { manifest: row.manifest, signature: row.manifest_signature },
          manifestSeq: row.manifest_seq,
        }
      );
    },

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
