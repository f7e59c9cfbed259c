/**
 * The one way in which accounts change: the next manifest is checked, becomes the next version of
 * the user's label in the key-transparency log, and is written to account and devices in the
 * transaction of its log entry (docs/protocol/key-transparency.md). Then sessions and other devices
 * are told.
 */
import type { KtLog } from '@quicprochat/kt-log';
import {
  checkNextManifest,
  ConflictError,
  InvalidArgumentError,
  manifestValue,
  NotFoundError,
  PushEvent,
  ResourceExhaustedError,
  TokenBuckets,
  UnauthenticatedError,
  type Clock,
  type ManifestChange,
  type Rate,
  sameBytes,
} from '@quicprochat/proto';
import {
  create,
  DeviceChangeEventSchema,
  fromBinary,
  KeyChangeEventSchema,
  ManifestSchema,
  SignedManifestSchema,
  toBinary,
  type Manifest,
  type ManifestDevice,
  type SignedManifest,
} from '@quicprochat/proto/messages';
import { userLabel } from './key-log.ts';
import type { PushHub } from './push.ts';
import type { Sessions } from './sessions.ts';
import type { AccountEffect, NewAccount } from './store/account-store.ts';
import type { NodeStore } from './store/store.ts';
import type { LogWaiters } from './waiters.ts';

export interface AccountsOptions {
  readonly clock: Clock;
  readonly store: NodeStore;
  readonly log: KtLog;
  readonly sessions: Sessions;
  readonly push: PushHub;
  readonly waiters: LogWaiters;
  /** New accounts of the whole node. */
  readonly registrations: Rate;
  /** New versions of all accounts. */
  readonly leaves: Rate;
}

/** Who asks for a change, and what may change then. */
export type AccountChange =
  /** The caller's device comes in, with the session of its connection; others may leave. */
  | {
      readonly kind: 'enroll';
      readonly identityPub: Uint8Array;
      readonly transportSpki: Uint8Array;
      readonly sessionExpiresMs: number;
    }
  /** A device leaves. */
  | { readonly kind: 'revokeDevice'; readonly identityPub: Uint8Array }
  /** A key more is revoked, of a device or of none. */
  | { readonly kind: 'revokeKey'; readonly identityPub: Uint8Array }
  /** Account key or policy, with the same devices. */
  | { readonly kind: 'update'; readonly identityPub: Uint8Array }
  /** The account goes. */
  | { readonly kind: 'close'; readonly identityPub: Uint8Array };

/** How a version gets into the log with its effects; the default answers nothing. */
export type WriteVersion = (effects: readonly AccountEffect[]) => Promise<void>;

/** What a next manifest does to the devices. */
interface Difference {
  readonly manifest: Manifest;
  readonly before: Manifest;
  readonly change: ManifestChange;
  readonly added: readonly ManifestDevice[];
  readonly dropped: readonly ManifestDevice[];
  readonly hasMoreRevoked: boolean;
}

export class Accounts {
  readonly #options: AccountsOptions;
  readonly #growth: TokenBuckets;
  /** The last change of each user that is under way: the next one waits for it. */
  readonly #turns = new Map<string, Promise<void>>();
  /** Device keys on their way into an account: the store is asked once, before the log entry. */
  readonly #arriving = new Set<string>();

  constructor(options: AccountsOptions) {
    this.#options = options;
    this.#growth = new TokenBuckets(options.clock);
  }

  /**
   * Makes an account whose manifest is version 0 of its label. Durable on return, in log and account.
   * Throws ConflictError NAME_TAKEN when the name or the device key was ever taken here,
   * ResourceExhaustedError RATE_LIMITED beyond the node's pace, and what checkNextManifest throws.
   */
  async register(
    account: Omit<NewAccount, 'manifest' | 'manifestSeq'>,
    signed: SignedManifest,
  ): Promise<void> {
    const { store, log, sessions, registrations } = this.#options;
    const { userId, device } = account;
    const manifest = plainManifest(signed);
    checkNextManifest(undefined, manifest, userId);
    const label = userLabel(userId);
    await this.#inTurn(userId, () =>
      this.#arrive(device.identityPub, async () => {
        // The label outlives the account: a name that was closed is never given out again.
        if ((await store.account(userId)) !== undefined || (await log.isTaken(label))) {
          throw new ConflictError('NAME_TAKEN', 'userId is taken');
        }
        this.#admit('registrations', registrations);
        this.#admit('leaves', this.#options.leaves);
        const effects: readonly AccountEffect[] = [
          { kind: 'register', account: { ...account, manifest, manifestSeq: 0 } },
        ];
        const values = [manifestValue(manifest)];
        try {
          await log.append({ label, greatest: -1, values }, { effects });
        } finally {
          // Also after a failure: the entry may have been written.
          sessions.forget(device.transportSpki);
        }
      }),
    );
  }

  /**
   * Makes `signed` the account's next version. Durable on return, in log and account; what left has
   * lost queues, keys and sessions. The same manifest once more changes nothing. Throws
   * ConflictError SEQ_CONFLICT or NAME_TAKEN, InvalidArgumentError BAD_FIELD for what `by` may not
   * change, UnauthenticatedError when its device left meanwhile, ResourceExhaustedError
   * RATE_LIMITED, and what checkNextManifest throws. `write` replaces the plain append to the log.
   */
  async change(
    userId: string,
    signed: SignedManifest,
    by: AccountChange,
    write?: WriteVersion,
  ): Promise<'changed' | 'repeated'> {
    const next = plainManifest(signed);
    return this.#inTurn(userId, async () => {
      const account = await this.#options.store.account(userId);
      if (account === undefined) throw new NotFoundError('UNKNOWN_USER', 'no such user');
      const previous = create(SignedManifestSchema, account.manifest);
      const isRepeat = sameBytes(manifestValue(previous), manifestValue(next));
      if (isRepeat && by.kind !== 'enroll') return 'repeated';
      const difference = compare(previous, next, userId);
      checkCaller(by, difference);
      checkPurpose(by, difference);
      const run = (): Promise<void> => this.#write(userId, next, by, difference, write);
      await (by.kind === 'enroll' ? this.#arrive(by.identityPub, run) : run());
      return 'changed';
    });
  }

  async #write(
    userId: string,
    manifest: SignedManifest,
    by: AccountChange,
    difference: Difference,
    write: WriteVersion | undefined,
  ): Promise<void> {
    const { log, sessions } = this.#options;
    this.#admit('leaves', this.#options.leaves);
    const effect = effectOf(userId, manifest, by, difference);
    const greatest = effect.manifestSeq - 1;
    const append = async (): Promise<void> => {
      const label = userLabel(userId);
      await log.append(
        { label, greatest, values: [manifestValue(manifest)] },
        { effects: [effect] },
      );
    };
    try {
      await (write === undefined ? append() : write([effect]));
    } finally {
      // Also after a failure: the entry may have been written. Who still has a session is found again.
      for (const { identityPub } of difference.dropped) sessions.forgetDevice(identityPub);
      if (by.kind === 'enroll') sessions.forget(by.transportSpki);
    }
    this.#tell(userId, by, difference);
  }

  /** Ends what runs for devices that left, and hints to those that stay. */
  #tell(userId: string, by: AccountChange, difference: Difference): void {
    const { push, sessions, waiters } = this.#options;
    const { before, dropped, added, change, hasMoreRevoked } = difference;
    for (const { identityPub } of dropped) {
      push.end(identityPub);
      waiters.release(identityPub);
    }
    if (by.kind === 'close') {
      sessions.forgetEnrolling(userId);
      return;
    }
    const isDeviceChange = added.length > 0 || dropped.length > 0 || hasMoreRevoked;
    const isKeyChange = change !== 'next' || !isDeviceChange;
    for (const device of before.devices) {
      if (dropped.includes(device) || sameBytes(device.identityPub, by.identityPub)) continue;
      if (isDeviceChange) push.hint(device.identityPub, PushEvent.DeviceChange, deviceChanged());
      if (isKeyChange) push.hint(device.identityPub, PushEvent.KeyChange, keyChanged(userId));
    }
  }

  /** Holds a device key while it becomes one of an account, so that no effect can be refused for it. */
  async #arrive<T>(identityPub: Uint8Array, run: () => Promise<T>): Promise<T> {
    const key = Buffer.from(identityPub).toString('latin1');
    if (this.#arriving.has(key)) throw deviceTaken();
    this.#arriving.add(key);
    try {
      if ((await this.#options.store.accountByIdentity(identityPub)) !== undefined) {
        throw deviceTaken();
      }
      return await run();
    } finally {
      this.#arriving.delete(key);
    }
  }

  #admit(what: 'registrations' | 'leaves', rate: Rate): void {
    const retryAfterMs = this.#growth.take(what, rate);
    if (retryAfterMs > 0) {
      const message = `this node takes at most ${rate.perSecond} ${what} a second`;
      throw new ResourceExhaustedError('RATE_LIMITED', message, { retryAfterMs });
    }
  }

  /** Runs after the changes of the same user that came before. */
  async #inTurn<T>(userId: string, run: () => Promise<T>): Promise<T> {
    const turn = (this.#turns.get(userId) ?? Promise.resolve()).then(run);
    const ended = turn.then(
      () => undefined,
      // Whoever asked for it gets the error.
      () => undefined,
    );
    this.#turns.set(userId, ended);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(userId) === ended) this.#turns.delete(userId);
    }
  }
}

/** The same without unknown fields, so that account and log hold the same bytes. */
export function plainManifest(signed: SignedManifest): SignedManifest {
  const { manifest, signature, akPrevSignature, approval } = signed;
  return create(SignedManifestSchema, { manifest, signature, akPrevSignature, approval });
}

function compare(previous: SignedManifest, next: SignedManifest, userId: string): Difference {
  const { manifest, change } = checkNextManifest(previous, next, userId);
  const before = fromBinary(ManifestSchema, previous.manifest);
  const without = (
    devices: readonly ManifestDevice[],
    others: readonly ManifestDevice[],
  ): readonly ManifestDevice[] =>
    devices.filter((one) => !others.some((other) => sameBytes(one.identityPub, other.identityPub)));
  const hasMoreRevoked = manifest.revoked.some(
    ({ identityPub }) => !before.revoked.some((one) => sameBytes(one.identityPub, identityPub)),
  );
  return {
    manifest,
    before,
    change,
    added: without(manifest.devices, before.devices),
    dropped: without(before.devices, manifest.devices),
    hasMoreRevoked,
  };
}

/** The device may have left while its call waited for another change. */
function checkCaller(by: AccountChange, { before }: Difference): void {
  if (by.kind === 'enroll') return;
  if (!before.devices.some(({ identityPub }) => sameBytes(identityPub, by.identityPub))) {
    throw new UnauthenticatedError('NOT_LOGGED_IN', 'the session ended: log in');
  }
}

/** Throws InvalidArgumentError BAD_FIELD for a manifest that does not do what the method is for. */
function checkPurpose(by: AccountChange, difference: Difference): void {
  const { manifest, added, dropped, hasMoreRevoked } = difference;
  const [device, second] = added;
  const isOpen = !manifest.closed;
  const adds = {
    none: device === undefined,
    caller:
      device !== undefined && second === undefined && sameBytes(device.identityPub, by.identityPub),
  };
  const rules: Record<AccountChange['kind'], readonly [isHeld: boolean, what: string]> = {
    enroll: [isOpen && adds.caller, 'add the calling device and no other'],
    revokeDevice: [isOpen && adds.none && dropped.length > 0, 'revoke a device and add none'],
    revokeKey: [isOpen && adds.none && hasMoreRevoked, 'revoke a key and add no device'],
    update: [
      isOpen && adds.none && dropped.length === 0 && !hasMoreRevoked,
      'leave devices and revoked keys as they are',
    ],
    close: [manifest.closed, 'close the account'],
  };
  const [isHeld, what] = rules[by.kind];
  if (!isHeld) throw new InvalidArgumentError('BAD_FIELD', `manifest: has to ${what}`);
}

function effectOf(
  userId: string,
  manifest: SignedManifest,
  by: AccountChange,
  { manifest: { seq, devices }, dropped }: Difference,
): Exclude<AccountEffect, { kind: 'register' }> {
  const common = { userId, manifest, manifestSeq: Number(seq) };
  if (by.kind === 'close') return { kind: 'close', ...common };
  const left = dropped.map(({ identityPub }) => identityPub);
  if (by.kind !== 'enroll') return { kind: 'manifest', ...common, dropped: left };
  const { identityPub, transportSpki, sessionExpiresMs } = by;
  const deviceId =
    devices.find((device) => sameBytes(device.identityPub, identityPub))?.deviceId ?? '';
  const device = { deviceId, identityPub, transportSpki };
  return { kind: 'manifest', ...common, dropped: left, added: { device, sessionExpiresMs } };
}

function deviceTaken(): ConflictError {
  return new ConflictError('NAME_TAKEN', 'identityPub belongs to an account already');
}

function deviceChanged(): Uint8Array {
  return toBinary(DeviceChangeEventSchema, create(DeviceChangeEventSchema));
}
function keyChanged(userId: string): Uint8Array {
  return toBinary(KeyChangeEventSchema, create(KeyChangeEventSchema, { userId }));
}
