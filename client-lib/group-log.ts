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
import { openChannel, parseEnvelope, sealChannel } from './crypto/envelope.ts';
import { envelopeKeyOf } from './envelope-key.ts';
import { acceptCommit, CredentialError, type Mls, type MlsGroup, type Wipe } from './mls/index.ts';

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
  /**
   * The manifests were looked up just now: a credential that they do not vouch for makes a commit
   * invalid. Unless told, it is thrown, so that they can be looked up.
   */
  readonly isFresh?: boolean;
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
}

export interface Walk extends LogView {
  /** Entries that were applied, oldest first. */
  readonly steps: readonly Step[];
  /** Children of the new head that cannot be applied: what a next commit has to reject. */
  readonly invalid: readonly ParsedEntry[];
  /**
   * One of those says that it is of this device, which does not know it: of a store that was restored,
   * then others apply it, or of a member that lies. Nothing of this device may reject it.
   */
  readonly isOwnLost: boolean;
  /**
   * Others went on behind an entry that could not be applied here: it is this device that cannot, and
   * only a new leaf helps (RFC 9420 section 16.12).
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
  let invalid: ParsedEntry[] = [];
  let isOwnLost = false;
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
    isLeftBehind ||= invalid.some(({ hash }) => same(hash, entry.entry.parent));
    if (!group.isActive) continue;
    if (!same(entry.entry.parent, head.hash)) {
      isBeyond ||= entry.epoch > head.epoch + 1;
      continue;
    }
    checkEntry(entry, factsOf(head));
    // The hub takes a rejection from any member: it counts once what it rejects was judged here.
    if (
      !entry.entry.rejects.every((rejected) => invalid.some(({ hash }) => same(hash, rejected)))
    ) {
      isBeyond = true;
      continue;
    }
    const step = await stepTo(parts, group, entry, control);
    if (step === undefined || step === 'lost') {
      invalid.push(entry);
      isOwnLost ||= step === 'lost';
      continue;
    }
    steps.push(step);
    ({ group, head } = { group: step.next, head: entry });
    invalid = [];
    isOwnLost = false;
    // Whatever stood behind the invalid ones, it is not what the others went on with.
    isLeftBehind = false;
    isBeyond = false;
  }
  return { group, head, steps, invalid, isOwnLost, isLeftBehind, isBeyond, passed };
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

/** Undefined: nobody can apply it. `lost`: only this device cannot, if it is its own. */
async function stepTo(
  { mls, pendingOf, isFresh = false }: WalkParts,
  group: MlsGroup,
  entry: ParsedEntry,
  control: GroupControl,
): Promise<Step | 'lost' | undefined> {
  const pending = pendingOf(entry.entry.commitHash);
  if (pending !== undefined) {
    const by = group.members().find(({ leafIndex }) => leafIndex === group.ownLeafIndex);
    const { userId = '' } = by ?? {};
    // Any member can write another entry beside this commit, and all others judge it by that.
    const { publicKey } = await commitKeyOf(mls, pending);
    if (!same(publicKey, entry.entry.nextCommitPub)) return undefined;
    return { entry, control, ...acceptCommit(group, pending), isOwn: true, by: userId };
  }
  try {
    const { key, keyId } = await envelopeKeyOf(mls, group);
    const sealed = parseEnvelope(control.commit);
    if (sealed.mode !== 'channel') return undefined;
    const opened = openChannel(sealed, (id) => (same(id, keyId) ? key : undefined));
    if (opened.kind !== 'mlsMessage') return undefined;
    const done = await mls.process(group, opened.bytes);
    if (done.kind !== 'commit') return undefined;
    const { next, wipe, isSelfRemoved, sender } = done;
    const step = { entry, control, next, wipe, isOwn: false, by: sender.userId };
    // Who is removed cannot make the next key, and needs none.
    if (isSelfRemoved) return step;
    const { publicKey } = await commitKeyOf(mls, next);
    return same(publicKey, entry.entry.nextCommitPub) ? step : undefined;
  } catch (error) {
    if (error instanceof CredentialError && !isFresh) throw error;
    if (!(error instanceof QpcError)) throw error;
    const { reason } = error;
    // The commit may be valid; what is missing is missing here.
    if (reason === 'UNKNOWN_CREDENTIAL') throw error;
    return reason === 'OWN_MESSAGE' ? 'lost' : undefined;
  }
}

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
