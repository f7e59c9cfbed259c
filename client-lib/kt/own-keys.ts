/**
 * The own account as the log shows it: whether its keys are this device's, and what others changed
 * (docs/developer/verification.md). Knows nothing of time and connections.
 */
import { createHash } from 'node:crypto';
import {
  checkManifest,
  manifestOfValue,
  signingKeyFromSeed,
  type Runtime,
  sameBytes,
} from '@quicprochat/proto';
import { ContactError, type ShownVersion } from '../contacts/contact.ts';
import type { EventBus } from '../events.ts';
import type { AccountRecord } from '../store/account-rows.ts';
import type { ClientStore } from '../store/store.ts';
import { describeChange, type VersionChange } from './manifest-history.ts';

export interface OwnKeysParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly userId: string;
}

export class OwnKeys {
  readonly #parts: OwnKeysParts;

  constructor(parts: OwnKeysParts) {
    this.#parts = parts;
  }

  /** Says, durably, that this device is about to have a version with this value logged. */
  announce(value: Uint8Array): void {
    const { store, runtime, userId } = this.#parts;
    const atMs = runtime.clock.now();
    store.logs.addEvent({ atMs, type: ownChange, subject: userId, reason: digestOf(value) });
  }

  /**
   * Judges what the log shows as the account's newest keys, before it is kept: nobody but the account
   * itself may have replaced its key. Tells what other devices changed; takes note when this device's
   * next account key is the one now, or when it no longer holds it. Throws ContactError
   * UNEXPECTED_KEY.
   */
  readonly check = (shown: ShownVersion, changes: readonly VersionChange[]): void => {
    const { store, userId } = this.#parts;
    const { akPub } = checkManifest(manifestOfValue(shown.value), userId);
    const isReset = changes.some(({ kind }) => kind === 'identityReset');
    const isFirst = changes.some(({ kind }) => kind === 'first');
    store.transaction(() => {
      const account = store.account.get();
      if (account === undefined) return;
      const holder = seedsOf(account).find((seed) => sameBytes(publicKeyOf(seed), akPub));
      if (holder === undefined && (isReset || (isFirst && account.accountSeed !== undefined))) {
        const message = 'the log shows an account key that is not this account’s';
        throw new ContactError('UNEXPECTED_KEY', userId, message);
      }
      if (holder === account.accountSeed) return;
      store.account.put({ ...account, accountSeed: holder, nextAccountSeed: undefined });
    });
    for (const change of changes) this.#tell(change);
  };

  /** The log shows keys for the own account that are not believed: durable, then told, once. */
  readonly refused = (error: ContactError): void => {
    const { store, runtime, events, userId } = this.#parts;
    const { reason, message } = error;
    const atMs = runtime.clock.now();
    const isNew = store.logs.addEvent({
      atMs,
      type: 'unexpectedKey',
      subject: userId,
      reason: `${reason}: ${message}`,
    });
    if (isNew) events.emit({ type: 'unexpectedKey', reason, message });
  };

  #tell(change: VersionChange): void {
    const { store, runtime, events, userId } = this.#parts;
    const { version, value, kind, added, revoked } = change;
    if (kind === 'first' || kind === 'identityReset') return;
    const atMs = runtime.clock.now();
    const isOwn = store.logs.hasEvent(ownChange, userId, digestOf(value));
    if (isOwn) return;
    const reason = `version ${version}: ${describeChange(change)}`;
    const isNew = store.logs.addEvent({ atMs, type: 'deviceChange', subject: userId, reason });
    if (isNew) events.emit({ type: 'deviceChange', version, change: kind, added, revoked });
  }
}

/** Marks of what this device did itself: for nobody's eyes. */
const ownChange = 'ownChange';

const digestOf = (value: Uint8Array): string => createHash('sha256').update(value).digest('hex');

const seedsOf = (account: AccountRecord): Uint8Array[] =>
  [account.accountSeed, account.nextAccountSeed].filter((seed) => seed !== undefined);

const publicKeyOf = (seed: Uint8Array): Uint8Array => signingKeyFromSeed(seed).publicKey;
