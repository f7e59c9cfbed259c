/**
 * What people change in a group besides who joins, as what a commit has to carry for it in the group as
 * it is now. Who may do what is judged where commits are (mls/policy.ts); here are the changes that keep
 * those rules: whoever goes leaves no role behind.
 */
import { InvalidArgumentError, parseUserId } from '@quicprochat/proto';
import {
  groupLimits,
  MlsError,
  roleOf,
  ruleBroken,
  successionOf,
  type Change,
  type GroupContextInfo,
  type Member,
  type QpcGroupInfo,
  type Role,
  type RoleEntry,
} from '../mls/index.ts';

/** What of a group decides. */
export interface GroupView extends GroupContextInfo {
  members(): readonly Member[];
}

/** What of a group people may change besides its members and their roles. */
export interface GroupMetadata {
  /** At most 256 bytes of UTF-8. */
  readonly name?: string;
  /** Texts sent from then on go so long after they were shown; 0: they stay. At most a year and a day. */
  readonly expirySeconds?: number;
  /** With more devices than that messages go to a channel: 1 to 256. */
  readonly directDevices?: number;
}

/** Undefined, here and below: the group is that way already. Throws InvalidArgumentError BAD_FIELD. */
export function updating(group: GroupView, metadata: GroupMetadata): Change | undefined {
  checkMetadata(metadata);
  return contextChange(group, metadata);
}

/**
 * Throws MlsError UNKNOWN_MEMBER, LAST_OWNER when nobody else owns the group,
 * InvalidArgumentError BAD_FIELD for the 33rd user with a role.
 */
export function settingRole(group: GroupView, userId: string, role: Role): Change | undefined {
  requireMember(group, userId);
  const others = group.info.roles.filter((entry) => entry.userId !== userId);
  const roles = role === 'member' ? others : sorted([...others, { userId, role }]);
  if (roles.length > groupLimits.roles) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      `group: at most ${groupLimits.roles} owners and admins`,
    );
  }
  if (!roles.some((entry) => entry.role === 'owner')) {
    throw new MlsError(
      'LAST_OWNER',
      `group: ${userId} is its only owner; make somebody else one first`,
    );
  }
  return contextChange(group, { roles });
}

/**
 * Takes out all devices of users (`alice@red.example`) and single ones (`alice@red.example/<device id>`),
 * and the roles of whoever has none left.
 */
export function removing(group: GroupView, targets: readonly string[]): Change | undefined {
  const members = group.members();
  const gone = members.filter((member) => targets.some((target) => isTarget(member, target)));
  if (gone.length === 0) return undefined;
  const staying = new Set(
    members.filter((member) => !gone.includes(member)).map(({ userId }) => userId),
  );
  const roles = group.info.roles.filter(({ userId }) => staying.has(userId));
  const remove = gone.map(({ leafIndex }) => leafIndex);
  return { remove, ...contextChange(group, { roles }) };
}

/**
 * The same for devices that gave up their keys: where these are all that the group's owners have in it, they go
 * first, and an heir owns the group from then on.
 */
export function removingRevoked(
  group: GroupView,
  targets: readonly string[],
): { readonly change: Change; readonly isLast: boolean } | undefined {
  const { removed = [], context } = successionOf(group) ?? {};
  const isTold = (member: Member): boolean =>
    targets.includes(`${member.userId}/${member.deviceId}`);
  if (context !== undefined && removed.length > 0 && removed.every(isTold)) {
    return {
      change: { remove: removed.map(({ leafIndex }) => leafIndex), context },
      isLast: false,
    };
  }
  const change = removing(group, targets);
  return change && { change, isLast: true };
}

/** Throws InvalidArgumentError BAD_FIELD unless it is a user, or a device of one (`user/device`). */
export function checkTarget(target: string): void {
  const [userId = '', deviceId, ...more] = target.split('/');
  parseUserId(userId);
  if (more.length === 0 && (deviceId === undefined || /^[a-z2-7]{16}$/.test(deviceId))) return;
  throw new InvalidArgumentError('BAD_FIELD', 'member: need name@domain, or name@domain/device');
}

const isTarget = ({ userId, deviceId }: Member, target: string): boolean =>
  target === userId || target === `${userId}/${deviceId}`;

/** The rule that keeps a user from it, in words; undefined: it may commit that. `change` adds nobody. */
export function whyNot(group: GroupView, userId: string, change: Change): string | undefined {
  const leaves = new Set(change.remove);
  return ruleBroken(group, userId, {
    added: [],
    removed: group.members().filter(({ leafIndex }) => leaves.has(leafIndex)),
    context: change.context && { info: group.info, hubs: group.hubs, ...change.context },
  });
}

/** Throws MlsError UNKNOWN_MEMBER unless a device of the user, or this device, is in the group. */
export function requireMember(group: Pick<GroupView, 'members'>, target: string): void {
  if (group.members().some((member) => isTarget(member, target))) return;
  throw new MlsError('UNKNOWN_MEMBER', `group: ${target} is not in it`);
}

/** Throws InvalidArgumentError BAD_FIELD for what is out of bounds, and for a name that is no Unicode. */
export function checkMetadata({
  name = '',
  expirySeconds = 0,
  directDevices = groupLimits.directDevices,
}: GroupMetadata): void {
  const { nameBytes, expirySeconds: expiryMax, directDevicesMax } = groupLimits;
  const bytes = Buffer.byteLength(name);
  if (bytes > nameBytes || !name.isWellFormed()) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      `conversation name: ${bytes} bytes, at most ${nameBytes} of UTF-8`,
    );
  }
  if (!Number.isInteger(expirySeconds) || expirySeconds < 0 || expirySeconds > expiryMax) {
    throw new InvalidArgumentError('BAD_FIELD', `timer: need whole seconds, 0 to ${expiryMax}`);
  }
  if (!Number.isInteger(directDevices) || directDevices < 1 || directDevices > directDevicesMax) {
    throw new InvalidArgumentError('BAD_FIELD', `direct devices: need 1 to ${directDevicesMax}`);
  }
}

/** Throws InvalidArgumentError BAD_FIELD for what is no role. */
export function parseRole(text: string): Role {
  if (text === 'owner' || text === 'admin' || text === 'member') return text;
  throw new InvalidArgumentError('BAD_FIELD', 'role: need owner, admin or member');
}

/** A user of a group with its devices. */
export interface GroupMember {
  readonly userId: string;
  readonly role: Role;
  readonly deviceIds: readonly string[];
}

/** All users of a group by user id, each with its devices by device id. */
export function groupMembers(group: GroupView): readonly GroupMember[] {
  const byUser = Map.groupBy(group.members(), ({ userId }) => userId);
  return [...byUser.keys()].sort().map((userId) => ({
    userId,
    role: roleOf(group.info, userId),
    deviceIds: (byUser.get(userId) ?? []).map(({ deviceId }) => deviceId).sort(),
  }));
}

function contextChange(group: GroupView, part: Partial<QpcGroupInfo>): Change | undefined {
  const info = { ...group.info, ...part };
  return isSame(group.info, info) ? undefined : { context: { info } };
}

function isSame(a: QpcGroupInfo, b: QpcGroupInfo): boolean {
  const said = (info: QpcGroupInfo): string => {
    const { name, roles, expirySeconds, directDevices, channelNonce = [] } = info;
    const users = roles.map(({ userId, role }) => [userId, role]);
    return JSON.stringify([name, users, expirySeconds, directDevices, [...channelNonce]]);
  };
  return said(a) === said(b);
}

const sorted = (roles: readonly RoleEntry[]): RoleEntry[] =>
  roles.toSorted((a, b) => (a.userId < b.userId ? -1 : 1));
