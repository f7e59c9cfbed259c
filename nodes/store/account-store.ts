/**
 * What the store keeps of accounts, as an interface: their manifests, devices and sessions, and recovery
 * bundles. Accounts change with an entry of the key log, as its effects (AccountEffect). `NodeStore` has these
 * methods too.
 */

/** Signed manifest as it travels (manifest.proto); absent fields were empty. */
export interface StoredManifest {
  readonly manifest: Uint8Array;
  readonly signature: Uint8Array;
  readonly akPrevSignature?: Uint8Array;
  readonly approval?: Uint8Array;
}

export interface NewAccount {
  readonly userId: string;
  readonly setupId: number;
  readonly opaqueRecord: Uint8Array;
  readonly manifest: StoredManifest;
  readonly manifestSeq: number;
  readonly device: NewDevice;
  readonly sessionExpiresMs: number;
}

export interface NewDevice {
  readonly deviceId: string;
  readonly identityPub: Uint8Array;
  /** SHA-256 SPKI of the device's transport key (32 bytes). */
  readonly transportSpki: Uint8Array;
}

export interface Account {
  readonly userId: string;
  readonly setupId: number;
  readonly opaqueRecord: Uint8Array;
  readonly manifest: StoredManifest;
  readonly manifestSeq: number;
}

/**
 * What an update of the key log means for accounts: an element of `LogBatch.effects`, written in the
 * transaction of its entry. The user's label is the UTF-8 of `userId`, and the entry has to add
 * version `manifestSeq` to it as the greatest one. A refusal changes nothing:
 *
 * - ConflictError NAME_TAKEN: `userId`, a device key or a device id is somebody's already;
 * - ConflictError SEQ_CONFLICT: `manifestSeq` does not follow the stored one, or two effects of a
 *   batch touch one account or one device;
 * - NotFoundError: UNKNOWN_USER; UNKNOWN_DEVICE when `dropped` names a device of another account
 *   (a key that nobody has is nothing to drop);
 * - InvalidArgumentError BAD_FIELD: a key that is not 32 bytes, or a `manifestSeq` that the entry
 *   does not add.
 */
export type AccountEffect =
  /** Account, device, session and inbox; `manifestSeq` is 0. */
  | { readonly kind: 'register'; readonly account: NewAccount }
  /**
   * The next manifest: a device more, or devices gone with inbox, payloads that nobody else needs,
   * KeyPackages, prekey and session.
   */
  | {
      readonly kind: 'manifest';
      readonly userId: string;
      readonly manifest: StoredManifest;
      readonly manifestSeq: number;
      readonly added?: { readonly device: NewDevice; readonly sessionExpiresMs: number };
      /** Identity keys (32 bytes). */
      readonly dropped: readonly Uint8Array[];
    }
  /**
   * The account goes: OPAQUE record, manifest, recovery bundle, claims of its packages, and its
   * devices as above.
   * What stays: the label's rows in the log, which `keyLog.erase` takes later (`closedLabels`),
   * and the log itself; rows in inboxes of others and on their way to peers, which are theirs;
   * verdicts on rows that a peer sent to its devices, until that peer settles them; and, for
   * an hour, whom its devices asked for KeyPackages (the limits per requester).
   */
  | {
      readonly kind: 'close';
      readonly userId: string;
      readonly manifest: StoredManifest;
      readonly manifestSeq: number;
    };

/** A device of an account. */
export interface Device {
  readonly deviceId: string;
  readonly identityPub: Uint8Array;
  /** Of the key that it logged in with last; undefined when it is logged out. */
  readonly transportSpki: Uint8Array | undefined;
  readonly sessionExpiresMs: number;
  /** Undefined for a device of a store that had no key log yet. */
  readonly addedMs: number | undefined;
}

/** A label whose account is closed and that is still stored. */
export interface ClosedLabel {
  readonly label: Uint8Array;
  /** Of the closing entry. */
  readonly position: number;
}

/** A logged-in device, found by the transport key that its connection presented. */
export interface Session {
  readonly userId: string;
  readonly deviceId: string;
  readonly identityPub: Uint8Array;
  readonly sessionExpiresMs: number;
}

export interface AccountStore {
  account(userId: string): Promise<Account | undefined>;
  /** Whose device has this identity key. */
  accountByIdentity(identityPub: Uint8Array): Promise<{ readonly userId: string } | undefined>;
  /** In the order in which they came; empty for an unknown user. */
  devices(userId: string): Promise<readonly Device[]>;
  /**
   * Binds a transport key to a device of the account, replacing the device's older one.
   * Throws NotFoundError UNKNOWN_DEVICE when the device is not the account's.
   */
  bindSession(
    userId: string,
    identityPub: Uint8Array,
    transportSpki: Uint8Array,
    sessionExpiresMs: number,
  ): Promise<void>;
  endSession(transportSpki: Uint8Array): Promise<void>;
  /** Live or expired session; the caller compares `sessionExpiresMs`. */
  sessionByTransportKey(transportSpki: Uint8Array): Promise<Session | undefined>;
  /** The account's sealed bundle; replaces the older one. Throws NotFoundError UNKNOWN_USER. */
  putRecoveryBundle(userId: string, bundle: Uint8Array): Promise<void>;
  recoveryBundle(userId: string): Promise<Uint8Array | undefined>;
  deleteRecoveryBundle(userId: string): Promise<void>;
  /** The oldest closed accounts (at most 1 000) that `keyLog.erase` did not see yet. */
  closedLabels(): Promise<readonly ClosedLabel[]>;
  /** At most 1 000 accounts without a label in the log: those of a store that had no log yet. */
  accountsOutsideLog(): Promise<readonly Pick<Account, 'userId' | 'manifest'>[]>;
}
