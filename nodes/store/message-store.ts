/**
 * What the store keeps of messages, as an interface: rows into inboxes of this node and outboxes towards others,
 * and out of inboxes to their devices. `NodeStore` has these methods too.
 */
import type { Reason, Status } from '@quicprochat/proto';

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

/** What became of a message for one device. */
export interface MessageStatus {
  readonly mid: Uint8Array;
  /** The recipient device; empty when nothing is known of the message. */
  readonly rid: Uint8Array;
  readonly state: 'queued' | 'deferred' | 'relayed' | 'bounced' | 'unknown';
  /** Of a bounced one; else empty. */
  readonly reason: string;
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

export interface MessageStore {
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
   * from the first call on, rows without one are bounded (`strangerRows`). `renewals`: the first one, sealed for
   * those that may have it (48 bytes each, at most 48 KiB). Resolves with true when there were others before, and no
   * renewals are kept.
   */
  setDeliveryTokens(
    rid: Uint8Array,
    hashes: readonly Uint8Array[],
    renewals?: Uint8Array,
  ): Promise<boolean>;
  /** What is kept for who shows one of the last 64 tokens that were in force before, and the hash of the one that is. */
  tokenRenewals(
    rid: Uint8Array,
    token: Uint8Array,
  ): Promise<{ readonly hash: Uint8Array; readonly renewals: Uint8Array } | undefined>;
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
  /** Pure read of rows with seq > after. Throws FailedPreconditionError BAD_CURSOR when after > head. */
  fetch(rid: Uint8Array, after: number, maxRows: number, maxBytes: number): Promise<Fetched>;
  /** As `fetch`, without payloads. */
  peek(rid: Uint8Array, after: number, maxRows: number): Promise<Peeked>;
  /** Cumulative, idempotent. Throws FailedPreconditionError BAD_CURSOR above head. */
  ack(rid: Uint8Array, upTo: number): Promise<void>;
  /** Calls back with the device key (hex) after a commit that added rows to its inbox. */
  onRows(listener: (ridHex: string) => void): Disposable;
}
