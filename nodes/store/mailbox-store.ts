/**
 * What the store holds of mailboxes, as an interface: logs for devices of peers' users (docs:
 * protocol/p2p, "Mailboxes"). `NodeStore` has these methods too; rows come in by `enqueue` and
 * `enqueueBatch`, and from no peer.
 */
import type { Fetched, Peeked } from './message-store.ts';

/** How many there are, and what one holds. */
export interface MailboxLimits {
  /** Mailboxes of all, of one domain and of one user; 0: none are granted. */
  readonly places: number;
  readonly perDomain: number;
  readonly perUser: number;
  readonly rows: number;
  /** Rows that came without a valid delivery token. */
  readonly strangerRows: number;
  readonly bytes: number;
  /** Of a mailbox that is not asked for again, and of a row in it. */
  readonly lifetimeMs: number;
}

export interface WantedMailbox {
  /** Device key (32 bytes). */
  readonly rid: Uint8Array;
  readonly userId: string;
  /** Of the user. */
  readonly domain: string;
  /** Hashes (32 bytes each, at most 8) of the tokens that open it. */
  readonly tokenHashes: readonly Uint8Array[];
}

/** What a reader's cursor is about (8 bytes): another one for a mailbox that is made anew. */
export interface OfMailbox {
  readonly storeId: Uint8Array;
}

export interface MailboxStore {
  /**
   * Makes a mailbox, or keeps the one that is there longer. Throws FailedPreconditionError FEATURE_OFF
   * where there are none, ResourceExhaustedError QUOTA when user, domain or node have places enough,
   * UnavailableError STORE_FULL; nothing is written then.
   */
  grantMailbox(wanted: WantedMailbox): Promise<void>;
  /** The mailbox of a device goes with its rows. Nothing happens where there is none. */
  endMailbox(rid: Uint8Array): Promise<void>;
  /** As `fetch`, of a mailbox. Throws NotFoundError UNKNOWN_DEVICE where there is none, as below. */
  fetchMailbox(
    rid: Uint8Array,
    after: number,
    maxRows: number,
    maxBytes: number,
  ): Promise<Fetched & OfMailbox>;
  peekMailbox(rid: Uint8Array, after: number, maxRows: number): Promise<Peeked & OfMailbox>;
  /** Cumulative, idempotent. Throws also DataLossError STORE_CHANGED for another mailbox's id. */
  ackMailbox(rid: Uint8Array, storeId: Uint8Array, upTo: number): Promise<void>;
}
