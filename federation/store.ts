/**
 * What federation needs on disk, as interfaces that the node's store implements: the durable
 * outbox of a sending node and the cursor of a receiving one (docs: protocol/federation).
 */

/** `control` carries what is needed to decrypt the rest; a bulk backlog never delays it. */
export type LaneName = 'control' | 'bulk';

/** What a row for a channel carries beside its cid. */
export interface ChannelMark {
  readonly epoch: number;
  /** Of a post (64 bytes); empty for a ChannelUpdate. */
  readonly signature: Uint8Array;
}

/** One row of the outbox: one ciphertext for one or more devices of the peer. */
export interface OutboxRow {
  /** From 1 without gaps within (peer, lane, streamId). */
  readonly seq: number;
  readonly kind: number;
  /** 16 bytes. */
  readonly mid: Uint8Array;
  readonly payload: Uint8Array;
  /** Recipient device keys, 32 bytes each; of a row for a channel its cid alone. */
  readonly rids: readonly Uint8Array[];
  readonly channel?: ChannelMark;
  /** For each of these devices, what the peer gives back when the row expires there unread. */
  readonly slips?: readonly Uint8Array[];
  /** Delivery tokens (16 bytes, or empty) of these devices, in their order. */
  readonly tokens?: readonly Uint8Array[];
  /** Milliseconds of the row's ttl that are left, by this node's clock when it was read. */
  readonly ttlLeftMs: number;
  /** Hash chain up to and including this row (16 bytes). */
  readonly chain: Uint8Array;
}

/** Where an outgoing stream stands on this node's disk. */
export interface OutboundStream {
  /** 16 bytes. */
  readonly streamId: Uint8Array;
  readonly nextSeq: number;
  /** The receiver's cursor as last confirmed; rows up to it are deleted. */
  readonly acked: number;
  /** Chain at `acked` (16 bytes; zeros at 0). */
  readonly chain: Uint8Array;
}

export interface Reject {
  readonly seq: number;
  readonly rid: Uint8Array;
  /** A reason of proto/status.ts. */
  readonly reason: string;
  readonly temporary: boolean;
}

/** Dial state of a peer, kept over restarts. */
export interface PeerState {
  readonly failures: number;
  /** Unix ms of the next dial; 0 = now. */
  readonly nextTryMs: number;
  /** Unix ms since when it fails; 0 = it does not. */
  readonly failingSinceMs: number;
}

/** Every method is durable when it resolves. */
export interface OutboxStore {
  /** The stream of a lane, made (random stream id, seq 1) when there is none yet. */
  outboundStream(peer: string, lane: LaneName): Promise<OutboundStream>;
  /** Rows with seq > after in order, bounded by count and payload bytes; at least one if any. */
  readOutbox(
    peer: string,
    lane: LaneName,
    after: number,
    maxItems: number,
    maxBytes: number,
  ): Promise<OutboxRow[]>;
  /** Chain value at `seq`, for seq = acked or any row still held; undefined otherwise. */
  outboxChainAt(peer: string, lane: LaneName, seq: number): Promise<Uint8Array | undefined>;
  /**
   * One transaction: acked := cursor and its chain, rows up to it deleted, permanent rejects moved
   * to dead letters, temporary ones deferred (they return at the tail with a new seq). A no-op when
   * `streamId` is not the current one or cursor is not beyond acked and no new reject is in it.
   */
  settleOutbox(
    peer: string,
    lane: LaneName,
    streamId: Uint8Array,
    cursor: number,
    rejects: readonly Reject[],
  ): Promise<void>;
  /**
   * New random stream id; all rows still held are renumbered from 1, acked 0, chain recomputed. `hasLost`: the peer
   * does not have any more what it confirmed, so repeats of that are sent again, and its senders are told.
   */
  restartOutbound(peer: string, lane: LaneName, hasLost?: boolean): Promise<OutboundStream>;
  /** Peers with rows to send. */
  peersWithRows(): Promise<string[]>;
  /**
   * Deferred rows that are due go to the tail of their lane; rows past their age become dead. `dueInMs`: how long no
   * other one is due; undefined: none is deferred.
   */
  requeueDue(): Promise<{
    readonly requeuedPeers: readonly string[];
    readonly deadRows: number;
    readonly dueInMs: number | undefined;
  }>;
  peerState(peer: string): Promise<PeerState>;
  setPeerState(peer: string, state: PeerState): Promise<void>;
}

/** Where an incoming stream stands. */
export interface InboundStream {
  readonly lane: LaneName;
  readonly streamId: Uint8Array;
  readonly cursor: number;
  readonly chain: Uint8Array;
}

export interface RelayItemIn {
  readonly kind: number;
  readonly mid: Uint8Array;
  readonly payload: Uint8Array;
  /** Device keys; of an item for a channel its cid alone. */
  readonly rids: readonly Uint8Array[];
  readonly channel?: ChannelMark;
  /** As in OutboxRow, of the peer (at most 64 bytes each); shorter, or undefined: none. */
  readonly slips?: readonly Uint8Array[];
  /** As in OutboxRow; shorter, or undefined: none. */
  readonly tokens?: readonly Uint8Array[];
  readonly ttlMs: number;
  /**
   * Set when the item itself is refused (unknown kind, too large): the store writes this reject for
   * each of its rids and no entry; cursor and chain move over the item as over any other.
   */
  readonly refused?: { readonly reason: string; readonly temporary: boolean };
}

export interface RelayBatch {
  readonly lane: LaneName;
  readonly streamId: Uint8Array;
  readonly acked: number;
  readonly firstSeq: number;
  readonly items: readonly RelayItemIn[];
}

export interface RelayApplied {
  readonly cursor: number;
  readonly chain: Uint8Array;
  /** All rejects of the stream with seq > the batch's `acked`. */
  readonly rejects: readonly Reject[];
}

export interface RelayInboxStore {
  inboundStreams(peer: string): Promise<InboundStream[]>;
  /**
   * One transaction: skip the prefix up to the cursor, insert payloads and entries (a known tag is
   * ignored), rejects, cursor and chain; then the inboxes' waiters are woken. An unknown stream id
   * replaces the lane's older one and starts at cursor 0.
   * Throws DataLossError STREAM_GAP when firstSeq > cursor + 1; nothing is written then.
   */
  applyRelay(peer: string, batch: RelayBatch): Promise<RelayApplied>;
}

/** How far a store had come: its id and its commits. */
export interface StoreMark {
  /** 8 bytes. */
  readonly storeId: Uint8Array;
  readonly commits: number;
}

/** A mark as its node says it, with what only that node can check (16 bytes). */
export interface ProvenMark extends StoreMark {
  readonly proof: Uint8Array;
}

/** What tells a store that it was restored from an older copy (docs: protocol/federation). */
export interface RewindStore {
  /** Of this store; every commit in it is on disk. */
  storeMark(): Promise<StoreMark>;
  /**
   * Gives the store a new id when the mark is of this very store and ahead of it: then it went back
   * in time. Returns whether it did; durable, and `storeId` has changed, when it resolves.
   */
  renewIfBehind(mark: StoreMark): Promise<boolean>;
  /** What the peer said last; undefined when it said nothing yet. */
  peerMark(peer: string): Promise<ProvenMark | undefined>;
  /** A mark of the same store that is behind the kept one changes nothing. */
  setPeerMark(peer: string, mark: ProvenMark): Promise<void>;
}

/** What is known of the keys of a peer. */
export interface HeldPeerRecord {
  readonly domain: string;
  /** Encoded SignedNodeRecord, proven; undefined when none was. */
  readonly record: Uint8Array | undefined;
  /** SPKI hashes (32 bytes each) that a record had once and has no longer. */
  readonly retiredPins: readonly Uint8Array[];
  /** Encoded SignedNodeRecord of unknown keys that the domain's site shows. */
  readonly candidate: Uint8Array | undefined;
  /** Since when it does (Unix ms). */
  readonly candidateSinceMs: number;
  /** Not from the peers file. */
  readonly isFound: boolean;
}

/** The newest proven NodeRecord of each peer, and what else is known of its keys. */
export interface PeerRecordStore {
  peerRecords(): Promise<readonly HeldPeerRecord[]>;
  /** Replaces all of it; durable when it resolves. The caller has verified the record. */
  putPeerRecord(held: HeldPeerRecord): Promise<void>;
}

/** What an operator sees of a peer. */
export interface PeerNote {
  /** Unix ms; 0: never. */
  readonly seenMs: number;
  readonly linkState: string;
  /** Reason of the last failure; empty: none. */
  readonly lastError: string;
  /** Items that the peer takes at once, as it said last. */
  readonly creditItems: number;
}

export interface PeerNoteStore {
  setPeerNote(peer: string, note: PeerNote): Promise<void>;
  /** Every peer that is not quite forgotten. */
  peerNotes(): Promise<readonly (PeerNote & { readonly domain: string })[]>;
  /**
   * Gives up what waits for a peer that is denied: dead letters and bounces with PEER_DENIED, at most
   * 1 000 rows. Returns how many rows there were.
   */
  bouncePeer(peer: string): Promise<number>;
}
