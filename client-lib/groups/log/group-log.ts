/**
 * A member's view of the group log (docs/protocol/group-log.md), without a store and without a
 * network: the entry of an own commit, and the walk along certified entries, by which all members
 * take the same path. Who keeps the pending commit, and when, is the caller's (delivery.md: before
 * the first byte leaves).
 */
import {
  checkEntry,
  commitHash,
  factsOf,
  InvalidArgumentError,
  QpcError,
  signEntry,
  signingKeyFromSeed,
  verifyCertified,
  type HubKeys,
  type ParsedEntry,
  type Random,
  type SigningKey,
} from '@quicprochat/proto';
import {
  create,
  GroupEntrySchema,
  type CertifiedEntry,
  type GroupControl,
  type SignedGroupEntry,
} from '@quicprochat/proto/messages';
import { sealChannel } from '../../crypto/envelope.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import { epochJoinKeys, openCommit } from '../returning/group-info.ts';
import {
  acceptCommit,
  CredentialError,
  DoubtError,
  MlsError,
  type Mls,
  type MlsGroup,
  type SeenCommit,
  type Wipe,
} from '../../mls/index.ts';

/** The key that signs commits of the group's current epoch, equal on all members. */
export async function commitKeyOf(mls: Mls, group: MlsGroup): Promise<SigningKey> {
  const seed = await mls.exporter(group, 'qpc commit', group.groupId, 32);
  try {
    return signingKeyFromSeed(seed);
  } finally {
    seed.fill(0);
  }
}

/** Entry 0 of a group that was just created. `joinPub`: of external commits (Ed25519, 32 bytes). */
export async function firstEntry(
  mls: Mls,
  group: MlsGroup,
  joinPub: Uint8Array,
): Promise<SignedGroupEntry> {
  const key = await commitKeyOf(mls, group);
  const fields = { nextCommitPub: key.publicKey, joinCommitPub: joinPub };
  return signEntry(create(GroupEntrySchema, { group: group.groupId, ...fields }), key);
}

/** An own commit on its way: always these bytes, for as long as it is not decided. */
export interface OwnCommit {
  /** As it travels: in the channel envelope of the parent epoch. */
  readonly envelope: Uint8Array;
  readonly entry: SignedGroupEntry;
}

/** What of a commit its entry tells. */
export interface CommitFacts {
  /** MLSMessage (`PendingCommit.commit`). */
  readonly commit: Uint8Array;
  /** The group after it. */
  readonly pending: MlsGroup;
  readonly isRemoval: boolean;
  readonly joinPub: Uint8Array;
  /** Hashes of all earlier children of the parent, which nobody can apply; at most 24. */
  readonly rejects?: readonly Uint8Array[];
}

/** Seals and signs a commit on the group's current epoch, whose entry is `parent`. */
export async function sealCommit(
  mls: Mls,
  group: MlsGroup,
  parent: ParsedEntry,
  facts: CommitFacts,
  random: Random,
): Promise<OwnCommit> {
  const { key } = await envelopeKeyOf(mls, group);
  const content = { kind: 'mlsMessage', bytes: facts.commit } as const;
  const envelope = sealChannel({ content, key, random });
  const next = await commitKeyOf(mls, facts.pending);
  const entry = create(GroupEntrySchema, {
    group: group.groupId,
    parent: parent.hash,
    epoch: BigInt(parent.epoch) + 1n,
    commitHash: commitHash(envelope),
    nextCommitPub: next.publicKey,
    joinCommitPub: facts.joinPub,
    removal: facts.isRemoval,
    rejects: [...(facts.rejects ?? [])],
  });
  return { envelope, entry: signEntry(entry, await commitKeyOf(mls, group)) };
}

/** The same commit once more, for what other entries are in its way by now. */
export async function rejectingEntry(
  mls: Mls,
  group: MlsGroup,
  { entry }: ParsedEntry,
  rejects: readonly Uint8Array[],
): Promise<SignedGroupEntry> {
  const again = create(GroupEntrySchema, { ...entry, rejects: [...rejects] });
  return signEntry(again, await commitKeyOf(mls, group));
}

/** Where a member stands. */
export interface LogView {
  readonly group: MlsGroup;
  /** Entry of the group's epoch. */
  readonly head: ParsedEntry;
}

export interface WalkParts {
  readonly mls: Mls;
  readonly keysOf: HubKeys;
  /** The group after an own commit, by the hash of that commit as it travels. */
  readonly pendingOf: (commitHash: Uint8Array) => MlsGroup | undefined;
  /** What members made of an entry that one of them could not judge; undefined: nothing yet. */
  readonly standingOf?: (hash: Uint8Array) => Standing | undefined;
  /** A credential that the manifests do not vouch for is thrown while nobody was asked; then it is a doubt. */
  readonly keys?: Freshness;
}

/** Whether manifests were looked up for this walk, and whether all logs answered. */
export type Freshness = 'unasked' | 'unanswered' | 'fresh';

/** What the members of an epoch make of one of its commits (docs/protocol/group-log.md). */
export interface Standing {
  /** `rejected`: more than half of them will not apply it. `taken`: half of them did. */
  readonly decision: 'open' | 'rejected' | 'taken';
  /** This device said that it will not. */
  readonly isRefusedHere: boolean;
}

/** An entry that is passed over. */
export interface InvalidEntry extends ParsedEntry {
  /** User id of who signed its commit, where that is certain. */
  readonly by: string | undefined;
  /** By the word of the members, and not by what is seen here. */
  readonly isVoted: boolean;
}

/** An entry whose commit this device cannot apply, and others perhaps can. */
export interface Doubt {
  readonly entry: ParsedEntry;
  /** Its secrets do not open here; or who it adds is not vouched for; or it says that it is this device's own. */
  readonly cause: 'PATH' | 'KEYS' | 'OWN';
  readonly commit: SeenCommit;
  /** Of KEYS: a log says so, and not merely nothing. */
  readonly isCertain: boolean;
}

/** One entry on the way. */
export interface Step {
  readonly entry: ParsedEntry;
  readonly control: GroupControl;
  /** For who was removed: the group as it was, and not active. */
  readonly next: MlsGroup;
  /** To be called once the new state is durable. */
  readonly wipe: Wipe;
  readonly isOwn: boolean;
  /** User id of who committed. */
  readonly by: string;
  /** Leaf indexes in the parent epoch. */
  readonly removed: readonly number[];
}

export interface Walk extends LogView {
  /** Entries that were applied, oldest first. */
  readonly steps: readonly Step[];
  /** Children of the new head that nobody applies: what a next commit has to reject. */
  readonly invalid: readonly InvalidEntry[];
  /** Others of which that is not known: nothing goes on here before the members decided. */
  readonly doubts: readonly Doubt[];
  /**
   * The members went on behind one of those: it is this device that cannot, and only a new leaf helps (RFC
   * 9420 section 16.12).
   */
  readonly isLeftBehind: boolean;
  /**
   * Of a later epoch than the new head's children, or it rejects some that are not among these: they have
   * to be seen first.
   */
  readonly isBeyond: boolean;
  /** Certified entries of epochs that were passed already. */
  readonly passed: readonly { readonly entry: ParsedEntry; readonly certified: CertifiedEntry }[];
}

/**
 * Applies certified entries in log order: for each parent the first one that is valid, and none of
 * its siblings. Throws InvalidArgumentError BAD_SIGNATURE or BAD_FIELD for what no honest hub sends,
 * CredentialError when manifests have to be looked up first; the view given stays as it was.
 */
export async function walkLog(
  parts: WalkParts,
  view: LogView,
  controls: readonly GroupControl[],
): Promise<Walk> {
  let { group, head } = view;
  let invalid: InvalidEntry[] = [];
  let doubts: Doubt[] = [];
  const dead: ParsedEntry[] = [];
  let isLeftBehind = false;
  let isBeyond = false;
  const steps: Step[] = [];
  const passed: Walk['passed'][number][] = [];
  for (const control of controls) {
    const { entry, certified } = certifiedEntry(parts, group, control);
    if (entry.epoch <= head.epoch) {
      passed.push({ entry, certified });
      continue;
    }
    if (!group.isActive) continue;
    if (!same(entry.entry.parent, head.hash)) {
      // Behind what is invalid its committer can go on alone, with keys of its own.
      const isOf = ({ hash }: { readonly hash: Uint8Array }): boolean =>
        same(hash, entry.entry.parent);
      if (invalid.some(isOf) || dead.some(isOf)) dead.push(entry);
      else isBeyond ||= entry.epoch > head.epoch + 1 && doubts.length === 0;
      continue;
    }
    checkEntry(entry, factsOf(head));
    // The hub takes a rejection from any member: it counts once what it rejects was judged here.
    const { rejects } = entry.entry;
    const isJudged = (one: Uint8Array): boolean => invalid.some(({ hash }) => same(hash, one));
    if (!rejects.every(isJudged)) {
      const isDoubted = (one: Uint8Array): boolean => doubts.some((d) => same(d.entry.hash, one));
      isBeyond ||= !rejects.every((one) => isJudged(one) || isDoubted(one));
      continue;
    }
    const judged = await judge(parts, group, entry, control);
    if (judged.kind === 'invalid') {
      invalid.push({ ...entry, by: judged.by, isVoted: judged.isVoted });
      continue;
    }
    if (judged.kind === 'doubt') {
      doubts.push(judged.doubt);
      isLeftBehind ||= judged.isTaken;
      continue;
    }
    steps.push(judged.step);
    ({ group, head } = { group: judged.step.next, head: entry });
    invalid = [];
    doubts = [];
    isLeftBehind = false;
    isBeyond = false;
  }
  return { group, head, steps, invalid, doubts, isLeftBehind, isBeyond, passed };
}

/** What this device sees of a commit. `invalid`: so does everybody else. */
type Seen =
  | { readonly kind: 'step'; readonly step: Step }
  | { readonly kind: 'invalid'; readonly by: string | undefined }
  | { readonly kind: 'doubt'; readonly doubt: Doubt };
type Judged =
  | Extract<Seen, { kind: 'step' }>
  | (Extract<Seen, { kind: 'invalid' }> & { readonly isVoted: boolean })
  | (Extract<Seen, { kind: 'doubt' }> & { readonly isTaken: boolean });

/** A child of the group's epoch, by what this device sees and what the members decided. */
async function judge(
  parts: WalkParts,
  group: MlsGroup,
  entry: ParsedEntry,
  control: GroupControl,
): Promise<Judged> {
  const standing = parts.standingOf?.(entry.hash);
  const seen = await stepTo(parts, group, entry, control);
  if (seen.kind === 'invalid') return { ...seen, isVoted: false };
  // Who has it applied already goes on in it; who comes to it now takes the way of the others.
  if (standing?.decision === 'rejected') {
    const by = seen.kind === 'step' ? seen.step.by : seen.doubt.commit.by;
    return { kind: 'invalid', by, isVoted: true };
  }
  const isTaken = standing?.decision === 'taken';
  if (seen.kind === 'doubt') return { ...seen, isTaken };
  if (standing?.isRefusedHere !== true || isTaken) return seen;
  // What was said stays said until the others went on.
  const commit = { by: seen.step.by, voters: [] };
  return { kind: 'doubt', doubt: { entry, cause: 'KEYS', commit, isCertain: true }, isTaken };
}

/** The entry of a control, certified by the group's hubs and beside its own commit. Throws like `walkLog`. */
function certifiedEntry(
  { keysOf }: WalkParts,
  group: MlsGroup,
  control: GroupControl,
): { readonly entry: ParsedEntry; readonly certified: CertifiedEntry } {
  const certified = control.entry;
  if (certified === undefined) throw new InvalidArgumentError('BAD_FIELD', 'entry: is missing');
  const entry = verifyCertified(certified, group.hubs, keysOf);
  if (!same(entry.entry.group, group.groupId)) {
    throw new InvalidArgumentError('BAD_FIELD', 'entry: of another group');
  }
  const isFirst = entry.epoch === 0;
  if (!isFirst && !same(entry.entry.commitHash, commitHash(control.commit))) {
    throw new InvalidArgumentError('BAD_FIELD', 'entry: beside another commit');
  }
  return { entry, certified };
}

/**
 * Whether the entry names both keys of the epoch that its commit leads to. With a join key of its maker's own it would lead
 * whoever comes back to a state that nobody else has, behind a commit that all others applied.
 */
export async function leadsTo(mls: Mls, { entry }: ParsedEntry, next: MlsGroup): Promise<boolean> {
  const { publicKey } = await commitKeyOf(mls, next);
  const { signing } = await epochJoinKeys(mls, next);
  return same(publicKey, entry.nextCommitPub) && same(signing.publicKey, entry.joinCommitPub);
}

async function stepTo(
  { mls, pendingOf, keys = 'unasked' }: WalkParts,
  group: MlsGroup,
  entry: ParsedEntry,
  control: GroupControl,
): Promise<Seen> {
  const pending = pendingOf(entry.entry.commitHash);
  if (pending !== undefined) {
    const own = group.members().find(({ leafIndex }) => leafIndex === group.ownLeafIndex);
    const { userId = '' } = own ?? {};
    // Any member can write another entry beside this commit, and all others judge it by that.
    if (!(await leadsTo(mls, entry, pending))) return unsigned;
    const step = {
      entry,
      control,
      ...acceptCommit(group, pending),
      isOwn: true,
      by: userId,
      removed: [],
    };
    return { kind: 'step', step };
  }
  try {
    const opened = await openCommit(mls, group, control.commit);
    if (opened === undefined) return unsigned;
    const { bytes, isReturn } = opened;
    const done = await (isReturn ? mls.processReturn(group, bytes) : mls.process(group, bytes));
    if (done.kind !== 'commit') return unsigned;
    const { next, wipe, isSelfRemoved, sender } = done;
    const removed = done.removed.map(({ leafIndex }) => leafIndex);
    const step = { entry, control, next, wipe, isOwn: false, by: sender.userId, removed };
    // Who is removed cannot make the next key, and needs none.
    if (isSelfRemoved) return { kind: 'step', step };
    // Its confirmation tag fits: whoever else gets so far has the same secrets, and sees the same.
    return (await leadsTo(mls, entry, next)) ? { kind: 'step', step } : unsigned;
  } catch (error) {
    if (!(error instanceof QpcError)) throw error;
    const doubt = doubtOf(group, entry, error, keys);
    if (doubt !== undefined) return { kind: 'doubt', doubt };
    if (error instanceof CredentialError) throw error;
    return { kind: 'invalid', by: error instanceof MlsError ? error.author : undefined };
  }
}

/** Who signed it is not known, or had no part in what is wrong with it. */
const unsigned = { kind: 'invalid', by: undefined } as const;

/** Undefined: others see the same; or logs have to be asked first. */
function doubtOf(
  group: MlsGroup,
  entry: ParsedEntry,
  error: QpcError,
  keys: Freshness,
): Doubt | undefined {
  if (error instanceof CredentialError && keys !== 'unasked' && error.commit !== undefined) {
    const isCertain = error.reason === 'BAD_CREDENTIAL' && keys === 'fresh';
    return { entry, cause: 'KEYS', commit: error.commit, isCertain };
  }
  if (error instanceof DoubtError) {
    return { entry, cause: 'PATH', commit: error.commit, isCertain: true };
  }
  if (error.reason !== 'OWN_MESSAGE') return undefined;
  // Anybody in the group can write that upon a commit: its signature is not looked at.
  const members = group.members();
  const by = members.find(({ leafIndex }) => leafIndex === group.ownLeafIndex)?.userId;
  const users = new Set(members.map(({ userId }) => userId));
  const commit = { by, voters: [...users].filter((userId) => userId !== by) };
  return { entry, cause: 'OWN', commit, isCertain: false };
}

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
