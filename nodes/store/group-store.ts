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
  /** This node certified it before, and may have forgotten that. */
  readonly wasCertified?: boolean;
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
  /** Of a Welcome: by which the committer's node hears that it came back (`returnTo`). */
  readonly slip?: Uint8Array;
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
  /** One Welcome for all of `welcomes`, which carry its key and have one mid; empty: each has its own. */
  readonly sharedWelcome: Uint8Array;
  /** Beside updates (32 bytes): it makes their channel one of this group. */
  readonly channelNonce: Uint8Array;
  /** Payloads of rows of kind 3; `peer` undefined: for this node's own channel. */
  readonly updates: readonly { readonly peer?: string; readonly payload: Uint8Array }[];
  /** Empty: none. */
  readonly groupInfo: Uint8Array;
  readonly ttlMs: number;
  /** This node's own domain. */
  readonly domain: string;
  /** Device key of this node's device that submits it, to be told who does not get it. */
  readonly sender?: Uint8Array;
  /** Home of a committer elsewhere, of which the slips are. */
  readonly returnTo?: string;
}

export interface AcceptedCommit {
  /** False: it had been accepted before, and nothing was written now. */
  readonly isNew: boolean;
  /** Encoded GroupControl of the log: the certificate is the one that was given first. */
  readonly control: Uint8Array;
}

export interface GroupLogPage {
  /** Place in the log of the first of them; 0 when there is none. */
  readonly position: number;
  /** Encoded GroupControls, in the order of their acceptance. */
  readonly controls: readonly Uint8Array[];
  readonly hasMore: boolean;
  /** Hash of the entry that is written down and not decided yet. */
  readonly prepared?: Uint8Array;
  /** This hub forgot, and takes certified entries from members. */
  readonly wantsEntries?: true;
}

/** An entry as those know it who stand behind it. */
export interface EntryKey {
  /** Signs its children, and speaks for members of its epoch (32 bytes). */
  readonly commitPub: Uint8Array;
  /** Hashes of its children, in the order of their acceptance. */
  readonly children: readonly Uint8Array[];
}

export interface GroupInfo {
  /** Hash of the entry that it is of. */
  readonly entry: Uint8Array;
  readonly bytes: Uint8Array;
}

/** An entry that is written down and not decided yet. */
export interface PreparedEntry {
  readonly hash: Uint8Array;
  /** Encoded SubmitCommitRequest; of entry 0 the entry, and the mid of this beginning. */
  readonly submit: Uint8Array;
  /** Device of this node that submitted it here. */
  readonly sender?: Uint8Array;
}

/** All that a hub has on disk of a group with three hubs, but for the older entries. */
export interface HubState {
  /** The owner of term t is `hubs[t mod 3]`. */
  readonly hubs: readonly string[];
  /** The highest term that it promised; it takes nothing of lower ones. */
  readonly promised: number;
  /** Of the last log that it took. */
  readonly adopted: number;
  /**
   * It does not remember what it promised, or cannot know whether it does (`isBeginning`): it has no say until both
   * others told.
   */
  readonly isLearner: boolean;
  /** It began the group, and entry 0 is not accepted yet: that takes both others, and nothing else is led by it. */
  readonly isBeginning: boolean;
  /** It does not remember, and knows that: what it has counts for others that forgot as well. */
  readonly forgot?: ForgetfulHub;
  /** Of the newest accepted entry; 0 and empty: none is. */
  readonly position: number;
  readonly head: Uint8Array;
  readonly prepared?: PreparedEntry;
}

/** One hub of three that forgot what it promised. */
export interface ForgetfulHub {
  /** A member wants a change, and waits for so long (ms) while others bring back what was lost; undefined: nobody does. */
  readonly restMs?: number;
  /** Others that forgot count on what it said: it takes no more from members. */
  readonly gaveWord: boolean;
}

/** A commit whose outcome is not known yet. */
export type PreparedCommit = Omit<OfferedCommit, 'certified'> & {
  /** As in PreparedEntry. */
  readonly submit: Uint8Array;
};

/** What became of an entry at the hub that leads. */
export type Preparation =
  /** It had been accepted before. */
  | { readonly outcome: 'accepted'; readonly control: Uint8Array }
  /** It is written down, now or from before. */
  | { readonly outcome: 'prepared' }
  /** Another one is, or nothing may be yet. */
  | { readonly outcome: 'busy' };

/** The log of a term's owner, as it reaches another hub. */
export interface LeaderLog {
  readonly group: Uint8Array;
  readonly hubs: readonly string[];
  /** The caller, which owns the term. */
  readonly from: string;
  readonly term: number;
  readonly position: number;
  readonly head: Uint8Array;
  readonly prepared?: PreparedCommit;
}

export interface LogEnd {
  /** Of the newest accepted entry; 0 = none is. */
  readonly position: number;
  readonly head: Uint8Array;
}

/** Entries whose certificates were verified. */
export interface InstalledEntries {
  readonly group: Uint8Array;
  readonly hubs: readonly string[];
  readonly from: string;
  /** Of the first of them. */
  readonly position: number;
  readonly entries: readonly CertifiedCommit[];
  /** Empty: none. */
  readonly groupInfo: Uint8Array;
  readonly groupInfoEntry: Uint8Array;
  /** This hub asked for them: without it, only entries that are next here are taken. */
  readonly isRepair: boolean;
  /** A member brings them: only a hub that forgot takes them, and until it gave its word. */
  readonly isBrought?: true;
}
export interface CertifiedCommit extends OfferedEntry {
  /** Of entry 0 empty. */
  readonly commit: Uint8Array;
}

/** The disk of one hub of three (docs: protocol/group-log, reference/hub-model). */
export interface HubSetStore {
  /** Undefined: the group is not here. */
  hubState(group: Uint8Array): Promise<HubState | undefined>;
  /** Groups with a PREPARED entry, at most 4 096; those that have not begun come last. */
  preparedGroups(): Promise<readonly Uint8Array[]>;
  /** Groups in which this hub has no say, by their ids from the one behind `after`, at most 256. */
  learnerGroups(after: Uint8Array): Promise<readonly Uint8Array[]>;
  /**
   * Entry 0 of a group with three hubs; errors are those of `createGroup`. The `submit` of the first time stays: its
   * mid says which beginning this is.
   */
  prepareGroup(
    group: Omit<NewGroup, 'certified'> & { readonly submit: Uint8Array },
  ): Promise<Preparation>;
  /**
   * Writes a commit down behind the newest accepted entry. `mayWrite` false: only tells whether it
   * is accepted or PREPARED. Throws as `submitCommit`, and FailedPreconditionError TERM_FENCED (details:
   * HubFence) unless this hub promised and adopted exactly `term`.
   */
  prepareCommit(term: number, commit: PreparedCommit, mayWrite: boolean): Promise<Preparation>;
  /** Whether a commit would be accepted behind what is accepted here; writes nothing. Throws as `submitCommit`. */
  judgeCommit(commit: PreparedCommit): Promise<void>;
  /**
   * A majority has the PREPARED entry under `term`: accepted, with all that follows. The own channel's
   * refusals do not count any more. Throws FailedPreconditionError TERM_FENCED unless this hub
   * promised and adopted exactly `term` and this entry is PREPARED or accepted.
   */
  acceptPrepared(term: number, commit: OfferedCommit): Promise<AcceptedCommit>;
  /**
   * Takes the log of a term's owner; undefined: this hub lacks accepted entries, and took nothing.
   * Throws FailedPreconditionError TERM_FENCED (details: HubFence), ConflictError SEQ_CONFLICT when
   * that log lacks what this hub accepted or signed, or begins what began here otherwise, UnavailableError
   * HUB_UNAVAILABLE for a learner,
   * InvalidArgumentError and ConflictError as `submitCommit`, ResourceExhaustedError QUOTA.
   */
  adoptLog(log: LeaderLog): Promise<LogEnd | undefined>;
  /**
   * Promises a term above all before it. `own`: not asked by another hub, so a learner may; `since`: what
   * this hub had promised when it began to ask others, and must not have changed. Throws TERM_FENCED,
   * UNKNOWN_GROUP; of a learner HUB_UNAVAILABLE, or HUB_RESTORED where it knows that it forgot. `recovers`: who asks
   * forgot as well, so a learner whose time is over (`holdGroup`) gives its word.
   */
  promiseTerm(
    group: Uint8Array,
    term: number,
    own?: { readonly since?: number },
    recovers?: boolean,
  ): Promise<HubState>;
  /**
   * The owner of a promised term takes a log into it: of at least `position` accepted entries, with
   * what is PREPARED here (`keeps`), another entry, or none. Throws TERM_FENCED, SEQ_CONFLICT.
   */
  takeLog(
    group: Uint8Array,
    term: number,
    position: number,
    prepared: PreparedCommit | 'keeps' | undefined,
  ): Promise<void>;
  /**
   * Takes certified entries, whatever the term. Throws ConflictError SEQ_CONFLICT when they contradict
   * what is here, InvalidArgumentError, ResourceExhaustedError QUOTA.
   */
  installEntries(installed: InstalledEntries): Promise<LogEnd>;
}

export interface GroupStore extends HubSetStore {
  /**
   * Entry 0 of a group. Throws InvalidArgumentError BAD_FIELD or BAD_SIGNATURE, ConflictError
   * NAME_TAKEN when another entry 0 is there, ResourceExhaustedError QUOTA, UnavailableError
   * STORE_FULL. One that was certified before is held as after a restore.
   */
  createGroup(group: NewGroup): Promise<AcceptedCommit>;
  /**
   * The next entry with all that follows from it, in one transaction; known by its commit hash.
   * Throws NotFoundError UNKNOWN_GROUP, InvalidArgumentError BAD_FIELD or BAD_SIGNATURE, ConflictError
   * EPOCH_CONFLICT (details: GroupLogResponse with the entries since the parent), UnavailableError
   * STORE_FULL or HUB_RESTORED (`holdGroup`); nothing is written then.
   */
  submitCommit(commit: OfferedCommit): Promise<AcceptedCommit>;
  /**
   * The store is an older copy of itself: only what this hub certified before is taken in the group, for so
   * long (ms) after the first call of this; 0: everything is. One hub of three that forgot waits as long before it
   * gives its word. Throws NotFoundError UNKNOWN_GROUP.
   */
  holdGroup(group: Uint8Array): Promise<number>;
  /** How many groups are held, or would be. */
  restoredGroups(): Promise<number>;
  /** Entries behind a hash; from the oldest when that is empty or unknown. Throws NotFoundError UNKNOWN_GROUP. */
  groupLog(group: Uint8Array, after: Uint8Array, maxEntries: number): Promise<GroupLogPage>;
  groupInfo(group: Uint8Array): Promise<GroupInfo | undefined>;
  /** Undefined: the group is not here, or the entry is none of it that is held. */
  entryKey(group: Uint8Array, entry: Uint8Array): Promise<EntryKey | undefined>;
  /**
   * Children of an entry behind one of them, or all when `after` is none of the log; what else the log says is left
   * out. Throws NotFoundError UNKNOWN_GROUP.
   */
  childEntries(
    group: Uint8Array,
    parent: Uint8Array,
    after: Uint8Array,
    maxEntries: number,
  ): Promise<Pick<GroupLogPage, 'controls' | 'hasMore'>>;
  /**
   * Slips (52 bytes) by which this node is told that Welcomes of its device's commit came back, which a hub elsewhere
   * writes; none for a device that is not here.
   */
  welcomeSlips(
    committer: Uint8Array,
    welcomes: readonly { readonly mid: Uint8Array; readonly rid: Uint8Array }[],
  ): Promise<readonly Uint8Array[]>;
}
