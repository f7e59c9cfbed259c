/**
 * What an update of the key transparency log means for accounts and devices, written in the
 * transaction of its entry (docs: protocol/wire): an account exists, has this manifest and these
 * devices exactly when the log says so.
 */
import { ConflictError, InvalidArgumentError, NotFoundError } from '@quicprochat/proto';
import type { NewVersion } from '@quicprochat/kt-log';
import { needBytes, storeBounds } from '../bounds.ts';
import type { QueryContext } from '../operations.ts';
import type { AccountEffect, NewAccount, NewDevice } from '../account-store.ts';
import { devicePurgeQueries } from './device-purge.ts';
import { manifestColumns, toColumns } from './manifests.ts';

interface DeviceRow {
  readonly id: number;
  readonly account: number;
}

export interface AccountEffects {
  /**
   * Throws, before any write, the QpcError that AccountEffect names. The effects of one batch touch
   * each account and each device key once: SEQ_CONFLICT otherwise, and alone each may be in order.
   */
  check(effects: readonly AccountEffect[], versions: readonly NewVersion[]): void;
  /** `position`: the entry that they come with. */
  apply(nowMs: number, position: number, effects: readonly AccountEffect[]): void;
}

export function accountEffects(context: QueryContext): AccountEffects {
  const { db } = context;
  const devices = devicePurgeQueries(context);
  const accountByUser = db.prepare<
    [string],
    { readonly id: number; readonly manifest_seq: number }
  >('SELECT id, manifest_seq FROM account WHERE user_id = ?');
  const deviceByKey = db.prepare<[Uint8Array], DeviceRow>(
    'SELECT id, account FROM device WHERE identity_pub = ?',
  );
  const devicesOfAccount = db
    .prepare<[number], number>('SELECT id FROM device WHERE account = ?')
    .pluck();
  const deviceById = db
    .prepare<[number, string], Buffer>(
      'SELECT identity_pub FROM device WHERE account = ? AND device_id = ?',
    )
    .pluck();
  const insertAccount = db.prepare<
    [string, number, Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array, number]
  >(
    `INSERT INTO account (user_id, setup_id, opaque_record, ${manifestColumns}, manifest_seq)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  const setManifest = db.prepare<[Uint8Array, Uint8Array, Uint8Array, Uint8Array, number, number]>(
    `UPDATE account SET (${manifestColumns}, manifest_seq) = (?, ?, ?, ?, ?) WHERE id = ?`,
  );
  // A transport key speaks for one device: the newest.
  const unbind = db.prepare<[Uint8Array]>(
    'UPDATE device SET transport_spki = NULL WHERE transport_spki = ?',
  );
  const insertDevice = db.prepare<
    [number | bigint, string, Uint8Array, Uint8Array, number, number]
  >(
    `INSERT INTO device
       (account, device_id, identity_pub, transport_spki, session_expires_ms, added_ms)
     VALUES (?, ?, ?, ?, ?, ?)`,
  );
  const insertInbox = db.prepare<[Uint8Array]>('INSERT INTO log (kind, key) VALUES (1, ?)');
  const dropClaims = db.prepare<[number]>('DELETE FROM claim WHERE account = ?');
  const dropAccount = db.prepare<[number]>('DELETE FROM account WHERE id = ?');
  const insertClosing = db.prepare<[Uint8Array, number]>(
    'INSERT INTO kt_closing (label, position) VALUES (?, ?)',
  );

  function needFree(device: NewDevice): void {
    needBytes(device.identityPub, storeBounds.keyBytes, 'identityPub');
    needBytes(device.transportSpki, storeBounds.keyBytes, 'transportSpki');
    if (deviceByKey.get(device.identityPub) !== undefined) {
      throw new ConflictError('NAME_TAKEN', 'identityPub belongs to an account already');
    }
  }

  /** The account that the next manifest belongs to. */
  function needNext({ userId, manifestSeq }: Exclude<AccountEffect, { kind: 'register' }>): number {
    const account = accountByUser.get(userId);
    if (account === undefined) throw new NotFoundError('UNKNOWN_USER', 'userId is unknown');
    if (manifestSeq !== account.manifest_seq + 1) {
      throw new ConflictError(
        'SEQ_CONFLICT',
        `manifestSeq: ${manifestSeq} after ${account.manifest_seq}`,
      );
    }
    return account.id;
  }

  function checkManifest(effect: Extract<AccountEffect, { kind: 'manifest' }>): void {
    const account = needNext(effect);
    for (const identityPub of effect.dropped) {
      needBytes(identityPub, storeBounds.keyBytes, 'dropped');
      const row = deviceByKey.get(identityPub);
      if (row !== undefined && row.account !== account) {
        throw new NotFoundError('UNKNOWN_DEVICE', 'dropped: a device of another account');
      }
    }
    if (effect.added === undefined) return;
    const { device } = effect.added;
    needFree(device);
    const holder = deviceById.get(account, device.deviceId);
    if (holder !== undefined && !effect.dropped.some((one) => holder.equals(one))) {
      throw new ConflictError('NAME_TAKEN', 'deviceId belongs to another device of the account');
    }
  }

  function checkOne(effect: AccountEffect): void {
    switch (effect.kind) {
      case 'register':
        if (accountByUser.get(effect.account.userId) !== undefined) {
          throw new ConflictError('NAME_TAKEN', 'userId is taken');
        }
        if (effect.account.manifestSeq !== 0) {
          throw new InvalidArgumentError('BAD_FIELD', 'manifestSeq: a new account begins with 0');
        }
        needFree(effect.account.device);
        break;
      case 'manifest':
        checkManifest(effect);
        break;
      case 'close':
        needNext(effect);
        break;
    }
  }

  function addDevice(
    nowMs: number,
    account: number | bigint,
    device: NewDevice,
    sessionExpiresMs: number,
  ): void {
    const { deviceId, identityPub, transportSpki } = device;
    unbind.run(transportSpki);
    insertDevice.run(account, deviceId, identityPub, transportSpki, sessionExpiresMs, nowMs);
    insertInbox.run(identityPub);
  }

  function register(nowMs: number, account: NewAccount): void {
    const { userId, setupId, opaqueRecord, manifest, manifestSeq } = account;
    const { lastInsertRowid } = insertAccount.run(
      userId,
      setupId,
      opaqueRecord,
      ...toColumns(manifest),
      manifestSeq,
    );
    addDevice(nowMs, lastInsertRowid, account.device, account.sessionExpiresMs);
  }

  function close(position: number, userId: string, account: number): void {
    for (const device of devicesOfAccount.all(account)) devices.purge(device);
    dropClaims.run(account);
    dropAccount.run(account);
    insertClosing.run(labelOf(userId), position);
  }

  return {
    check(effects, versions) {
      const greatest = new Map<string, number>();
      for (const { label, version } of versions) greatest.set(textOf(label), version);
      const touched = new Set<string>();
      for (const effect of effects) {
        checkOne(effect);
        for (const name of namesOf(effect)) {
          if (touched.has(name)) {
            throw new ConflictError('SEQ_CONFLICT', 'an account or a device twice in one batch');
          }
          touched.add(name);
        }
        const { userId, manifestSeq } = effect.kind === 'register' ? effect.account : effect;
        if (greatest.get(textOf(labelOf(userId))) !== manifestSeq) {
          throw new InvalidArgumentError(
            'BAD_FIELD',
            `manifestSeq: ${manifestSeq} is not the version that the entry adds`,
          );
        }
      }
    },

    apply(nowMs, position, effects) {
      for (const effect of effects) {
        if (effect.kind === 'register') {
          register(nowMs, effect.account);
          continue;
        }
        const account = needNext(effect);
        if (effect.kind === 'close') {
          close(position, effect.userId, account);
          continue;
        }
        for (const identityPub of effect.dropped) {
          const row = deviceByKey.get(identityPub);
          if (row !== undefined) devices.purge(row.id);
        }
        setManifest.run(...toColumns(effect.manifest), effect.manifestSeq, account);
        if (effect.added !== undefined) {
          addDevice(nowMs, account, effect.added.device, effect.added.sessionExpiresMs);
        }
      }
    },
  };
}

/** What an effect touches: accounts by name, devices by key. */
function namesOf(effect: AccountEffect): readonly string[] {
  switch (effect.kind) {
    case 'register':
      return [nameOfUser(effect.account.userId), nameOfDevice(effect.account.device.identityPub)];
    case 'manifest': {
      const added = effect.added === undefined ? [] : [effect.added.device.identityPub];
      return [nameOfUser(effect.userId), ...[...added, ...effect.dropped].map(nameOfDevice)];
    }
    case 'close':
      return [nameOfUser(effect.userId)];
  }
}

const nameOfUser = (userId: string): string => `user ${userId}`;
const nameOfDevice = (key: Uint8Array): string => `device ${textOf(key)}`;

/** A user's label in the log. */
function labelOf(userId: string): Uint8Array {
  return new TextEncoder().encode(userId);
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}
