/**
 * The node's store as an async interface: everything a service may ask of the disk. Each write is
 * durable (WAL, synchronous=FULL) when its promise resolves; writes that arrive together commit
 * together. In production it is a worker thread with one SQLCipher file; the core is synchronous,
 * so that a simulation can call it directly. Each area has an interface of its own beside this one.
 */
import type {
  OutboxStore,
  PeerNoteStore,
  PeerRecordStore,
  RelayInboxStore,
  RewindStore,
} from '@quicprochat/federation';
import type { AuditStore, TreeStore } from '@quicprochat/kt-log';
import type { AccountStore } from './account-store.ts';
import type { ChannelStore } from './channel-store.ts';
import type { GroupStore } from './group-store.ts';
import type { KeyStore } from './key-store.ts';
import type { MailboxStore } from './mailbox-store.ts';
import type { MessageStore } from './message-store.ts';
import type { OutboxControl } from './outbox-control.ts';
import type { DiskState } from './store-limits.ts';

export interface NodeStore
  extends
    AccountStore,
    ChannelStore,
    GroupStore,
    KeyStore,
    MailboxStore,
    MessageStore,
    OutboxControl,
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
  /** Node-held secrets by name (OPAQUE setup, signing key); `undefined` when never set. */
  secret(name: string): Promise<Uint8Array | undefined>;
  /** Throws ConflictError when it is set already with another value. */
  putSecret(name: string, value: Uint8Array): Promise<void>;
  /** How full the disk is now. */
  diskState(): Promise<DiskState>;
  /** Removes what is past its time: rows, tombstones, claims, KeyPackages. Bounded work per call. */
  sweep(): Promise<void>;
}
