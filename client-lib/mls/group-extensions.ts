/**
 * Our two GroupContext extensions (RFC 9420 sections 12.1.7 and 13; types from the private-use range), in
 * every group of ours beside required_capabilities, which lists them:
 *
 *   enum { owner(1), admin(2) } Role;                 // members have no entry
 *   struct { opaque user_id<V>; Role role; } Entry;
 *   struct {                                          // qpc_group, 0xF0C0
 *     uint8  version = 2 or 3;                        // 3 with either of the last two fields
 *     uint16 policy_version = 1;                      // the rules that commits are judged by
 *     opaque conversation_id[32];                     // id of the conversation's first group
 *     opaque name<V>;                                 // UTF-8, at most 256 bytes
 *     Entry  roles<V>;                                // by user id, 1-32 entries, an owner among them
 *     uint32 expiry_seconds;                          // messages disappear after; 0: never
 *     opaque join_key_hash<V>;                        // commits to the key of external joins; 0 or 32 bytes
 *     uint16 direct_devices = 32;                     // more devices than that need a channel
 *     opaque channel_nonce<V>;                        // what names the group's channel; 0: none, or 32 bytes
 *   } QpcGroup;
 *   struct { uint8 version = 1; opaque hubs<V><V>; } QpcHub;  // 0xF0C1; 1 or 3 domains, in order of terms
 *
 * Each value has one encoding.
 */
import type { GroupContextExtension } from 'ts-mls';
import { hasReason, isDomain, parseUserId } from '@quicprochat/proto';
import { concat } from '../crypto/octets.ts';
import { MlsError } from './errors.ts';
import { defaultExtensionTypes, makeCustomExtension } from './library.ts';
import { Reader, vector } from './presentation.ts';
import { qpcGroupExtensionType, qpcHubExtensionType, requiredCapabilities } from './suite.ts';

export const groupLimits = {
  conversationIdBytes: 32,
  nameBytes: 256,
  /** Owners and admins of one group. */
  roles: 32,
  /** A year and a day. */
  expirySeconds: 366 * 86_400,
  joinKeyHashBytes: 32,
  channelNonceBytes: 32,
  /** Devices that a group has in direct mode, unless its members chose otherwise; and the bounds. */
  directDevices: 32,
  directDevicesMax: 256,
} as const;

const userIdBytesMax = 64 + 1 + 253;
const domainBytesMax = 253;
const rolesBytesMax = groupLimits.roles * (userIdBytesMax + 3);
const hubsBytesMax = 3 * (domainBytesMax + 2);
const roleCodes = { owner: 1, admin: 2 } as const;

/** What a user may do in a group; whoever is none of the others is a member. */
export type Role = 'owner' | 'admin' | 'member';

/** A user with more rights than a member. */
export interface RoleEntry {
  readonly userId: string;
  readonly role: 'owner' | 'admin';
}

/** `qpc_group`, parsed. */
export interface QpcGroupInfo {
  /** 32 bytes. */
  readonly conversationId: Uint8Array;
  readonly name: string;
  /** By user id; at least one owner. */
  readonly roles: readonly RoleEntry[];
  /** Seconds after which messages disappear; 0: they stay. */
  readonly expirySeconds: number;
  /** SHA-256 of the key that external joins need (32 bytes); undefined: nobody joins that way. */
  readonly joinKeyHash: Uint8Array | undefined;
  /** 1: the rules of policy.ts. */
  readonly policyVersion: number;
  /** With more devices the group has a channel (channel-mode.ts): 1 to 256. */
  readonly directDevices: number;
  /** What names its channel, with the group's id and hubs (32 bytes); undefined: direct mode. */
  readonly channelNonce: Uint8Array | undefined;
}

/** What our extensions say about a group. */
export interface GroupContextInfo {
  readonly info: QpcGroupInfo;
  /** Domains whose nodes order the group's commits: 1 or 3. */
  readonly hubs: readonly string[];
}

export function roleOf({ roles }: Pick<QpcGroupInfo, 'roles'>, userId: string): Role {
  return roles.find((entry) => entry.userId === userId)?.role ?? 'member';
}

/** Encodes `qpc_group`. Throws MlsError MALFORMED when a field is out of bounds. */
export function encodeQpcGroup(info: QpcGroupInfo): Uint8Array {
  checkInfo(info);
  const { conversationId, name, roles, expirySeconds, joinKeyHash, policyVersion } = info;
  const { directDevices, channelNonce } = info;
  const isPlain = directDevices === groupLimits.directDevices && channelNonce === undefined;
  const entries = roles.map(({ userId, role }) =>
    concat(vector(utf8(userId)), Uint8Array.of(roleCodes[role])),
  );
  return concat(
    Uint8Array.of(isPlain ? 2 : 3),
    uint(policyVersion, 2),
    conversationId,
    vector(utf8(name)),
    vector(concat(...entries)),
    uint(expirySeconds, 4),
    vector(joinKeyHash ?? new Uint8Array(0)),
    ...(isPlain ? [] : [uint(directDevices, 2), vector(channelNonce ?? new Uint8Array(0))]),
  );
}

/** Parses `qpc_group` strictly. Throws MlsError MALFORMED. */
export function decodeQpcGroup(bytes: Uint8Array): QpcGroupInfo {
  const reader = new Reader(bytes);
  const version = requireVersion(reader, [2, 3], 'qpc_group');
  const policyVersion = reader.uint(2);
  const conversationId = reader.take(groupLimits.conversationIdBytes);
  const name = textOf(reader.vector(groupLimits.nameBytes), 'group name');
  const roles = parseRoles(reader.vector(rolesBytesMax));
  const expirySeconds = reader.uint(4);
  const hash = reader.vector(groupLimits.joinKeyHashBytes);
  const directDevices = version === 2 ? groupLimits.directDevices : reader.uint(2);
  const nonce = version === 2 ? new Uint8Array(0) : reader.vector(groupLimits.channelNonceBytes);
  reader.end();
  const joinKeyHash = hash.length === 0 ? undefined : hash;
  const channelNonce = nonce.length === 0 ? undefined : nonce;
  const info = {
    ...{ conversationId, name, roles, expirySeconds, joinKeyHash, policyVersion },
    ...{ directDevices, channelNonce },
  };
  checkInfo(info);
  const isPlain = directDevices === groupLimits.directDevices && channelNonce === undefined;
  demand(version === 2 || !isPlain, 'qpc_group: version 3 with the fields of version 2');
  return info;
}

/** Encodes `qpc_hub`. Throws MlsError MALFORMED unless it is 1 or 3 domains. */
export function encodeQpcHub(hubs: readonly string[]): Uint8Array {
  checkHubs(hubs);
  return concat(Uint8Array.of(1), vector(concat(...hubs.map((hub) => vector(utf8(hub))))));
}

/** Parses `qpc_hub` strictly. Throws MlsError MALFORMED. */
export function decodeQpcHub(bytes: Uint8Array): readonly string[] {
  const reader = new Reader(bytes);
  requireVersion(reader, [1], 'qpc_hub');
  const list = new Reader(reader.vector(hubsBytesMax));
  reader.end();
  const hubs: string[] = [];
  while (!list.isAtEnd) hubs.push(textOf(list.vector(domainBytesMax), 'hub'));
  checkHubs(hubs);
  return hubs;
}

/** All extensions of a group's context. Throws MlsError MALFORMED for a field out of bounds. */
export function groupContextExtensions({ info, hubs }: GroupContextInfo): GroupContextExtension[] {
  return [
    {
      extensionType: defaultExtensionTypes.required_capabilities,
      extensionData: requiredCapabilities(),
    },
    makeCustomExtension({
      extensionType: qpcGroupExtensionType,
      extensionData: encodeQpcGroup(info),
    }),
    makeCustomExtension({
      extensionType: qpcHubExtensionType,
      extensionData: encodeQpcHub(hubs),
    }),
  ];
}

/**
 * What the extensions of a GroupContext say. Throws MlsError MALFORMED unless they are exactly our two
 * and our required_capabilities: external senders, for one, have no place here.
 */
export function groupContextOf(extensions: readonly GroupContextExtension[]): GroupContextInfo {
  const [required, group, hub, ...more] = extensions.toSorted(
    (a, b) => a.extensionType - b.extensionType,
  );
  const wanted = requiredCapabilities();
  if (
    more.length > 0 ||
    required?.extensionType !== defaultExtensionTypes.required_capabilities ||
    !('extensionTypes' in required.extensionData) ||
    required.extensionData.extensionTypes.join() !== wanted.extensionTypes.join() ||
    required.extensionData.proposalTypes.join() !== wanted.proposalTypes.join() ||
    required.extensionData.credentialTypes.join() !== wanted.credentialTypes.join() ||
    group?.extensionType !== qpcGroupExtensionType ||
    !(group.extensionData instanceof Uint8Array) ||
    hub?.extensionType !== qpcHubExtensionType ||
    !(hub.extensionData instanceof Uint8Array)
  ) {
    throw new MlsError('MALFORMED', 'group context: not the extensions of one of our groups');
  }
  return { info: decodeQpcGroup(group.extensionData), hubs: decodeQpcHub(hub.extensionData) };
}

function parseRoles(bytes: Uint8Array): RoleEntry[] {
  const reader = new Reader(bytes);
  const roles: RoleEntry[] = [];
  while (!reader.isAtEnd) {
    const userId = textOf(reader.vector(userIdBytesMax), 'user id');
    const code = reader.uint(1);
    if (code !== roleCodes.owner && code !== roleCodes.admin) {
      throw new MlsError('MALFORMED', `role ${code}: know 1 and 2`);
    }
    roles.push({ userId, role: code === roleCodes.owner ? 'owner' : 'admin' });
  }
  return roles;
}

function checkInfo(info: QpcGroupInfo): void {
  const { conversationId, name, roles, expirySeconds, joinKeyHash, policyVersion } = info;
  const { conversationIdBytes, nameBytes, joinKeyHashBytes } = groupLimits;
  demand(conversationId.length === conversationIdBytes, 'conversation id: need 32 bytes');
  demand(utf8(name).length <= nameBytes, `group name: more than ${nameBytes} bytes`);
  demand(name.isWellFormed(), 'group name: not Unicode');
  demand(isUint(expirySeconds, groupLimits.expirySeconds), 'expiry: not 0 s to a year and a day');
  demand(isUint(policyVersion, 0xffff), 'policy version: no 16-bit number');
  const isHash = joinKeyHash === undefined || joinKeyHash.length === joinKeyHashBytes;
  demand(isHash, 'join key hash: need 32 bytes');
  const { directDevices, channelNonce } = info;
  demand(
    directDevices >= 1 && isUint(directDevices, groupLimits.directDevicesMax),
    'direct devices: not 1 to 256',
  );
  const isNonce =
    channelNonce === undefined || channelNonce.length === groupLimits.channelNonceBytes;
  demand(isNonce, 'channel nonce: need 32 bytes');
  demand(roles.length <= groupLimits.roles, `roles: more than ${groupLimits.roles}`);
  demand(
    roles.some(({ role }) => role === 'owner'),
    'roles: need an owner',
  );
  for (const [index, { userId }] of roles.entries()) {
    demand(isUserId(userId), 'roles: no user id');
    const previous = roles[index - 1]?.userId ?? '';
    demand(previous < userId, 'roles: not each once and in order');
  }
}

function checkHubs(hubs: readonly string[]): void {
  demand(hubs.length === 1 || hubs.length === 3, `hubs: ${hubs.length}, need 1 or 3`);
  demand(hubs.every(isDomain), 'hubs: no lower-case domain');
  demand(new Set(hubs).size === hubs.length, 'hubs: one twice');
}

function isUserId(text: string): boolean {
  try {
    return parseUserId(text).userId === text;
  } catch (error) {
    if (hasReason(error, 'BAD_FIELD')) return false;
    throw error;
  }
}

function isUint(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}

function demand(isTrue: boolean, message: string): void {
  if (!isTrue) throw new MlsError('MALFORMED', message);
}

function requireVersion(reader: Reader, known: readonly number[], what: string): number {
  const version = reader.uint(1);
  demand(known.includes(version), `${what}: version ${version}, know ${known.join()}`);
  return version;
}

function uint(value: number, length: 2 | 4): Uint8Array {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, value);
  return out.subarray(4 - length);
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function textOf(bytes: Uint8Array, what: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new MlsError('MALFORMED', `${what}: not UTF-8`, { cause });
  }
}
