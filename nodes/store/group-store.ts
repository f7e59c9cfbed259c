/**
 * What the store keeps of groups whose hub this node is, as an interface: the log of accepted
 * commits, and everything that follows from an acceptance in the same transaction (docs:
 * protocol/group-log). `NodeStore` has these methods too.
 */
import type { ParsedEntry } from '@quicprochat/proto';
import type { CertifiedEntry } from '@quicprochat/proto/messages';

/** An entry with the certificate that this node gives when, and only when, it is accepted. */
export interface OfferedEntry {
  readonly parsed: ParsedEntry;
  readonly certified: CertifiedEntry;
}

export interface NewGroup extends OfferedEntry {
  readonly hubs: readonly string[];
  /** Device key (32 bytes) of this node's device that creates it. */
  readonly creator: Uint8Array;
}

/** A device that gets a row. */
export interface GroupTarget {
  readonly rid: Uint8Array;
  /** Undefined: a device of this node. */
  readonly peer?: string;
  readonly token: Uint8Array;
}

export interface OfferedCommit extends OfferedEntry {
  readonly commit: Uint8Array;
  readonly mid: Uint8Array;
  readonly channel?: {
    readonly cid: Uint8Array;
    readonly epoch: number;
    /** Over the commit in the place of the payload. */
    readonly signature: Uint8Array;
    readonly peers: readonly string[];
    readonly denied: readonly string[];
  };
  readonly targets: readonly GroupTarget[];
  readonly welcomes: readonly {
    readonly target: GroupTarget;
    readonly mid: Uint8Array;
    readonly welcome: Uint8Array;
  }[];
  /** Payloads of rows of kind 3; `peer` undefined: for this node's own channel. */
  readonly updates: readonly { readonly peer?: string; readonly payload: Uint8Array }[];
  /** Empty: none. */
  readonly groupInfo: Uint8Array;
  readonly ttlMs: number;
  /** This node's own domain. */
  readonly domain: string;
  /** Device key of this node's device that submits it, to be told who does not get it. */
  readonly sender?: Uint8Array;
}

export interface AcceptedCommit {
  /** False: it had been accepted before, and nothing was written now. */
  readonly isNew: boolean;
  /** Encoded GroupControl of the log: the certificate is the one that was given first. */
  readonly control: Uint8Array;
}

export interface GroupLogPage {
  /** Encoded GroupControls, in the order of their acceptance. */
  readonly controls: readonly Uint8Array[];
  readonly hasMore: boolean;
}

export interface GroupInfo {
  /** Hash of the entry that it is of. */
  readonly entry: Uint8Array;
  readonly bytes: Uint8Array;
}

export interface GroupStore {
  /**
   * Entry 0 of a group. Throws InvalidArgumentError BAD_FIELD or BAD_SIGNATURE, ConflictError
   * NAME_TAKEN when another entry 0 is there, ResourceExhaustedError QUOTA, UnavailableError
   * STORE_FULL.
   */
  createGroup(group: NewGroup): Promise<AcceptedCommit>;
  /**
   * The next entry with all that follows from it, in one transaction; known by its commit hash.
   * Throws NotFoundError UNKNOWN_GROUP, InvalidArgumentError BAD_FIELD or BAD_SIGNATURE, ConflictError
   * EPOCH_CONFLICT (details: GroupLogResponse with the entries since the parent), UnavailableError
   * STORE_FULL; nothing is written then.
   */
  submitCommit(commit: OfferedCommit): Promise<AcceptedCommit>;
  /** Entries behind a hash; from the oldest when that is empty or unknown. Throws NotFoundError UNKNOWN_GROUP. */
  groupLog(group: Uint8Array, after: Uint8Array, maxEntries: number): Promise<GroupLogPage>;
  groupInfo(group: Uint8Array): Promise<GroupInfo | undefined>;
}
