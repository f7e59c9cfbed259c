/**
 * What a copy in the outbox of the device store is, and what is asked and told of copies on their way:
 * one ciphertext for one device, or a post for all readers of a channel. outbox-rows.ts keeps them in SQL.
 */
import type { Path, PeerPath } from './paths.ts';
import type { PrekeyWaitRows } from './prekey-wait-rows.ts';
import type { TokenWaitRows } from './token-wait-rows.ts';

export interface OutboxTarget {
  /** Recipient device (32 bytes) and its home. */
  readonly rid: Uint8Array;
  readonly domain: string;
  /** Whose device it is; receipts count by user. */
  readonly userId?: string | undefined;
}

/** What a receipt says of a message. */
export type ReceiptKind = 'DELIVERED' | 'READ';

/** What a copy is, besides its bytes. */
export interface OutboxAbout {
  /** RECEIPT and RESEND (requests and answers) are of no message of their own. */
  readonly kind: 'MESSAGE' | 'HANDSHAKE' | 'RECEIPT' | 'RESEND';
  readonly groupId: Uint8Array;
  /** A handshake's: the one that it leads to. */
  readonly epoch: bigint;
  /** How often it counts as sent again from the start; beyond the schedule: no receipt will come. */
  readonly resends?: number;
  /** Which own key of the epoch an application message used. */
  readonly generation?: number;
}

/** What makes a row one for all members of a channel: its `rid` is the channel's id. */
export interface OutboxPost {
  /** Encoded ChannelPost: with signature and domains. */
  readonly bytes: Uint8Array;
  /** Devices that can read it (32 bytes each). */
  readonly readers: readonly Uint8Array[];
}

export interface OutboxEntry extends OutboxTarget {
  readonly id: number;
  readonly mid: Uint8Array;
  readonly payload: Uint8Array;
  readonly messageId: number | undefined;
  readonly createdMs: number;
  /** How often it was refused for want of a delivery token. */
  readonly tokenWaits: number;
  /** Encoded ChannelPost; undefined: for a device. */
  readonly post: Uint8Array | undefined;
}

/** A copy that the node has, with what decides on sending it again. */
export interface OutboxRow extends OutboxEntry {
  readonly groupId: Uint8Array | undefined;
  readonly epoch: number | undefined;
  /** See OutboxAbout. */
  readonly generation: number | undefined;
  readonly acceptedMs: number | undefined;
  readonly resends: number;
}

/** A delivery proof with what it is about, for anybody to check (proto/delivery-proof.ts). */
export interface StoredProof extends OutboxTarget {
  readonly mid: Uint8Array;
  readonly tag: Uint8Array;
  readonly receivedMs: number;
  /** 64 bytes. */
  readonly proof: Uint8Array;
}

export interface OutboxRows extends TokenWaitRows, PrekeyWaitRows {
  /** One ciphertext for its targets, state SEALED, behind everything older of each target. */
  add(
    entry: {
      readonly mid: Uint8Array;
      readonly payload: Uint8Array;
      readonly targets: readonly OutboxTarget[];
      readonly messageId: number | undefined;
      readonly about?: OutboxAbout;
      /** It is a post: one row that is never sent again by schedule, and is known when it comes back. */
      readonly post?: OutboxPost;
    },
    nowMs: number,
  ): void;
  /**
   * The same for what its devices should have by now another way: sent if nobody confirms it, or if it comes back
   * from that way, where a hub brings it under the mid `broughtMid` (16 bytes).
   */
  addSent(entry: Parameters<OutboxRows['add']>[0], nowMs: number, broughtMid?: Uint8Array): void;
  /** Devices with SEALED rows to be sent: hex of rid and id of the newest row; oldest row first. */
  openTargets(): readonly { readonly target: string; readonly newestId: number }[];
  /** Oldest SEALED row of a device with id > after, without those that are to be sealed anew. */
  next(ridHex: string, after: number): OutboxRow | undefined;
  /**
   * Also sets when it is sent again, unless somebody confirms it. An OK to what was sent before the copy
   * came back for want of a token changes nothing: `sent` says how often it had, and with which token the node
   * has it, if that is known.
   * True if it was SEALED.
   */
  markAccepted(
    id: number,
    storeId: Uint8Array,
    nowMs: number,
    sent?: {
      readonly tokenWaits: number;
      readonly token: Uint8Array | undefined;
      readonly via?: 'node' | 'guest';
    },
  ): boolean;
  /** The device has the copy: its bytes go. */
  markDelivered(id: number, nowMs: number, via: PeerPath): void;
  /** By which paths the copies of a message left first, sorted, as far as they have. */
  paths(messageId: number): readonly Path[];
  /**
   * Devices (hex of rid) with rows after `afterId` that are not known to have come to them, or that are
   * SEALED, and the newest id of any row.
   */
  undeliveredTargets(
    afterId: number,
    which?: 'all' | 'sealed',
  ): {
    readonly targets: readonly { readonly target: string; readonly domain: string }[];
    readonly newestId: number;
  };
  /**
   * The oldest such row of a device with id > after; at a `node`, without what its own node has already.
   * Receipts and requests count only while SEALED: nobody waits for a second copy of them. For a mailbox, as
   * at a device, without what the node of `mailbox` has for it.
   */
  undelivered(
    ridHex: string,
    after: number,
    at: 'node' | 'device',
    mailbox?: string,
  ): OutboxRow | undefined;
  /** A SEALED copy is given up. True if it was one. */
  markFailed(id: number, failure: string): boolean;
  /** A post that its channel takes no more is due to be sealed anew; false: it was too often. */
  sealPostAnew(id: number, nowMs: number): boolean;
  /**
   * The same for posts that came back, each at a time that it is asked for. Returns how many are to be sealed anew, also
   * since before: each node refuses one by itself.
   */
  returnPosts(mid: Uint8Array, cid: Uint8Array, dueMs: (post: OutboxRow) => number): number;
  /** The group is in another epoch: its posts that came back are due now. Returns how many waited. */
  postsDue(groupId: Uint8Array, nowMs: number): number;
  /** Whether an own message was posted where this device could read it. */
  wasPostedTo(messageId: number, rid: Uint8Array): boolean;
  /**
   * The greatest generation of an epoch in what went to a device and did not come back; undefined
   * for none.
   */
  newestGeneration(groupId: Uint8Array, rid: Uint8Array, epoch: number): number | undefined;
  /** The recipient's own node took the row: it is as good as relayed. */
  markArrived(id: number): void;
  /** The node's signature that it took the row (64 bytes), and when that was by its clock. */
  putProof(id: number, proof: Uint8Array, receivedMs: number): void;
  /** Of the copies of a message, as far as their nodes signed for them. */
  proofs(messageId: number): readonly StoredProof[];
  /** The recipient's node has this copy. Returns how many rows changed. */
  markRelayed(mid: Uint8Array, rid: Uint8Array): number;
  /** A device has the message, or showed it: its bytes go. True if that was news. */
  confirm(messageId: number, rid: Uint8Array, kind: ReceiptKind): boolean;
  /** A device is in this epoch: commits and Welcomes that led there arrived. */
  confirmHandshakes(groupId: Uint8Array, rid: Uint8Array, epoch: bigint): void;
  /** Users none of whose devices has confirmed the message. */
  usersWithout(messageId: number, kind: ReceiptKind): readonly string[];
  /** Whether a copy of the message was sealed for this device, as far as rows are kept. */
  wasSentTo(messageId: number, rid: Uint8Array): boolean;
  /**
   * The copy for this device is lost, by the node's word. Returns the message (undefined: a commit
   * or Welcome) of each copy that was not known to be.
   */
  markLost(
    mid: Uint8Array,
    rid: Uint8Array,
    notice: 'bounced' | 'expired',
    failure: string,
  ): readonly (number | undefined)[];
  /** Copies for devices of this domain wait at the node. Returns the message of each. */
  markDelayed(mid: Uint8Array, domain: string, atMs: number): readonly (number | undefined)[];
  /**
   * Copies for devices of a domain that nobody has confirmed are due to be sent again: its node may have lost them.
   * Not those that were sent again often enough. `also` the invitations for devices of all domains. Returns how many.
   */
  resendTo(domain: string, nowMs: number, also?: 'invitations'): number;
  /** ACCEPTED rows of another store become SEALED again, same mid and bytes. Returns how many. */
  reopen(storeId: Uint8Array): number;
  /** Copies that are to be sent again by now, longest due first (see due.ts). */
  due(nowMs: number, limit: number): readonly OutboxRow[];
  /** When the next of all copies is, or of those to be sealed, anew or at all; undefined for none. */
  nextDueMs(which: 'all' | 'unsealed'): number | undefined;
  /** A copy that nobody confirmed is SEALED again and sent, same mid and bytes. */
  sendAgain(id: number): void;
  /** When a copy is sent again; undefined: never. A SEALED one is sealed anew then, and not sent before. */
  setResend(id: number, atMs: number | undefined): void;
  /** Another ciphertext took this copy's place. */
  replaced(id: number): void;
  /** Accepted since then for other domains and not known to be relayed, newest first. */
  unrelayed(ownDomain: string, sinceMs: number, limit: number): readonly OutboxRow[];
  openCount(): number;
  failures(): readonly {
    readonly id: number;
    readonly messageId: number | undefined;
    readonly rid: Uint8Array;
    readonly failure: string;
  }[];
  /** Removes what nobody waits for: by age and by number, in rows and in bytes. Never SEALED ones. */
  expire(nowMs: number): void;
}
