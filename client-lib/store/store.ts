/**
 * The device store as an interface: one file, one process, synchronous. A transaction is durable
 * (WAL, synchronous=FULL) when `transaction` returns. Areas are small interfaces of rows; what a
 * row means and which rows belong into one transaction is the callers' business (sync, outbox,
 * conversation).
 */
import type { PastEpoch } from '../mls/index.ts';
import type { ChannelRows } from './channel-rows.ts';
import type { TokenRows } from './token-rows.ts';
import type { TokenWaitRows } from './token-wait-rows.ts';
import type { GroupLogRows } from './group-log-rows.ts';
import type { StandingRows } from './standing-rows.ts';
import type { CardRows } from './card-rows.ts';
import type { EndpointRows } from './endpoint-rows.ts';
import type { MailboxRows } from './mailbox-rows.ts';
import type { LogRows } from './log-rows.ts';
import type { ReceiptRows } from './receipt-rows.ts';
import type { ResendRows } from './resend-rows.ts';
import type { ResyncRows } from './resync-rows.ts';
import type { SkippedRows } from './skipped-rows.ts';

/** The account of this device with every long-term secret. */
export interface AccountRecord {
  readonly userId: string;
  /** `qpc://host:port#pin` of the own node. */
  readonly nodeAddress: string;
  /** Ed25519 seed of the account key (32 bytes); absent on a device that never held it. */
  readonly accountSeed: Uint8Array | undefined;
  /** Seed of an account key that is on its way into the log (32 bytes). */
  readonly nextAccountSeed: Uint8Array | undefined;
  /** Number of the newest recovery bundle that this device made or saw; 0: none. */
  readonly bundleSeq: number;
  /** Ed25519 seed of the device identity key (32 bytes). */
  readonly identitySeed: Uint8Array;
  /** Transport certificate and its PKCS#8 key, PEM. */
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  /** OPAQUE static key of the node, pinned at first use. */
  readonly opaqueServerKey: Uint8Array | undefined;
  /** False between making the keys and the node's answer: the next attempt uses the same keys. */
  readonly isRegistered: boolean;
  /** End of the session (wall ms); 0 when there is none. */
  readonly sessionExpiresMs: number;
}

export interface AccountRows {
  get(): AccountRecord | undefined;
  /** Inserts or replaces the one account of this store. */
  put(record: AccountRecord): void;
}

/** An X-Wing key of this device. */
export interface HybridKey {
  /** First 8 bytes of SHA-256(public key). */
  readonly keyId: Uint8Array;
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly notAfterMs: number;
  readonly isPublished: boolean;
}

export interface StoredKeyPackage {
  /** KeyPackageRef (RFC 9420 section 5.2). */
  readonly ref: Uint8Array;
  readonly suite: number;
  readonly publicBytes: Uint8Array;
  readonly privateBytes: Uint8Array;
  readonly isLastResort: boolean;
  readonly notAfterMs: number;
  readonly isPublished: boolean;
}

export interface KeyRows {
  putHybridKey(key: HybridKey): void;
  hybridKey(keyId: Uint8Array): HybridKey | undefined;
  /** The key that lasts longest. */
  newestHybridKey(): HybridKey | undefined;
  markHybridKeyPublished(keyId: Uint8Array): void;
  addKeyPackages(packages: readonly StoredKeyPackage[]): void;
  keyPackage(ref: Uint8Array): StoredKeyPackage | undefined;
  unpublishedKeyPackages(): readonly StoredKeyPackage[];
  markKeyPackagesPublished(refs: readonly Uint8Array[]): void;
  /** Deletes a single-use package and remembers its reference. */
  consumeKeyPackage(ref: Uint8Array, nowMs: number): void;
  wasKeyPackageConsumed(ref: Uint8Array): boolean;
  newestLastResort(suite: number): StoredKeyPackage | undefined;
  /** Removes keys and packages whose `not_after` lies before `beforeMs`. */
  expire(beforeMs: number): void;
}

/** What showed a contact's keys: the log itself, or a credential that a member passed on. */
export type KeySource = 'log' | 'credential';

export interface ContactRecord {
  readonly userId: string;
  readonly accountKey: Uint8Array;
  /** Encoded SignedManifest: the value of the version in the log. */
  readonly value: Uint8Array;
  readonly version: number;
  readonly firstSeenMs: number;
  /** When it was shown to be the greatest version. */
  readonly verifiedMs: number;
  /** Size of the log at the head that showed it. */
  readonly treeSize: number;
  readonly source: KeySource;
  /** The account key that people compared with each other, if they did. */
  readonly comparedKey: Uint8Array | undefined;
}

export interface ContactRows {
  get(userId: string): ContactRecord | undefined;
  put(contact: ContactRecord): void;
  prekey(
    rid: Uint8Array,
  ): { readonly publicKey: Uint8Array; readonly notAfterMs: number } | undefined;
  putPrekey(rid: Uint8Array, publicKey: Uint8Array, notAfterMs: number): void;
  claim(userId: string): { readonly claimId: Uint8Array; readonly madeMs: number } | undefined;
  putClaim(userId: string, claimId: Uint8Array, madeMs: number): void;
  deleteClaim(userId: string): void;
}

export interface ConversationRecord {
  /** Id of the conversation's first group (32 bytes). */
  readonly id: Uint8Array;
  readonly groupId: Uint8Array;
  readonly suite: number;
  readonly name: string;
  /** User id of who created it, or, where this device was invited, of who did that. */
  readonly creator: string;
  readonly joinedMs: number;
  /** `n` of the last own message; 0 = none. */
  readonly sentCount: number;
  readonly lamport: number;
  /**
   * When this store was found to be an older copy of itself: keys that it would seal with next may have
   * sealed something already. Undefined: they have not, or the epoch is another one since.
   */
  readonly staleMs?: number | undefined;
  /** Why nothing can be sent here any more; undefined: this device is a member. */
  readonly ended?: ConversationEnd | undefined;
}
/**
 * REMOVED by somebody, LEFT by the own will, BEHIND: the others went on behind a commit that this device
 * cannot apply, until it came back, OLD: from before group logs.
 */
export type ConversationEnd = 'REMOVED' | 'LEFT' | 'BEHIND' | 'OLD';

/** Encoded MLS state of one group; `past` only lists what is to be written or was read. */
export interface StoredGroup {
  readonly epoch: bigint;
  readonly cold: Uint8Array;
  readonly hot: Uint8Array;
  readonly past: readonly StoredPastEpoch[];
}
export interface StoredPastEpoch {
  readonly epoch: bigint;
  readonly bytes: Uint8Array;
}

/** A channel envelope key of one kept epoch. */
export interface EnvelopeKey {
  readonly keyId: Uint8Array;
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  readonly key: Uint8Array;
}

export interface GroupRows {
  conversations(): readonly ConversationRecord[];
  conversation(id: Uint8Array): ConversationRecord | undefined;
  conversationOfGroup(groupId: Uint8Array): ConversationRecord | undefined;
  addConversation(conversation: ConversationRecord): void;
  /** Own counter and logical clock; both only rise. */
  advance(id: Uint8Array, sentCount: number, lamport: number): void;
  /** Who was removed and invited again goes on: history and counters stay. */
  rejoin(conversation: Pick<ConversationRecord, 'id' | 'suite' | 'name'>): void;
  setName(id: Uint8Array, name: string): void;
  /** Undefined: it can be written to again. */
  setEnded(id: Uint8Array, ended: ConversationEnd | undefined): void;
  /** Every conversation is stale from now on. */
  markStale(nowMs: number): void;
  /** The group is in an epoch that its lost copy never was in. */
  clearStale(groupId: Uint8Array): void;
  state(groupId: Uint8Array): StoredGroup | undefined;
  /** Without reading the state. */
  epoch(groupId: Uint8Array): bigint | undefined;
  putCold(groupId: Uint8Array, epoch: bigint, bytes: Uint8Array): void;
  putHot(groupId: Uint8Array, bytes: Uint8Array): void;
  /** The end of the epoch is when it is first put. */
  putPast(groupId: Uint8Array, epoch: bigint, bytes: Uint8Array, nowMs: number): void;
  /** Oldest first. */
  pastEpochs(groupId: Uint8Array): readonly PastEpoch[];
  /** Forgets past epochs, envelope keys and log entries of epochs below `epoch`. */
  dropEpochsBelow(groupId: Uint8Array, epoch: bigint): void;
  putEnvelopeKey(key: EnvelopeKey): void;
  envelopeKeys(keyId: Uint8Array): readonly EnvelopeKey[];
  /** A key of this id went with its epoch. Of so many known as `groupBounds` says. */
  isPassedKey(keyId: Uint8Array): boolean;
}

/**
 * Delivery of an own message, by its worst copy: on its way to the own node, all copies there, or
 * one that was refused at once, given up later, or not taken in time. Then how far it is known to
 * have come: on the disks of all nodes, on a device of each other member, shown on one of each.
 */
export type SendState =
  | 'sealed'
  | 'accepted'
  | 'relayed'
  | 'delivered'
  | 'read'
  | 'failed'
  | 'bounced'
  | 'expired';

/**
 * How a message came here, or a copy of an own one left: through the own node, straight to the
 * recipient's node, through a mailbox at another one, or to the device itself, directly or over a relay.
 */
export type Path = 'node' | 'guest' | OtherPath;
/** Past the recipient's own node. */
export type OtherPath = 'mailbox' | PeerPath;
/** Past all nodes. */
export type PeerPath = 'direct' | 'relay';

export interface NewMessage {
  readonly conversationId: Uint8Array;
  readonly senderUser: string;
  readonly senderDevice: string;
  /** Inner id (16 bytes). */
  readonly innerId: Uint8Array;
  readonly n: number;
  readonly lamport: number;
  readonly text: string;
  readonly sentMs: number;
  /** Undefined for an own message. */
  readonly receivedMs: number | undefined;
  /** By which path it came: undefined from the own node, and for an own message. */
  readonly via?: OtherPath | undefined;
  /** Its text goes so long after it was sent (an own one) or shown; 0, and unless told: it stays. */
  readonly expirySeconds?: number | undefined;
}
export interface MessageRecord extends NewMessage {
  /** Local order of arrival. */
  readonly id: number;
  readonly displayedMs: number | undefined;
  readonly expirySeconds: number;
  /** When its text went: it is empty then. */
  readonly goneMs: number | undefined;
  /** Undefined for a received message. */
  readonly sendState: SendState | undefined;
  /** When the own node confirmed the last copy; undefined before. */
  readonly acceptedMs: number | undefined;
  /** When the own node said last that a copy waits for a node that is away; it may have gone since. */
  readonly delayedMs: number | undefined;
  /** By which path it came; of an own message, by which ones its copies left first, as far as they have. */
  readonly paths: readonly Path[];
  /** Copies of an own message wait for a delivery token of their device. */
  readonly waitsForToken: boolean;
}

export interface MessageRows {
  /** Row id, or undefined when (conversation, sender device, inner id) is known already. */
  add(message: NewMessage): number | undefined;
  /** In display order: (lamport, inner id). `limit` newest rows, without what `undisplayed` hides. */
  history(conversationId: Uint8Array, limit: number): readonly MessageRecord[];
  /** Received and not displayed, id > after, in order of arrival; nothing of people that are blocked now. */
  undisplayed(after: number, limit: number): readonly MessageRecord[];
  /** From now on the time of texts that disappear runs. */
  markDisplayed(ids: readonly number[], nowMs: number): void;
  /** Removes the text of messages whose time is over, at most so many, the longest due ones first. */
  expire(
    nowMs: number,
    limit: number,
  ): readonly Pick<MessageRecord, 'conversationId' | 'innerId'>[];
  /** When the next text goes; undefined: none does. */
  nextExpiryMs(): number | undefined;
  /** Own messages of a device by their numbers, ascending. */
  ownByNumber(
    conversationId: Uint8Array,
    deviceId: string,
    from: number,
    to: number,
    limit: number,
  ): readonly MessageRecord[];
  message(id: number): MessageRecord | undefined;
  /** Row id by (conversation, sender device, inner id). */
  idOf(conversationId: Uint8Array, senderDevice: string, innerId: Uint8Array): number | undefined;
  /** Undefined for a received or unknown message. */
  sendState(id: number): SendState | undefined;
}

/** A row of a log as it came from the node. */
export interface InboxRow {
  readonly seq: number;
  readonly mid: Uint8Array;
  readonly kind: number;
  readonly payload: Uint8Array;
  readonly receivedMs: number;
  /** Undefined: from the own node. On other paths there is no seq: it is 0. */
  readonly via?: OtherPath | undefined;
}
/** What a parked row waits for. */
export type ParkReason =
  | 'UNKNOWN_KEY'
  | 'UNKNOWN_GROUP'
  | 'FUTURE_EPOCH'
  | 'UNKNOWN_USER'
  | 'UNKNOWN_HUB';
export interface ParkedRow extends InboxRow {
  readonly id: number;
  readonly reason: ParkReason;
  /** Key id or group id in hex, user ids separated by spaces, or a domain. */
  readonly waitsFor: string;
  readonly parkedMs: number;
}
export interface UndecryptableRow {
  readonly mid: Uint8Array;
  readonly seq: number;
  readonly reason: string;
  readonly bytes: number;
  readonly atMs: number;
}
/** The log of a cursor: empty for the device's own inbox. */
export const inboxLog = new Uint8Array(0);
export interface Cursor {
  /** 8 bytes. */
  readonly storeId: Uint8Array;
  readonly seq: number;
}

export interface InboxRows {
  hasSeen(mark: Uint8Array): boolean;
  addSeen(mark: Uint8Array, nowMs: number): void;
  cursor(log: Uint8Array): Cursor | undefined;
  putCursor(log: Uint8Array, cursor: Cursor): void;
  park(row: InboxRow, reason: ParkReason, waitsFor: string, nowMs: number): number;
  parked(): readonly ParkedRow[];
  /** Whether a row waits for this reason. */
  hasParked(reason: ParkReason): boolean;
  /** Of the rows that wait for this reason the one that waits longest. */
  oldestParked(reason: ParkReason): ParkedRow | undefined;
  /**
   * Number of parked rows, and bytes of their payloads: of all, or of those that no node or
   * a mailbox brought.
   */
  parkedSize(of: 'all' | 'peers' | 'mailbox'): { readonly rows: number; readonly bytes: number };
  /** The same, of those that wait for one of these. */
  parkedFor(reasons: readonly ParkReason[]): { readonly rows: number; readonly bytes: number };
  isParked(id: number): boolean;
  unpark(id: number): void;
  setParkReason(id: number, reason: ParkReason, waitsFor: string): void;
  addUndecryptable(row: UndecryptableRow): void;
  undecryptable(): readonly UndecryptableRow[];
  addGap(storeId: Uint8Array, from: number, to: number, nowMs: number): void;
  gaps(): readonly { readonly from: number; readonly to: number; readonly atMs: number }[];
  /** Forgets marks and records that are too old, and the oldest of too many records. */
  expire(nowMs: number): void;
}

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
export interface OutboxRows extends TokenWaitRows {
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
  markFailed(id: number, failure: string): void;
  /** A post that its channel takes no more is due to be sealed anew; false: it was too often. */
  sealPostAnew(id: number, nowMs: number): boolean;
  /** The same for posts that came back. Returns how many are due, also since before: each node refuses one by itself. */
  returnPosts(mid: Uint8Array, cid: Uint8Array, nowMs: number): number;
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
  /** ACCEPTED rows of another store become SEALED again, same mid and bytes. Returns how many. */
  reopen(storeId: Uint8Array): number;
  /** Copies that are to be sent again by now, longest due first. */
  due(nowMs: number, limit: number): readonly OutboxRow[];
  /** When the next one is; undefined for none. */
  nextDueMs(): number | undefined;
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

/** The whole store. Only one process can have it open. */
export interface ClientStore extends Disposable {
  /**
   * Runs `work` in one transaction: all of its writes or none. Synchronous, so nothing else of
   * this process comes between. Durable on return. An inner call joins the outer transaction.
   */
  transaction<T>(work: () => T): T;
  /** Empties the write-ahead log, so that overwritten secrets leave the disk. */
  checkpoint(): void;
  /** Checkpoints and closes. Idempotent. */
  close(): void;
  readonly account: AccountRows;
  readonly keys: KeyRows;
  readonly contacts: ContactRows;
  readonly logs: LogRows;
  readonly groups: GroupRows;
  readonly groupLog: GroupLogRows;
  readonly standings: StandingRows;
  readonly messages: MessageRows;
  readonly inbox: InboxRows;
  readonly outbox: OutboxRows;
  readonly channels: ChannelRows;
  readonly receipts: ReceiptRows;
  readonly resend: ResendRows;
  readonly skipped: SkippedRows;
  readonly tokens: TokenRows;
  readonly endpoints: EndpointRows;
  readonly mailboxes: MailboxRows;
  readonly cards: CardRows;
  readonly resync: ResyncRows;
}
