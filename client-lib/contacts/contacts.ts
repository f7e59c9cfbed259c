/**
 * Who somebody is: device manifests that the key-transparency log of their home vouches for
 * (docs/developer/verification.md). There is no other way in: what a node serves beside keys is
 * compared with what the log shows. MLS asks this cache, never the network.
 */
import { VerificationError } from '@quicprochat/kt-log/verify';
import {
  checkManifest,
  checkPrekey,
  hasReason,
  InvalidArgumentError,
  manifestOfValue,
  NotFoundError,
  parseUserId,
  type QpcError,
  type Runtime,
  sameBytes,
} from '@quicprochat/proto';
import type { SignedManifest, SignedPrekey } from '@quicprochat/proto/messages';
import {
  ContactError,
  contactLimits,
  loadedOf,
  recordAfter,
  type Contact,
  type Loaded,
  type ShownVersion,
  type Verification,
} from './contact.ts';
import type { EventBus } from '../events.ts';
import { LogError } from '../kt/log-record.ts';
import { describeChange, historyBetween, type VersionChange } from '../kt/manifest-history.ts';
import { labelOf, type DomainLog, type Logs } from '../kt/logs.ts';
import type { Caller } from '../dial.ts';
import type { ManifestInfo } from '../mls/index.ts';
import type { ContactRecord } from '../store/contact-rows.ts';
import type { ClientStore } from '../store/store.ts';

export interface ContactParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly logs: Logs;
  /** Changes of the own account are its guardian's to tell. */
  readonly ownUserId: string;
  /** A log, or a node that speaks for one, showed something that no honest one shows. */
  readonly onLie: (domain: string, error: QpcError) => void;
  /** Judges what a log shows of the own account. Throws ContactError UNEXPECTED_KEY. */
  readonly checkOwn: (shown: ShownVersion, changes: readonly VersionChange[]) => void;
  /** What the log shows of the own account is not believed. */
  readonly onOwnRefused: (error: ContactError) => void;
}

export class Contacts {
  readonly #parts: ContactParts;
  readonly #cache = new Map<string, Loaded>();
  /** When a log could not be reached for a user, by monotonic time. */
  readonly #unreached = new Map<string, number>();
  /** When prekeys of users were asked for (monotonic ms). */
  readonly #askedMs = new Map<string, number>();

  constructor(parts: ContactParts) {
    this.#parts = parts;
  }

  /** The verified contact, from the store alone. */
  get(userId: string): Contact | undefined {
    const loaded = this.#load(userId);
    if (loaded === undefined) return undefined;
    const { info: _info, ...contact } = loaded;
    const witnessed = this.#isWitnessed(loaded);
    return { ...contact, witnessed, verification: this.#verificationOf(loaded, witnessed) };
  }

  /** How sure we are of the keys of a device: `get`, and `revoked` for one that is gone. */
  verificationOf(userId: string, deviceId: string): Verification {
    const contact = this.get(userId);
    if (contact === undefined) return 'unknown';
    const isThere = contact.devices.some((device) => device.deviceId === deviceId);
    return isThere || contact.isBlocked ? contact.verification : 'revoked';
  }

  /** For MLS: what the verified manifest says; undefined when it has to be looked up first. */
  readonly lookup = (userId: string): ManifestInfo | undefined => {
    const contact = this.#load(userId);
    return contact !== undefined && !contact.isBlocked && this.#isUsable(contact)
      ? contact.info
      : undefined;
  };

  /** Throws ContactError IDENTITY_RESET for the first user whose keys are blocked. */
  requireUnblocked(userIds: readonly string[]): void {
    for (const userId of userIds) {
      if (this.#load(userId)?.isBlocked === true) throw blocked(userId);
    }
  }

  /**
   * Looks a user up in the log of its home and keeps what it shows: durable on return. Throws
   * NotFoundError UNKNOWN_USER, ContactError, VerificationError (the log lies), LogError, and what
   * the node or the connection answers.
   */
  async resolve(userId: string, caller: Caller, signal?: AbortSignal): Promise<Contact> {
    return this.#telling(userId, () => this.#resolve(userId, caller, signal));
  }

  /** Makes it known when somebody lies about a person's keys. */
  async #telling<T>(userId: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      const { ownUserId, onOwnRefused, onLie } = this.#parts;
      if (error instanceof ContactError && userId === ownUserId) onOwnRefused(error);
      else if (isLie(error)) onLie(parseUserId(userId).domain, error);
      throw error;
    }
  }

  async #resolve(userId: string, caller: Caller, signal?: AbortSignal): Promise<Contact> {
    const { logs, runtime, store } = this.#parts;
    const { domain } = parseUserId(userId);
    const before = store.contacts.get(userId);
    try {
      const log = await logs.of(domain, caller);
      if (logs.isConvicted(domain)) {
        throw new LogError('LOG_CONVICTED', domain, 'it contradicted itself; see the evidence');
      }
      const transport = log.transport(caller);
      const options = signal === undefined ? {} : { signal };
      const found = await log.client.search(transport, labelOf(userId), options);
      const shown = { ...found, treeSize: found.size, atMs: runtime.clock.now() };
      await this.accept(userId, { ...shown, source: 'log' }, before, { log, caller });
    } catch (error) {
      const isHidden =
        hasReason(error, 'UNKNOWN_USER') && before !== undefined && !isClosedRecord(before);
      if (!isHidden) throw error;
      const message = `the log showed version ${before.version} before, and hides it now`;
      throw new ContactError('MANIFEST_ROLLBACK', userId, message, { cause: error });
    }
    this.#unreached.delete(userId);
    return this.#unblocked(userId);
  }

  /**
   * The contact, with keys that are fresh and no older than those that a node served beside others.
   * Throws what `resolve` throws, ContactError NOT_IN_LOG for keys that the log does not show.
   */
  async verified(
    userId: string,
    served: SignedManifest,
    caller: Caller,
    signal?: AbortSignal,
  ): Promise<Contact> {
    return this.#telling(userId, () => this.#verified(userId, served, caller, signal));
  }

  async #verified(
    userId: string,
    served: SignedManifest,
    caller: Caller,
    signal?: AbortSignal,
  ): Promise<Contact> {
    const known = this.#parts.store.contacts.get(userId);
    const isKnown = known !== undefined && isValue(known.value, served);
    const contact = this.#load(userId);
    if (contact !== undefined && isKnown && this.#ageMs(contact) <= contactLimits.freshMs) {
      return this.#unblocked(userId);
    }
    const seq = checkManifest(served, userId).seq;
    if (known !== undefined && seq < BigInt(known.version)) {
      const message = `the node served version ${seq} of its keys, ${known.version} is known`;
      throw new ContactError('MANIFEST_ROLLBACK', userId, message);
    }
    const shown = await this.#resolve(userId, caller, signal);
    const after = this.#parts.store.contacts.get(userId);
    // The log may be ahead of what was served with the keys: then what it shows is used.
    if (
      seq > BigInt(shown.version) ||
      (seq === BigInt(shown.version) && !isServed(after, served))
    ) {
      throw new ContactError(
        'NOT_IN_LOG',
        userId,
        'the node served keys that the log does not show',
      );
    }
    return shown;
  }

  /**
   * Takes in a version that was shown to be a user's greatest, after judging what it changed. Durable
   * on return; a race with another answer is won by the greater version. Throws ContactError
   * MANIFEST_ROLLBACK or MANIFEST_FORK.
   */
  async accept(
    userId: string,
    shown: ShownVersion,
    before: ContactRecord | undefined,
    source?: { readonly log: DomainLog; readonly caller: Caller },
  ): Promise<void> {
    const { store, ownUserId, checkOwn } = this.#parts;
    if (before !== undefined && shown.version < before.version) {
      const message = `version ${shown.version} of its keys after ${before.version}`;
      throw new ContactError('MANIFEST_ROLLBACK', userId, message);
    }
    const changes = await historyBetween(userId, before, shown, source).catch((cause: unknown) => {
      if (!(cause instanceof InvalidArgumentError) || cause instanceof VerificationError)
        throw cause;
      throw new ContactError('MANIFEST_FORK', userId, cause.message, { cause });
    });
    if (userId === ownUserId) checkOwn(shown, changes);
    const isNew = store.transaction(() => {
      const current = store.contacts.get(userId);
      if (current !== undefined && current.version > shown.version) return false;
      store.contacts.put(recordAfter(userId, current, shown, changes));
      return current === undefined || current.version < shown.version;
    });
    this.#cache.delete(userId);
    if (isNew) this.#tell(userId, changes);
  }

  /**
   * Says that people compared this account key (32 bytes) with the person's own. From now on a
   * replacement without its signature blocks the contact. Throws NotFoundError UNKNOWN_USER,
   * InvalidArgumentError when it is not the key that the log shows.
   */
  verify(userId: string, accountKey: Uint8Array): Contact {
    const { store } = this.#parts;
    store.transaction(() => {
      const record = this.#require(userId);
      if (!sameBytes(record.accountKey, accountKey)) {
        throw new InvalidArgumentError('BAD_FIELD', 'contact: not the account key in the log');
      }
      store.contacts.put({ ...record, comparedKey: accountKey });
    });
    this.#cache.delete(userId);
    return this.#unblocked(userId);
  }

  /** Uses the new keys of a contact that is blocked, uncompared. Throws NotFoundError UNKNOWN_USER. */
  acceptIdentityReset(userId: string): Contact {
    const { store } = this.#parts;
    store.transaction(() => {
      store.contacts.put({ ...this.#require(userId), comparedKey: undefined });
    });
    this.#cache.delete(userId);
    return this.#unblocked(userId);
  }

  /** A log could not be reached: keys up to a week old may be used for a while. True if they can. */
  passUnreached(userId: string): boolean {
    const contact = this.#load(userId);
    if (contact === undefined || this.#ageMs(contact) > contactLimits.unreachableMs) return false;
    this.#unreached.set(userId, this.#parts.runtime.clock.monotonic());
    return true;
  }

  /**
   * Checks a device's signed prekey and keeps it. Throws InvalidArgumentError when it is not the
   * device's, has expired, or nothing can be sealed to it.
   */
  acceptPrekey(identityPub: Uint8Array, signed: SignedPrekey): Uint8Array {
    const { store, runtime } = this.#parts;
    const { xwingPub, notAfterMs } = checkPrekey(signed, identityPub, runtime.clock.now());
    store.transaction(() => store.contacts.putPrekey(identityPub, xwingPub, notAfterMs));
    return xwingPub;
  }

  /** Their devices' prekeys were asked for, and what came is taken in. */
  noteAsked(userIds: readonly string[]): void {
    const nowMs = this.#parts.runtime.clock.monotonic();
    for (const userId of userIds) this.#askedMs.set(userId, nowMs);
  }

  /** Whether that was within the last minute: who has none then has none now. */
  lacksPrekeys(userId: string): boolean {
    const askedMs = this.#askedMs.get(userId) ?? Number.NEGATIVE_INFINITY;
    return this.#parts.runtime.clock.monotonic() - askedMs < contactLimits.prekeyAskMs;
  }

  /** A device's X-Wing prekey (1216 bytes) that is valid now. */
  prekey(identityPub: Uint8Array): Uint8Array | undefined {
    const found = this.#parts.store.contacts.prekey(identityPub);
    if (found === undefined || found.notAfterMs <= this.#parts.runtime.clock.now()) {
      return undefined;
    }
    return found.publicKey;
  }

  #require(userId: string): ContactRecord {
    const record = this.#parts.store.contacts.get(userId);
    if (record === undefined) throw new NotFoundError('UNKNOWN_USER', 'contact: never looked up');
    return record;
  }

  #unblocked(userId: string): Contact {
    const contact = this.get(userId);
    if (contact === undefined) throw new NotFoundError('UNKNOWN_USER', 'contact: was not stored');
    if (contact.isBlocked) throw blocked(userId);
    return contact;
  }

  #tell(userId: string, changes: readonly VersionChange[]): void {
    const { events, store, runtime, ownUserId } = this.#parts;
    if (userId === ownUserId) return;
    for (const change of changes) {
      if (change.kind === 'first') continue;
      const isReset = change.kind === 'identityReset';
      const type = isReset ? 'identityReset' : 'keyChange';
      const atMs = runtime.clock.now();
      const reason = `version ${change.version}: ${describeChange(change)}`;
      if (!store.logs.addEvent({ atMs, type, subject: userId, reason })) continue;
      const { version, added, revoked } = change;
      if (change.kind === 'identityReset') {
        const isBlocked = this.#load(userId)?.isBlocked === true;
        events.emit({ type: 'identityReset', userId, version, isBlocked });
      } else {
        events.emit({ type: 'keyChange', userId, version, change: change.kind, added, revoked });
      }
    }
  }

  #ageMs({ verifiedMs }: Loaded): number {
    // A clock that went back must not make keys look older or younger than a lifetime.
    return Math.abs(this.#parts.runtime.clock.now() - verifiedMs);
  }

  #isUsable(contact: Loaded): boolean {
    const ageMs = this.#ageMs(contact);
    if (ageMs <= contactLimits.freshMs) return true;
    if (contact.source === 'credential') return ageMs <= contactLimits.credentialMs;
    const unreachedMs = this.#unreached.get(contact.userId);
    if (unreachedMs === undefined) return false;
    const sinceMs = this.#parts.runtime.clock.monotonic() - unreachedMs;
    return sinceMs <= contactLimits.passMs && ageMs <= contactLimits.unreachableMs;
  }

  #isWitnessed({ userId, treeSize, source }: Loaded): boolean {
    if (source === 'credential') return false;
    const log = this.#parts.logs.known(parseUserId(userId).domain);
    return (log?.client.head()?.witnessedSize ?? 0) >= treeSize;
  }

  #verificationOf(contact: Loaded, witnessed: boolean): Verification {
    if (contact.isBlocked) return 'blocked';
    if (contact.source === 'credential') return 'credential';
    if (this.#ageMs(contact) > contactLimits.freshMs) return 'notRechecked';
    if (contact.isCompared) return 'compared';
    return witnessed ? 'witnessed' : 'logged';
  }

  #load(userId: string): Loaded | undefined {
    const cached = this.#cache.get(userId);
    if (cached !== undefined) return cached;
    const record = this.#parts.store.contacts.get(userId);
    if (record === undefined) return undefined;
    const contact = loadedOf(record);
    this.#cache.set(userId, contact);
    return contact;
  }
}

function isClosedRecord({ userId, value }: ContactRecord): boolean {
  return checkManifest(manifestOfValue(value), userId).closed;
}

/** What is not an honest node's or log's doing, nor the person's own. */
function isLie(error: unknown): error is QpcError {
  if (error instanceof VerificationError) return true;
  return error instanceof ContactError && error.reason !== 'IDENTITY_RESET';
}

function isServed(record: ContactRecord | undefined, served: SignedManifest): boolean {
  return record !== undefined && isValue(record.value, served);
}

/** Whether the signed bytes of a value are those that were served; their signature was checked. */
function isValue(value: Uint8Array, served: SignedManifest): boolean {
  return sameBytes(manifestOfValue(value).manifest, served.manifest);
}

function blocked(userId: string): ContactError {
  const message = 'its account key was replaced without the signature of the one you compared';
  return new ContactError('IDENTITY_RESET', userId, message);
}
