/**
 * Who somebody is: device manifests, checked and pinned (docs/protocol/cryptography.md). Until key
 * transparency is there, an account key is believed at first use and never replaced; results say
 * so by type (`verification: 'firstUse'`). MLS asks this cache, never the network.
 */
import { createHash } from 'node:crypto';
import {
  checkManifest,
  checkPrekey,
  InvalidArgumentError,
  methods,
  NotFoundError,
  QpcError,
  Status,
  type Runtime,
} from '@quicprochat/proto';
import {
  create,
  SignedManifestSchema,
  type Manifest,
  type SignedManifest,
  type SignedPrekey,
} from '@quicprochat/proto/messages';
import type { EventBus } from './events.ts';
import type { Caller } from './link.ts';
import type { ManifestInfo } from './mls/index.ts';
import type { ClientStore, ContactRecord, Verification } from './store/store.ts';

/** What the application may know of a person. */
export interface Contact {
  readonly userId: string;
  readonly verification: Verification;
  /** Ed25519 account key (32 bytes): what people compare. */
  readonly accountKey: Uint8Array;
  readonly firstSeenMs: number;
  readonly devices: readonly ContactDevice[];
}
export interface ContactDevice {
  readonly deviceId: string;
  /** Device identity key (32 bytes): delivery address and MLS signature key. */
  readonly identityPub: Uint8Array;
}

/** A node presented keys for a known person that we refuse to use. */
export class ContactError extends QpcError {
  override name = 'ContactError';
  readonly userId: string;
  constructor(
    reason: 'ACCOUNT_KEY_CHANGED' | 'MANIFEST_ROLLBACK' | 'MANIFEST_FORK',
    userId: string,
    message: string,
  ) {
    super(Status.FailedPrecondition, reason, message);
    this.userId = userId;
  }
}

export interface ContactParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  /** The own account key (32 bytes), where this device holds it: no node can swap our own. */
  readonly own: { readonly userId: string; readonly accountKey: Uint8Array } | undefined;
}

export class Contacts {
  readonly #parts: ContactParts;
  readonly #cache = new Map<string, Contact & { readonly info: ManifestInfo }>();

  constructor(parts: ContactParts) {
    this.#parts = parts;
  }

  /** The pinned contact, from the store alone. */
  get(userId: string): Contact | undefined {
    return this.#load(userId);
  }

  /** For MLS: what the pinned manifest says, undefined when the user is unknown here. */
  readonly lookup = (userId: string): ManifestInfo | undefined => this.#load(userId)?.info;

  /**
   * Checks a manifest that a node served and pins it: durable on return. The account key of the
   * first one stays for ever; a version never goes back. Throws InvalidArgumentError (malformed,
   * badly signed), ContactError ACCOUNT_KEY_CHANGED, MANIFEST_ROLLBACK or MANIFEST_FORK.
   */
  accept(userId: string, signed: SignedManifest): Contact {
    const { store, runtime, events, own } = this.#parts;
    const manifest = checkManifest(signed, userId);
    const nowMs = runtime.clock.now();
    const known = store.contacts.get(userId);
    const pinned = own?.userId === userId ? own.accountKey : known?.accountKey;
    if (pinned !== undefined && !sameBytes(pinned, manifest.akPub)) {
      if (store.transaction(() => store.contacts.addRefused(userId, manifest.akPub, nowMs))) {
        events.emit({ type: 'accountKeyChanged', userId });
      }
      throw new ContactError(
        'ACCOUNT_KEY_CHANGED',
        userId,
        'contact: the node presented another account key than the one first seen',
      );
    }
    const seq = Number(manifest.seq);
    if (known !== undefined) checkSuccession(userId, known, manifest, signed);
    if (known === undefined || seq > known.manifestSeq) {
      store.transaction(() =>
        store.contacts.put({
          userId,
          accountKey: manifest.akPub,
          manifest: signed.manifest,
          signature: signed.signature,
          manifestSeq: seq,
          firstSeenMs: known?.firstSeenMs ?? nowMs,
          checkedMs: nowMs,
          verification: 'firstUse',
        }),
      );
      this.#cache.delete(userId);
    }
    const contact = this.#load(userId);
    if (contact === undefined) throw new NotFoundError('UNKNOWN_USER', 'contact: was not stored');
    return contact;
  }

  /**
   * Asks the own node for a user's manifest and pins it. Throws NotFoundError UNKNOWN_USER, what
   * `accept` throws, and the caller's transport errors.
   */
  async resolve(userId: string, caller: Caller, signal?: AbortSignal): Promise<Contact> {
    const response = await caller.call(
      methods.resolveUser,
      { userId },
      signal === undefined ? {} : { signal },
    );
    if (response.manifest === undefined) {
      throw new InvalidArgumentError('BAD_FIELD', 'resolve user: the answer has no manifest');
    }
    return this.accept(userId, response.manifest);
  }

  /**
   * Checks a device's signed prekey and keeps it. Throws InvalidArgumentError when it is not the
   * device's or has expired.
   */
  acceptPrekey(identityPub: Uint8Array, signed: SignedPrekey): Uint8Array {
    const { store, runtime } = this.#parts;
    const { xwingPub, notAfterMs } = checkPrekey(signed, identityPub, runtime.clock.now());
    store.transaction(() => store.contacts.putPrekey(identityPub, xwingPub, notAfterMs));
    return xwingPub;
  }

  /** A device's X-Wing prekey (1216 bytes) that is valid now. */
  prekey(identityPub: Uint8Array): Uint8Array | undefined {
    const found = this.#parts.store.contacts.prekey(identityPub);
    if (found === undefined || found.notAfterMs <= this.#parts.runtime.clock.now()) {
      return undefined;
    }
    return found.publicKey;
  }

  #load(userId: string): (Contact & { readonly info: ManifestInfo }) | undefined {
    const cached = this.#cache.get(userId);
    if (cached !== undefined) return cached;
    const record = this.#parts.store.contacts.get(userId);
    if (record === undefined) return undefined;
    const contact = contactOf(record);
    this.#cache.set(userId, contact);
    return contact;
  }
}

function contactOf(record: ContactRecord): Contact & { readonly info: ManifestInfo } {
  // Checked again: it costs one signature per start, and a damaged store must not add a device.
  const manifest = checkManifest(signedManifestOf(record), record.userId);
  const revoked = manifest.revoked.map(({ identityPub }) => identityPub);
  const devices = manifest.devices
    .filter(({ identityPub }) => !revoked.some((key) => sameBytes(key, identityPub)))
    .map(({ deviceId, identityPub }) => ({ deviceId, identityPub }));
  return {
    userId: record.userId,
    verification: record.verification,
    accountKey: record.accountKey,
    firstSeenMs: record.firstSeenMs,
    devices,
    info: { devices, revoked },
  };
}

function signedManifestOf(record: ContactRecord): SignedManifest {
  return create(SignedManifestSchema, { manifest: record.manifest, signature: record.signature });
}

/** A manifest may repeat or follow the known one; never precede, replace or ignore it. */
function checkSuccession(
  userId: string,
  known: ContactRecord,
  next: Manifest,
  signed: SignedManifest,
): void {
  const seq = Number(next.seq);
  if (seq < known.manifestSeq) {
    throw new ContactError(
      'MANIFEST_ROLLBACK',
      userId,
      `contact: manifest ${seq} after ${known.manifestSeq}`,
    );
  }
  const isFork =
    seq === known.manifestSeq
      ? !sameBytes(signed.manifest, known.manifest)
      : seq === known.manifestSeq + 1 && !sameBytes(next.prev, sha256(known.manifest));
  if (isFork) {
    throw new ContactError(
      'MANIFEST_FORK',
      userId,
      `contact: manifest ${seq} does not follow the known one`,
    );
  }
}

function sha256(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}

/** Equality of public bytes. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
