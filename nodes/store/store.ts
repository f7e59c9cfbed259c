/**
 * The node's store as an async interface: everything a service may ask of the disk. Each write is
 * durable (WAL, synchronous=FULL) when its promise resolves; writes that arrive together commit
 * together. In production it is a worker thread with one SQLCipher file; the core is synchronous,
 * so that a simulation can call it directly.
 */
import type {
  OutboxStore,
  PeerNoteStore,
  PeerRecordStore,
  RelayInboxStore,
  RewindStore,
} from '@quicprochat/federation';
import type { AuditStore, TreeStore } from '@quicprochat/kt-log';
import type { ChannelStore } from './channel-store.ts';
import type { GroupStore } from './group-store.ts';
import type { MailboxLimits, MailboxStore } from './mailbox-store.ts';
import type { Reason, Status } from '@quicprochat/proto';

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
  /** Device key (32 bytes) of this node's device that sends it, to be told when it is lost. */
  readonly sender?: Uint8Array;
  /** Delivery token of the recipient device (16 bytes). */
  readonly token?: Uint8Array;
}

/** Messages on their way to many devices, in one transaction. */
export interface EnqueueBatch {
  readonly payloads: readonly { readonly mid: Uint8Array; readonly payload: Uint8Array }[];
  readonly targets: readonly BatchTarget[];
  readonly kind: number;
  readonly ttlMs: number;
  /** Only for inboxes here, and only with a valid token each: others are refused BLOCKED. */
  readonly needsTokens?: boolean;
  /** As in EnqueueRow. */
  readonly sender?: Uint8Array;
}
export interface BatchTarget {
  /** Index into the payloads. */
  readonly payload: number;
  readonly rid: Uint8Array;
  /** Where the device is at home; undefined: here. */
  readonly peer?: string;
  readonly token?: Uint8Array;
}
/** What became of one target. */
export type TargetOutcome =
  | Enqueued
  | {
      readonly outcome: 'refused';
      readonly status: Exclude<Status, 0>;
      readonly reason: Reason;
      readonly retryAfterMs?: number;
    };

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

/** A row of an inbox without its payload. */
export interface InboxRowHeader extends Omit<InboxRow, 'payload'> {
  /** Bytes of the payload. */
  readonly size: number;
}

/** What an outbox holds for one peer. */
export interface OutboxPeer {
  readonly domain: string;
  /** Since when it cannot be reached (Unix ms); 0 = it can, as far as is known. */
  readonly awaySinceMs: number;
  readonly rows: number;
  readonly bytes: number;
  readonly deadRows: number;
  readonly deadBytes: number;
}

/** What became of a message for one device. */
export interface MessageStatus {
  readonly mid: Uint8Array;
  /** The recipient device; empty when nothing is known of the message. */
  readonly rid: Uint8Array;
  readonly state: 'queued' | 'deferred' | 'relayed' | 'bounced' | 'unknown';
  /** Of a bounced one; else empty. */
  readonly reason: string;
}

/** A message that was given up for one device. */
export interface DeadLetter {
  readonly id: number;
  readonly peer: string;
  readonly rid: Uint8Array;
  readonly mid: Uint8Array;
  readonly kind: number;
  readonly bytes: number;
  /** A reason of proto/status.ts. */
  readonly reason: string;
  readonly createdMs: number;
  readonly deadMs: number;
  /** End of the message's own time to live. */
  readonly expiresMs: number;
}

export interface Fetched {
  /** First seq still held (head + 1 when empty). */
  readonly floor: number;
  /** Newest seq ever assigned; 0 when none. */
  readonly head: number;
  readonly rows: readonly InboxRow[];
  /** Rows the reader asked for that are gone without its ack. */
  readonly gap: { readonly from: number; readonly to: number } | undefined;
  /** Of a channel: up to where the reader has acked; 0: nothing since it joined. */
  readonly acked?: number;
}

/** As `Fetched`, with headers in the place of rows. */
export interface Peeked extends Omit<Fetched, 'rows'> {
  readonly rows: readonly InboxRowHeader[];
}

/** Used parts (0 to 1) of the file system that the database is on. */
export interface DiskLimits {
  /** The operator should look. */
  readonly redShare: number;
  /** No new rows. */
  readonly fullShare: number;
  /** Nothing but reads, acks and what ends rows. */
  readonly lastShare: number;
  /** With so many bytes free the disk is not full, whatever part of it that is. */
  readonly freeBytes: number;
}
/** `red`: the operator should look. `full`: no new rows. `last`: nothing that grows. */
export type DiskState = 'ok' | 'red' | 'full' | 'last';

/** Bounds of one store; numbers are the operator's configuration. */
export interface StoreLimits {
  readonly inboxRows: number;
  readonly inboxBytes: number;
  /** Rows in an inbox that came without a valid delivery token. */
  readonly strangerRows: number;
  /** Undefined: the node keeps no mailboxes. */
  readonly mailboxes?: MailboxLimits | undefined;
  /** Rows and payload bytes of one channel; beyond it the oldest rows go. */
  readonly channelRows: number;
  readonly channelBytes: number;
  /** Rows and payload bytes held for one peer before new sends to it fail. */
  readonly outboxRowsPerPeer: number;
  readonly outboxBytesPerPeer: number;
  readonly outboxAgeMs: number;
  readonly deferredRetryMs: number;
  /** How long a peer must be away before the senders of rows that wait for it are told. */
  readonly delayedAfterMs: number;
  /** How long a tag is remembered after its row is gone. */
  readonly tombstoneMs: number;
  /** How full the disk may get; undefined: up to the reserve of space.ts. */
  readonly disk?: DiskLimits | undefined;
  /** The database file may not grow beyond it (STORE_FULL); undefined: as far as the disk goes. */
  readonly databaseBytes?: number | undefined;
}

export interface NodeStore
  extends
    ChannelStore,
    GroupStore,
    MailboxStore,
    OutboxStore,
    RelayInboxStore,
    PeerRecordStore,
    PeerNoteStore,
    RewindStore,
    AsyncDisposable {
  /** Renewed when the database is created or found rewound, also while it is open (8 bytes). */
  readonly storeId: Uint8Array;
  /**
   * Resolves (never rejects) when disk, file or thread failed: every call fails from then on, and
   * what was under way has an unknown outcome. The process must end at once and hard (SIGKILL to
   * itself): an orderly exit would close the database, and that syncs again.
   */
  readonly failed: Promise<Error>;

  /**
   * The node's own key log. Reads never wait for a write (docs: decisions/0006). `commit` writes
   * the batch's effects, which are `AccountEffect`s, in the transaction of the entry.
   */
  readonly keyLog: TreeStore;
  /** What this node replayed of its peers' logs. */
  readonly audits: AuditStore;
  /** The oldest closed accounts (at most 1 000) that `keyLog.erase` did not see yet. */
  closedLabels(): Promise<readonly ClosedLabel[]>;
  /** At most 1 000 accounts without a label in the log: those of a store that had no log yet. */
  accountsOutsideLog(): Promise<readonly Pick<Account, 'userId' | 'manifest'>[]>;

  /** Node-held secrets by name (OPAQUE setup, signing key); `undefined` when never set. */
  secret(name: string): Promise<Uint8Array | undefined>;
  /** Throws ConflictError when it is set already with another value. */
  putSecret(name: string, value: Uint8Array): Promise<void>;

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

  /** The account's sealed bundle; replaces the older one. Throws NotFoundError UNKNOWN_USER. */
  putRecoveryBundle(userId: string, bundle: Uint8Array): Promise<void>;
  recoveryBundle(userId: string): Promise<Uint8Array | undefined>;
  deleteRecoveryBundle(userId: string): Promise<void>;
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
  /**
   * Both for many targets; one outcome for each, in their order. A device that is named more than
   * once gets its rows in that order. Throws UnavailableError STORE_FULL; nothing is written then.
   */
  enqueueBatch(batch: EnqueueBatch): Promise<readonly TargetOutcome[]>;
  /**
   * Hashes (32 bytes each, at most 8) of the tokens by which senders are no strangers to this inbox;
   * from the first call on, rows without one are bounded (`strangerRows`).
   */
  setDeliveryTokens(rid: Uint8Array, hashes: readonly Uint8Array[]): Promise<void>;
  /** Whether the token is one of those in force for the inbox; one without tokens is open to nobody. */
  opensInbox(rid: Uint8Array, token: Uint8Array): Promise<boolean>;
  /**
   * What became of rows that this device (`rid`) sent to a peer: relayed ones are known as long as
   * their tags, bounced ones as long as their dead letters. At most 2 048 answers, in the order of
   * `mids`; those that are missing are to be asked again.
   */
  relayStatus(
    rid: Uint8Array,
    peer: string,
    mids: readonly Uint8Array[],
  ): Promise<{ readonly awaySinceMs: number; readonly statuses: readonly MessageStatus[] }>;
  /** Peers by domain, with what waits for them. */
  outboxPeers(): Promise<readonly OutboxPeer[]>;
  /** Dead letters with id > after, oldest first, at most `max`. */
  deadLetters(after: number, max: number): Promise<readonly DeadLetter[]>;
  /**
   * Dead letters go back to the tail of their outbox, for the rest of their time to live; those
   * without any stay. Unknown ids are skipped.
   */
  retryDead(
    ids: readonly number[],
  ): Promise<{ readonly retried: number; readonly expired: number }>;
  /** Removes dead letters for good. Returns how many there were. */
  dropDead(ids: readonly number[]): Promise<number>;
  /** Pure read of rows with seq > after. Throws FailedPreconditionError BAD_CURSOR when after > head. */
  fetch(rid: Uint8Array, after: number, maxRows: number, maxBytes: number): Promise<Fetched>;
  /** As `fetch`, without payloads. */
  peek(rid: Uint8Array, after: number, maxRows: number): Promise<Peeked>;
  /** Cumulative, idempotent. Throws FailedPreconditionError BAD_CURSOR above head. */
  ack(rid: Uint8Array, upTo: number): Promise<void>;
  /** Calls back with the device key (hex) after a commit that added rows to its inbox. */
  onRows(listener: (ridHex: string) => void): Disposable;
  /** How full the disk is now. */
  diskState(): Promise<DiskState>;
  /** Removes what is past its time: rows, tombstones, claims, KeyPackages. Bounded work per call. */
  sweep(): Promise<void>;
}
