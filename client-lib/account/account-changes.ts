/**
 * Changes of the own account: each is the account's next manifest, signed with the account key, and
 * done when the log shows it (docs/developer/verification.md). The recovery bundle goes with the key.
 */
import {
  checkManifest,
  ConflictError,
  hasReason,
  InvalidArgumentError,
  manifestOfValue,
  manifestValue,
  methods,
  nextManifest,
  NotFoundError,
  parseUserId,
  signingKeyFromSeed,
  TransportError,
  type ManifestSigners,
  type Runtime,
  type SigningKey,
  sameBytes,
} from '@quicprochat/proto';
import type { Manifest, SignedManifest } from '@quicprochat/proto/messages';
import { AccountError } from './account.ts';
import type { Contacts } from '../contacts/contacts.ts';
import { labelOf, type Logs } from '../kt/logs.ts';
import type { OwnKeys } from '../kt/own-keys.ts';
import { untilShown } from '../kt/until-shown.ts';
import type { Caller } from '../dial.ts';
import { hasNoBundle, openBundle, sealBundle } from './recovery-bundle.ts';
import type { AccountRecord } from '../store/account-rows.ts';
import type { ClientStore } from '../store/store.ts';

/** Attempts when another device's change comes first. */
const attemptsMax = 3;

/** A device of the own account, as the log shows it. */
export interface OwnDevice {
  readonly deviceId: string;
  readonly identityPub: Uint8Array;
  readonly addedMs: number;
  /** End of its session by the node's word (ms); 0: it has none. */
  readonly sessionExpiresMs: number;
  readonly isThisDevice: boolean;
}

export interface AccountChangesParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly logs: Logs;
  readonly contacts: Contacts;
  readonly ownKeys: OwnKeys;
  readonly userId: string;
  readonly identityPub: Uint8Array;
}

type Changes = Parameters<typeof nextManifest>[1];

export class AccountChanges {
  readonly #parts: AccountChangesParts;

  constructor(parts: AccountChangesParts) {
    this.#parts = parts;
  }

  /** The devices that the log shows now. Throws as Contacts.resolve. */
  async devices(caller: Caller, signal?: AbortSignal): Promise<readonly OwnDevice[]> {
    const { contacts, userId, identityPub } = this.#parts;
    const options = signal === undefined ? {} : { signal };
    await contacts.resolve(userId, caller, signal);
    const { devices } = await caller.call(methods.listDevices, {}, options);
    return this.#current().manifest.devices.map((device) => ({
      deviceId: device.deviceId,
      identityPub: device.identityPub,
      addedMs: Number(device.addedMs),
      sessionExpiresMs: Number(
        devices.find((one) => sameBytes(one.identityPub, device.identityPub))?.sessionExpiresMs ??
          0,
      ),
      isThisDevice: sameBytes(device.identityPub, identityPub),
    }));
  }

  /**
   * Revokes a device for good; its key never comes back. Resolves when the log shows it. Throws
   * NotFoundError UNKNOWN_DEVICE, AccountError NO_ACCOUNT_KEY, and what the log and the node say.
   */
  async revokeDevice(
    deviceId: string,
    reason: string,
    caller: Caller,
    signal?: AbortSignal,
  ): Promise<void> {
    const { runtime } = this.#parts;
    const options = signal === undefined ? {} : { signal };
    await this.#change(
      ({ devices, revoked }) => {
        const gone = devices.find((device) => device.deviceId === deviceId);
        if (gone === undefined) {
          throw new NotFoundError('UNKNOWN_DEVICE', `the account has no device ${deviceId}`);
        }
        const { identityPub } = gone;
        const atMs = BigInt(runtime.clock.now());
        // The list is bounded: its oldest entries make room (proto/manifest-chain.ts).
        return {
          devices: devices.filter((device) => device !== gone),
          revoked: [...revoked, { identityPub, atMs, reason }].slice(-64),
        };
      },
      (manifest) => caller.call(methods.revokeDevice, { manifest }, options),
      caller,
      signal,
    );
  }

  /**
   * Replaces the account key by a new one that the old one signs for. The new key is on disk and in
   * the recovery bundle before the log hears of it. `exportKey` is of the account's password.
   */
  async rotateAccountKey(
    exportKey: Uint8Array,
    caller: Caller,
    signal?: AbortSignal,
  ): Promise<void> {
    const { store, runtime, logs, userId } = this.#parts;
    const { accountSeed } = this.#account();
    if (accountSeed === undefined) throw noAccountKey();
    const nextSeed = store.transaction(() => {
      const record = this.#account();
      const seed = record.nextAccountSeed ?? runtime.random.bytes(32);
      store.account.put({ ...record, nextAccountSeed: seed });
      return seed;
    });
    await this.#storeBundle([accountSeed, nextSeed], exportKey, caller, signal);
    const signers = {
      accountKey: signingKeyFromSeed(nextSeed),
      previousAccountKey: signingKeyFromSeed(accountSeed),
    };
    const log = await logs.of(parseUserId(userId).domain, caller);
    await this.#change(
      () => ({}),
      async (signed) => {
        const value = manifestValue(signed);
        await log.client.owner.update(log.transport(caller), labelOf(userId), [value]);
      },
      caller,
      signal,
      { signers },
    );
    await this.#storeBundle([nextSeed], exportKey, caller, signal);
  }

  /**
   * Deletes the account: the closing version goes into the log, everything else of it leaves the node.
   * The session ends with it, so this device cannot ask the log any more: contacts see it there.
   * What this device holds stays until its store is deleted.
   */
  async deleteAccount(caller: Caller, signal?: AbortSignal): Promise<void> {
    const options = signal === undefined ? {} : { signal };
    const { runtime } = this.#parts;
    await this.#change(
      ({ devices, revoked }) => ({
        devices: [],
        closed: true,
        revoked: [
          ...revoked,
          ...devices.map(({ identityPub }) => ({
            identityPub,
            atMs: BigInt(runtime.clock.now()),
            reason: 'account deleted',
          })),
        ].slice(-64),
      }),
      (manifest) => caller.call(methods.deleteAccount, { manifest }, options),
      caller,
      signal,
      { isLast: true },
    );
  }

  /**
   * Makes the recovery bundle what it should be, or takes the account key out of it where this device
   * lacks it. `exportKey` is of the account's password.
   */
  async keepBundle(exportKey: Uint8Array, caller: Caller, signal?: AbortSignal): Promise<void> {
    const { store, userId } = this.#parts;
    const options = signal === undefined ? {} : { signal };
    const record = this.#account();
    const { akPub } = this.#current().manifest;
    const { bundle } = await caller.call(methods.fetchRecoveryBundle, {}, options);
    let seeds: readonly Uint8Array[] = [];
    try {
      const opened = openBundle(userId, bundle, exportKey, record.bundleSeq);
      seeds = opened.accountSeeds;
      store.transaction(() => store.account.put({ ...this.#account(), bundleSeq: opened.seq }));
    } catch (error) {
      // A node that serves an old bundle gets the current one again.
      if (!hasNoBundle(error) && !hasReason(error, 'OLD_BUNDLE')) throw error;
    }
    const found = seeds.find((seed) => sameBytes(signingKeyFromSeed(seed).publicKey, akPub));
    if (found === undefined && record.accountSeed !== undefined) {
      await this.#storeBundle([record.accountSeed], exportKey, caller, signal);
    } else if (found !== undefined && record.accountSeed === undefined) {
      store.transaction(() => store.account.put({ ...this.#account(), accountSeed: found }));
    }
  }

  async #storeBundle(
    accountSeeds: readonly Uint8Array[],
    exportKey: Uint8Array,
    caller: Caller,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { store, runtime, userId } = this.#parts;
    const options = signal === undefined ? {} : { signal };
    const seq = this.#account().bundleSeq + 1;
    const bundle = sealBundle(userId, { seq, accountSeeds }, exportKey, runtime.random);
    await caller.call(methods.storeRecoveryBundle, { bundle }, options);
    store.transaction(() => store.account.put({ ...this.#account(), bundleSeq: seq }));
  }

  /** Makes the next version, has it logged, and looks that the log shows it. */
  async #change(
    change: (current: Manifest) => Changes,
    send: (signed: SignedManifest) => Promise<unknown>,
    caller: Caller,
    signal: AbortSignal | undefined,
    options: { readonly signers?: ManifestSigners; readonly isLast?: boolean } = {},
  ): Promise<void> {
    const { contacts, userId } = this.#parts;
    const { signers = this.#signers(), isLast = false } = options;
    for (let attempt = 1; ; attempt += 1) {
      await contacts.resolve(userId, caller, signal);
      const { signed, manifest } = this.#current();
      const next = nextManifest(signed, change(manifest), signers);
      try {
        await this.#announced(next, send, caller);
        if (!isLast) await this.#requireShown(next, caller, signal);
        return;
      } catch (error) {
        // Another device was faster: its version is the one to go on from.
        if (!hasReason(error, 'SEQ_CONFLICT') || attempt === attemptsMax) throw error;
      }
    }
  }

  async #announced(
    next: SignedManifest,
    send: (signed: SignedManifest) => Promise<unknown>,
    caller: Caller,
  ): Promise<void> {
    const { logs, ownKeys, userId } = this.#parts;
    const log = await logs.of(parseUserId(userId).domain, caller);
    const value = manifestValue(next);
    ownKeys.announce(value);
    log.client.owner.announce(labelOf(userId), [value]);
    await send(next);
  }

  async #requireShown(
    next: SignedManifest,
    caller: Caller,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { contacts, logs, runtime, userId } = this.#parts;
    const log = await logs.of(parseUserId(userId).domain, caller);
    const { seq } = checkManifest(next, userId);
    await untilShown(
      runtime.clock,
      async () => {
        await log.client.owner.updates(log.transport(caller), labelOf(userId));
        const { version } = await contacts.resolve(userId, caller, signal);
        return BigInt(version) >= seq ? version : undefined;
      },
      signal,
    );
    if (sameBytes(this.#current().signed.manifest, next.manifest)) return;
    throw new ConflictError('SEQ_CONFLICT', 'account: the log shows another version');
  }

  #current(): { readonly signed: SignedManifest; readonly manifest: Manifest } {
    const { store, userId } = this.#parts;
    const record = store.contacts.get(userId);
    if (record === undefined) {
      throw new InvalidArgumentError('BAD_FIELD', 'account: its keys were never verified');
    }
    const signed = manifestOfValue(record.value);
    return { signed, manifest: checkManifest(signed, userId) };
  }

  #account(): AccountRecord {
    const record = this.#parts.store.account.get();
    if (record === undefined) throw new TransportError('cancelled', 'the store has no account');
    return record;
  }

  #signers(): ManifestSigners {
    const { accountSeed } = this.#account();
    if (accountSeed === undefined) throw noAccountKey();
    const accountKey: SigningKey = signingKeyFromSeed(accountSeed);
    return { accountKey };
  }
}

function noAccountKey(): AccountError {
  const message = 'this device does not hold the account key: log in again to fetch it';
  return new AccountError('NO_ACCOUNT_KEY', message);
}
