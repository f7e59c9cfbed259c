/** Bounds of the store of a node, and how full its disk is. */
import type { MailboxLimits } from './mailbox-store.ts';

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
