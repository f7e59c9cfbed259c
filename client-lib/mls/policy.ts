/**
 * Who may commit what. The hub has already ordered a commit when it arrives, so the rules are a function
 * of the parent epoch alone, equal on all members: a commit that breaks them is valid for nobody.
 *
 * | | member | admin | owner |
 * | add devices of its own user, remove others of them | yes | yes | yes |
 * | fresh keys (an empty commit) | yes | yes | yes |
 * | lower the own role | | yes | yes |
 * | add users, remove members, name, timer, how many devices go without a channel | | yes | yes |
 * | to a channel, or back, where the number of devices asks for it; a fresh channel | yes | yes | yes |
 * | remove admins and owners, give and take roles, move the hub | | | yes |
 *
 * A user without a device in the group has no role in it, so whoever removes the last device of an admin
 * takes the role in the same commit, and a group always has an owner in it: the last one cannot go before
 * it made another. But anybody may take out owners that all gave up their keys (succession.ts).
 */
import type { Proposal } from 'ts-mls';
import { identityOf } from './authentication.ts';
import { channelRuleBroken } from './channel-mode.ts';
import type { CommitEffects, ParentEpoch } from './effects.ts';
import { MlsError } from './errors.ts';
import { groupContextOf, roleOf } from './group-extensions.ts';
import type { GroupContextInfo, QpcGroupInfo, Role } from './group-extensions.ts';
import type { Member, MlsGroup } from './group.ts';
import type { Identity } from './identity.ts';
import { defaultProposalTypes, isDefaultProposal } from './library.ts';
import { isSuccession } from './succession.ts';
import { limits, sameBytes } from './suite.ts';

export type { CommitEffects, ParentEpoch } from './effects.ts';

/** Whether `committer`, a member of `group`, may make this commit. Pure: group state only. */
export type CommitPolicy = (group: MlsGroup, committer: Member, effects: CommitEffects) => boolean;

/** Policy version 1. */
export const rolesAllow: CommitPolicy = (group, committer, effects) =>
  ruleBroken(group, committer.userId, effects) === undefined;

/** The rule that a commit of `actor` would break, in words; undefined: none. */
export function ruleBroken(
  parent: ParentEpoch,
  actor: string,
  effects: CommitEffects,
): string | undefined {
  const { added, removed, context } = effects;
  const role = roleOf(parent.info, actor);
  const isPlain = role === 'member';
  if (parent.info.policyVersion !== 1) return 'the rules of this group are of a later version';
  if (isSuccession(parent, effects)) {
    const isKept = keepsJoinKey(parent.info, context?.info ?? parent.info);
    return isKept ? 'a removal needs a new join key' : undefined;
  }
  if (isPlain && added.some(({ userId }) => userId !== actor)) return 'a member may add nobody';
  for (const { userId } of removed) {
    const rank = roleOf(parent.info, userId);
    if (userId === actor || role === 'owner') continue;
    if (isPlain) return 'a member may remove nobody';
    if (rank !== 'member') return `an admin may not remove an ${rank}`;
  }
  // Who is there before and after a commit has a say about it (standings.ts), and everybody has to see the same ones.
  const comes = new Set(added.map(({ deviceId }) => deviceId));
  if (removed.some(({ deviceId }) => comes.has(deviceId)))
    return 'no device is removed and added at once';
  const next = context?.info ?? parent.info;
  const gone = new Set(removed.map(({ leafIndex }) => leafIndex));
  const staying = parent.members().filter(({ leafIndex }) => !gone.has(leafIndex));
  const hasLeaf = ({ userId }: { readonly userId: string }): boolean =>
    staying.some((member) => member.userId === userId);
  if (!next.roles.every(hasLeaf)) return 'a role of somebody who is not in the group';
  if (removed.length > 0 && keepsJoinKey(parent.info, next))
    return 'a removal needs a new join key';
  if (context === undefined) return undefined;
  // Who joins sees the new context alone, and judges its inviter by that.
  if (added.length > 0) return 'a commit that adds changes nothing else of the group';
  return (
    channelRuleBroken(parent.info, next, parent.members().length) ??
    contextRuleBroken(parent, actor, context, removed.length > 0)
  );
}

function contextRuleBroken(
  parent: GroupContextInfo,
  actor: string,
  { info: next, hubs }: GroupContextInfo,
  hasRemoved: boolean,
): string | undefined {
  const { info } = parent;
  const role = roleOf(info, actor);
  const isPlain = role === 'member';
  if (!sameBytes(info.conversationId, next.conversationId)) return 'a conversation keeps its id';
  if (info.policyVersion !== next.policyVersion) return 'the version of the rules stays';
  if (isPlain && info.name !== next.name) return 'a member may not rename the group';
  if (isPlain && info.expirySeconds !== next.expirySeconds) return 'a member may not set the timer';
  if (isPlain && !hasRemoved && !keepsKey(info, next))
    return 'a member may not change the join key';
  if (isPlain && info.directDevices !== next.directDevices)
    return 'a member may not set how many devices go without a channel';
  if (role !== 'owner' && parent.hubs.join() !== hubs.join()) return 'only an owner moves the hub';
  // The channel's id is made from them.
  if (info.channelNonce !== undefined && parent.hubs.join() !== hubs.join())
    return 'a group with a channel keeps its hubs';
  if (role === 'owner') return undefined;
  const users = new Set([...info.roles, ...next.roles].map(({ userId }) => userId));
  for (const userId of users) {
    const [before, after] = [roleOf(info, userId), roleOf(next, userId)];
    const isLowered = userId === actor && rankOf(after) < rankOf(before);
    if (after !== before && !isLowered) return 'only an owner gives and takes roles';
  }
  return undefined;
}

const ranks = { member: 0, admin: 1, owner: 2 } as const;
const rankOf = (role: Role): number => ranks[role];

function keepsKey(before: QpcGroupInfo, after: QpcGroupInfo): boolean {
  const [a, b] = [before.joinKeyHash, after.joinKeyHash];
  return a === undefined || b === undefined ? a === b : sameBytes(a, b);
}

/** Who was removed knows the join key. */
function keepsJoinKey(before: QpcGroupInfo, after: QpcGroupInfo): boolean {
  return before.joinKeyHash !== undefined && keepsKey(before, after);
}

/**
 * What the proposals of a commit do to `group`; undefined when they may not be in one: Adds (at most 64),
 * Removes and one set of our context extensions, no other kind.
 */
export function effectsOf(
  members: readonly Member[],
  proposals: readonly { readonly proposal: Proposal }[],
): CommitEffects | undefined {
  const added: Identity[] = [];
  const removed: Member[] = [];
  let context: GroupContextInfo | undefined;
  for (const { proposal } of proposals) {
    if (!isDefaultProposal(proposal)) return undefined;
    if (proposal.proposalType === defaultProposalTypes.add) {
      const identity = identityOf(proposal.add.keyPackage.leafNode.credential);
      if (identity === undefined) return undefined;
      added.push(identity);
    } else if (proposal.proposalType === defaultProposalTypes.remove) {
      const { removed: leafIndex } = proposal.remove;
      const member = members.find((one) => one.leafIndex === leafIndex);
      if (member === undefined) return undefined;
      removed.push(member);
    } else if (proposal.proposalType === defaultProposalTypes.group_context_extensions) {
      if (context !== undefined) return undefined;
      context = contextIn(proposal.groupContextExtensions.extensions);
      if (context === undefined) return undefined;
    } else {
      return undefined;
    }
  }
  return added.length <= limits.addsPerCommitMax ? { added, removed, context } : undefined;
}

function contextIn(extensions: Parameters<typeof groupContextOf>[0]): GroupContextInfo | undefined {
  try {
    return groupContextOf(extensions);
  } catch (error) {
    if (error instanceof MlsError && error.reason === 'MALFORMED') return undefined;
    throw error;
  }
}
