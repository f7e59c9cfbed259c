/**
 * What the store holds of channels, as an interface: one log per channel that the subscriber devices
 * of this node share, write keys by epoch, and a cursor for each subscriber (docs:
 * protocol/channels). `NodeStore` has these methods too.
 */
import type { Enqueued, Fetched, Peeked } from './message-store.ts';

export interface NewChannel {
  /** 32 bytes. */
  readonly cid: Uint8Array;
  /** Domains whose nodes may change it: 1 or 3. */
  readonly hubs: readonly string[];
  readonly epoch: number;
  /** Ed25519 (32 bytes). */
  readonly writePub: Uint8Array;
  /** This node's own domain. */
  readonly madeBy: string;
}

export interface ChannelPostRow {
  readonly cid: Uint8Array;
  readonly epoch: number;
  /** By the write key of that epoch (64 bytes). */
  readonly signature: Uint8Array;
  readonly kind: number;
  readonly mid: Uint8Array;
  readonly payload: Uint8Array;
  readonly ttlMs: number;
  /** Device key (32 bytes) of this node's device that posts, to be told of domains that do not get it. */
  readonly sender?: Uint8Array;
  /** Other domains of the group: an outbox row each. */
  readonly peers: readonly string[];
  /** Those that this node has no dealings with: a bounce each. */
  readonly denied: readonly string[];
}

/** A subscriber's place in a log; `cid` is empty for its own inbox. */
export interface LogPosition {
  readonly cid: Uint8Array;
  readonly after: number;
}

export interface ReadLog {
  readonly cid: Uint8Array;
  readonly fetched: Fetched;
}

export interface ChannelMembers {
  /** Subscriber devices of this node, ascending. */
  readonly rids: readonly Uint8Array[];
  readonly epoch: number;
}

export interface ChannelStore {
  /**
   * Makes the channel with `rid` as its first subscriber; `wasNew` is false when it is there and
   * `rid` subscribes to it. Throws NotFoundError UNKNOWN_DEVICE, ConflictError NAME_TAKEN for a
   * channel of others, ResourceExhaustedError QUOTA, UnavailableError STORE_FULL.
   */
  createChannel(rid: Uint8Array, channel: NewChannel): Promise<{ readonly wasNew: boolean }>;
  /**
   * One row in the local log and one in the outbox of each peer, in one transaction. A peer whose
   * outbox takes nothing bounces alone. Throws NotFoundError UNKNOWN_CHANNEL (also for an epoch that
   * this node has not been told of yet), InvalidArgumentError BAD_SIGNATURE, UnavailableError
   * STORE_FULL; nothing is written then.
   */
  postToChannel(post: ChannelPostRow): Promise<Enqueued>;
  /**
   * A ChannelUpdate (payload of a row of kind 3) of a hub, `from` its domain; a repeat changes
   * nothing. Throws InvalidArgumentError BAD_FIELD or BAD_SIGNATURE, PermissionDeniedError
   * PEER_DENIED when `from` is no hub of the channel, NotFoundError UNKNOWN_CHANNEL when updates
   * before it are missing, ResourceExhaustedError QUOTA.
   */
  applyChannelUpdate(from: string, payload: Uint8Array): Promise<void>;
  /**
   * Throws NotFoundError UNKNOWN_CHANNEL unless `rid` subscribes to it, as the methods below, or where it subscribes
   * to as many as it may (4 096), which is why updates leave it out, ResourceExhaustedError QUOTA.
   */
  channelMembers(rid: Uint8Array, cid: Uint8Array): Promise<ChannelMembers>;
  /** As `fetch`, of rows that came since `rid` subscribed. */
  fetchChannel(
    rid: Uint8Array,
    position: LogPosition,
    maxRows: number,
    maxBytes: number,
  ): Promise<Fetched>;
  peekChannel(rid: Uint8Array, position: LogPosition, maxRows: number): Promise<Peeked>;
  /** Cumulative, idempotent; rows go when every subscriber whose lease holds has acked them. */
  ackChannel(rid: Uint8Array, cid: Uint8Array, upTo: number): Promise<void>;
  /**
   * Several logs of one reader, in the order given, within common bounds; logs without rows or gap
   * are left out. The details of UNKNOWN_CHANNEL, QUOTA and BAD_CURSOR are the cid of the log.
   */
  fetchLogs(
    rid: Uint8Array,
    positions: readonly LogPosition[],
    maxRows: number,
    maxBytes: number,
  ): Promise<readonly ReadLog[]>;
}
