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
  type GroupControl,
  type SignedGroupEntry,
} from '@quicprochat/proto/messages';
import { openChannel, parseEnvelope, sealChannel } from './crypto/envelope.ts';
import { envelopeKeyOf } from './envelope-key.ts';
import { acceptCommit, MlsError, type Mls, type MlsGroup, type Wipe } from './mls/index.ts';

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
  /** Hashes of all earlier children of the parent, which nobody can apply; at most 4. */
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

/** Where a member stands. */
export interface LogView {
  readonly group: MlsGroup;
  /** Entry of the group's epoch. */
  readonly head: ParsedEntry;
}

/** A commit of this device that the hub has not answered, or not yet. */
export interface PendingOwn {
  readonly own: OwnCommit;
  readonly pending: MlsGroup;
}

export interface WalkParts {
  readonly mls: Mls;
  /** The group's hubs, as its members agreed on them, and their signing keys. */
  readonly hubs: readonly string[];
  readonly keysOf: HubKeys;
}

export interface Walk extends LogView {
  /** Entries that were applied, oldest first. */
  readonly applied: readonly ParsedEntry[];
  /** Children of the new head that cannot be applied: what a next commit has to reject. */
  readonly invalid: readonly ParsedEntry[];
  /**
   * Others went on behind an entry that could not be applied here: it is this device that cannot, and
   * only a new leaf helps (RFC 9420 section 16.12).
   */
  readonly isLeftBehind: boolean;
  /** Whether the own commit is among the applied ones; false: another one won its epoch. */
  readonly hasWon: boolean;
  /** To be called once the new state is durable. */
  readonly wipes: readonly Wipe[];
}

/**
 * Applies certified entries in log order: for each parent the first one that is valid, and none of
 * its siblings. Entries behind other parents are passed over. Throws InvalidArgumentError
 * BAD_SIGNATURE or BAD_FIELD for what no honest hub sends, CredentialError UNKNOWN_CREDENTIAL when
 * manifests have to be fetched first, MlsError OWN_MESSAGE for an own commit that `own` is not; the
 * view given stays as it was.
 */
export async function walkLog(
  parts: WalkParts,
  view: LogView,
  controls: readonly GroupControl[],
  own?: PendingOwn,
): Promise<Walk> {
  let { group, head } = view;
  let invalid: ParsedEntry[] = [];
  let hasWon = false;
  let isLeftBehind = false;
  const applied: ParsedEntry[] = [];
  const wipes: Wipe[] = [];
  for (const control of controls) {
    const entry = certifiedEntry(parts, group, control);
    isLeftBehind ||= invalid.some(({ hash }) => same(hash, entry.entry.parent));
    if (!same(entry.entry.parent, head.hash) || !group.isActive) continue;
    checkEntry(entry, factsOf(head));
    const step = await stepTo(parts.mls, group, entry, control, own);
    if (step === undefined) {
      invalid.push(entry);
      continue;
    }
    hasWon ||= step.isOwn;
    wipes.push(step.wipe);
    applied.push(entry);
    ({ group, head } = { group: step.next, head: entry });
    invalid = [];
  }
  return { group, head, applied, invalid, isLeftBehind, hasWon, wipes };
}

interface Step {
  readonly next: MlsGroup;
  readonly wipe: Wipe;
  readonly isOwn: boolean;
}

function certifiedEntry(parts: WalkParts, group: MlsGroup, control: GroupControl): ParsedEntry {
  if (control.entry === undefined) throw new InvalidArgumentError('BAD_FIELD', 'entry: is missing');
  const entry = verifyCertified(control.entry, parts.hubs, parts.keysOf);
  if (!same(entry.entry.group, group.groupId)) {
    throw new InvalidArgumentError('BAD_FIELD', 'entry: of another group');
  }
  const isFirst = entry.epoch === 0;
  if (!isFirst && !same(entry.entry.commitHash, commitHash(control.commit))) {
    throw new InvalidArgumentError('BAD_FIELD', 'entry: beside another commit');
  }
  return entry;
}

/** Undefined: nobody can apply it. */
async function stepTo(
  mls: Mls,
  group: MlsGroup,
  entry: ParsedEntry,
  { commit }: GroupControl,
  own: PendingOwn | undefined,
): Promise<Step | undefined> {
  if (own !== undefined && same(own.own.envelope, commit)) {
    return { ...acceptCommit(group, own.pending), isOwn: true };
  }
  try {
    const { key, keyId } = await envelopeKeyOf(mls, group);
    const sealed = parseEnvelope(commit);
    if (sealed.mode !== 'channel') return undefined;
    const opened = openChannel(sealed, (id) => (same(id, keyId) ? key : undefined));
    if (opened.kind !== 'mlsMessage') return undefined;
    const done = await mls.process(group, opened.bytes);
    if (done.kind !== 'commit') return undefined;
    const { next, wipe, isSelfRemoved } = done;
    // Who is removed cannot make the next key, and needs none.
    if (isSelfRemoved) return { next, wipe, isOwn: false };
    const { publicKey } = await commitKeyOf(mls, next);
    return same(publicKey, entry.entry.nextCommitPub) ? { next, wipe, isOwn: false } : undefined;
  } catch (error) {
    if (isOursToMend(error) || !(error instanceof QpcError)) throw error;
    return undefined;
  }
}

/** The commit may be valid; what is missing is missing here: a manifest, or the own pending commit. */
function isOursToMend(error: unknown): boolean {
  return error instanceof MlsError && ['UNKNOWN_CREDENTIAL', 'OWN_MESSAGE'].includes(error.reason);
}

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
