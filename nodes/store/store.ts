/**
 * The node's store as an async interface: everything a service may ask of the disk. Each write is
 * durable (WAL, synchronous=FULL) when its promise resolves; writes that arrive together commit
 * together. In production it is a worker thread with one SQLCipher file; the core is synchronous,
 * so that a simulation can call it directly.
 */
import type { OutboxStore, RelayInboxStore } from '@quicprochat/federation';

/** Signed manifest as it travels: the signed bytes and the account key's signature. */
export interface StoredManifest {
  readonly manifest: Uint8Array;
  readonly signature: Uint8Array;
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

/** A logged-in device, found by the transport key that its connection presented. */
export interface Session {
  readonly userId: string;
  readonly deviceId: string;
  readonly identityPub: Uint8Array;
  readonly sessionExpiresMs: number;
}

export interface NewKeyPackage {
  /** KeyPackageRef (RFC 9420 section 5.2). */
  readonly ref: Uint8Array;
  readonly suite: number;
  readonly bytes: Uint8Array;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly lastResort: boolean;
}

export interface KeyPackageCount {
  readonly suite: number;
  readonly singleUse: number;
  readonly hasLastResort: boolean;
  readonly lastResortUsed: boolean;
}

export interface StoredPrekey {
  readonly prekey: Uint8Array;
  readonly signature: Uint8Array;
}

export interface ClaimKeyPackages {
  readonly userId: string;
  /** 16 bytes; the same id within 10 minutes answers with the same packages. */
  readonly claimId: Uint8Array;
  /** Where the question comes from: this node's own users, or one peer. */
  readonly scope: string;
  /** Who asks there, for the per-requester limits; claim ids belong to it. */
  readonly requester: string;
  /** Acceptable suites, best first. */
  readonly suites: readonly number[];
  /** Above these many single-use claims per hour the last-resort package is handed out instead. */
  readonly singleUsePerRequesterPerHour: number;
  /** The same bound for one user as the target of everybody of the scope together. */
  readonly singleUsePerTargetPerHour: number;
}

export interface ClaimedKeyPackage {
  readonly identityPub: Uint8Array;
  readonly suite: number;
  readonly bytes: Uint8Array;
  readonly lastResort: boolean;
  readonly prekey: StoredPrekey | undefined;
}

export interface ClaimedKeyPackages {
  readonly manifest: StoredManifest;
  readonly packages: readonly ClaimedKeyPackage[];
}

export interface EnqueueRow {
  readonly rid: Uint8Array;
  readonly kind: number;
  readonly mid: Uint8Array;
  readonly payload: Uint8Array;
  readonly ttlMs: number;
}

export interface Enqueued {
  readonly outcome: 'stored' | 'duplicate';
  readonly tag: Uint8Array;
  readonly receivedMs: number;
}

export interface InboxRow {
  readonly seq: number;
  readonly mid: Uint8Array;
  readonly kind: number;
  readonly payload: Uint8Array;
  readonly receivedMs: number;
}

export interface Fetched {
  /** First seq still held (head + 1 when empty). */
  readonly floor: number;
  /** Newest seq ever assigned; 0 when none. */
  readonly head: number;
  readonly rows: readonly InboxRow[];
  /** Rows the reader asked for that are gone without its ack. */
  readonly gap: { readonly from: number; readonly to: number } | undefined;
}

/** Bounds of one store; numbers are the operator's configuration. */
export interface StoreLimits {
  readonly inboxRows: number;
  readonly inboxBytes: number;
  /** Rows and payload bytes held for one peer before new sends to it fail. */
  readonly outboxRowsPerPeer: number;
  readonly outboxBytesPerPeer: number;
  readonly outboxAgeMs: number;
  readonly deferredRetryMs: number;
  /** How long a tag is remembered after its row is gone. */
  readonly tombstoneMs: number;
  /** The database file may not grow beyond it (STORE_FULL); undefined: as far as the disk goes. */
  readonly databaseBytes?: number | undefined;
}

export interface NodeStore extends OutboxStore, RelayInboxStore, AsyncDisposable {
  /** Renewed when the database is created or found rewound (8 bytes). */
  readonly storeId: Uint8Array;
  /**
   * Resolves (never rejects) when disk, file or thread failed: every call fails from then on, and
   * what was under way has an unknown outcome. The process must end at once and hard (SIGKILL to
   * itself): an orderly exit would close the database, and that syncs again.
   */
  readonly failed: Promise<Error>;

  /** Node-held secrets by name (OPAQUE setup, signing key); `undefined` when never set. */
  secret(name: string): Promise<Uint8Array | undefined>;
  /** Throws ConflictError when it is set already with another value. */
  putSecret(name: string, value: Uint8Array): Promise<void>;

  /** Account, device, session and inbox in one transaction. Throws ConflictError NAME_TAKEN. */
  createAccount(account: NewAccount): Promise<void>;
  account(userId: string): Promise<Account | undefined>;
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

  /** Known refs (also consumed ones, 90 days) are skipped; a last-resort package replaces its suite's. */
  addKeyPackages(
    identityPub: Uint8Array,
    packages: readonly NewKeyPackage[],
  ): Promise<{ readonly stored: number; readonly counts: readonly KeyPackageCount[] }>;
  keyPackageCounts(identityPub: Uint8Array): Promise<readonly KeyPackageCount[]>;
  /** One transaction; a single-use package is never handed to two claims. Undefined: unknown user. */
  claimKeyPackages(claim: ClaimKeyPackages): Promise<ClaimedKeyPackages | undefined>;
  putPrekey(identityPub: Uint8Array, prekey: StoredPrekey, notAfterMs: number): Promise<void>;
  /** Undefined: unknown user. */
  prekeys(userId: string): Promise<
    | {
        readonly manifest: StoredManifest;
        readonly prekeys: readonly {
          readonly identityPub: Uint8Array;
          readonly prekey: StoredPrekey;
        }[];
      }
    | undefined
  >;

  /**
   * Into the inbox of a device of this node. Throws NotFoundError UNKNOWN_DEVICE,
   * ResourceExhaustedError QUEUE_FULL, UnavailableError STORE_FULL; nothing is written then.
   */
  enqueue(row: EnqueueRow): Promise<Enqueued>;
  /** Into the outbox of a peer. Throws UnavailableError PEER_UNREACHABLE when its bounds are reached. */
  enqueueRemote(peer: string, row: EnqueueRow): Promise<Enqueued>;
  /** Pure read of rows with seq > after. Throws FailedPreconditionError BAD_CURSOR when after > head. */
  fetch(rid: Uint8Array, after: number, maxRows: number, maxBytes: number): Promise<Fetched>;
  /** Cumulative, idempotent. Throws FailedPreconditionError BAD_CURSOR above head. */
  ack(rid: Uint8Array, upTo: number): Promise<void>;
  /** Calls back with the device key (hex) after a commit that added rows to its inbox. */
  onRows(listener: (ridHex: string) => void): Disposable;
  /** Removes what is past its time: rows, tombstones, claims, KeyPackages. Bounded work per call. */
  sweep(): Promise<void>;
}
