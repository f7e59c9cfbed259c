/**
 * What becomes of a group all of whose owners gave up the keys that they have in it (docs/protocol/groups.md): they are
 * taken out, and the group goes to an heir. What such a commit has to look like follows from the parent epoch
 * alone, so that all members judge it alike; whether the keys were given up, the logs of their accounts say.
 */
import type { ManifestLookup } from './authentication.ts';
import type { CommitEffects, ParentEpoch } from './effects.ts';
import type { CredentialFailure } from './errors.ts';
import { roleOf, type GroupContextInfo } from './group-extensions.ts';
import type { Member } from './group.ts';
import { sameBytes } from './suite.ts';

/** The commit by which a group gets its heir. */
export interface Succession {
  /** User id. */
  readonly heir: string;
  /** All devices of all owners. */
  readonly removed: readonly Member[];
  readonly context: GroupContextInfo;
}

/**
 * The heir is the admin at the leftmost leaf, or, without admins, the member there. Undefined where there are owners only.
 */
export function successionOf(parent: ParentEpoch): Succession | undefined {
  const { info, hubs } = parent;
  const members = parent.members().toSorted((a, b) => a.leafIndex - b.leafIndex);
  const isOf = (role: string) => (member: Member) => roleOf(info, member.userId) === role;
  const heir = (members.find(isOf('admin')) ?? members.find(isOf('member')))?.userId;
  if (heir === undefined) return undefined;
  const staying = info.roles.filter(({ userId, role }) => role !== 'owner' && userId !== heir);
  const roles = [...staying, { userId: heir, role: 'owner' as const }];
  const sorted = roles.toSorted((a, b) => (a.userId < b.userId ? -1 : 1));
  const removed = members.filter(isOf('owner'));
  return { heir, removed, context: { info: { ...info, roles: sorted }, hubs } };
}

/** Whether a commit does that and nothing else; a new join key, which any removal brings, aside. */
export function isSuccession(
  parent: ParentEpoch,
  { added, removed, context }: CommitEffects,
): boolean {
  const wanted = context === undefined ? undefined : successionOf(parent);
  if (context === undefined || wanted === undefined || added.length > 0) return false;
  const gone = new Set(removed.map(({ leafIndex }) => leafIndex));
  const isAll = wanted.removed.every(({ leafIndex }) => gone.has(leafIndex));
  return isAll && gone.size === wanted.removed.length && isSameContext(wanted.context, context);
}

/** Keys of these that no verified manifest says were given up. */
export function notRevoked(
  manifests: ManifestLookup,
  removed: readonly Member[],
): readonly CredentialFailure[] {
  return removed.flatMap(({ userId, deviceId, identityPub }): CredentialFailure[] => {
    const manifest = manifests(userId);
    if (manifest === undefined) return [{ reason: 'unknown_user', userId, deviceId }];
    const isRevoked = manifest.revoked.some((key) => sameBytes(key, identityPub));
    return isRevoked ? [] : [{ reason: 'not_revoked', userId, deviceId }];
  });
}

function isSameContext(a: GroupContextInfo, b: GroupContextInfo): boolean {
  const said = ({ info, hubs }: GroupContextInfo): string => {
    const { conversationId, channelNonce = [], roles, name } = info;
    const { expirySeconds, policyVersion, directDevices } = info;
    const users = roles.map(({ userId, role }) => [userId, role]);
    const bytes = [[...conversationId], [...channelNonce]];
    return JSON.stringify([name, users, expirySeconds, policyVersion, directDevices, bytes, hubs]);
  };
  return said(a) === said(b);
}
