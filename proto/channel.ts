/**
 * What is signed around a channel, as pure functions: posts and ChannelUpdates under the write keys
 * of a group's epochs, and the hash that names a list of domains (docs: protocol/channels). It keeps
 * no keys and knows no subscribers.
 */
import { createHash } from 'node:crypto';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { isDomain } from './address.ts';
import { sameBytes } from './bytes.ts';
import {
  ChannelUpdateSchema,
  SignedChannelUpdateSchema,
  type ChannelUpdate,
} from './gen/qpc/v1/channel_pb.ts';
import { signStatement, verifyStatement, type SigningKey } from './signature.ts';
import { InvalidArgumentError } from './status.ts';

export const channelLimits = {
  cidBytes: 32,
  seedBytes: 32,
  nonceBytes: 32,
  domainsHashBytes: 16,
  /** Domains of one group. */
  domains: 256,
  /** Devices that one ChannelUpdate adds and removes. */
  changes: 1_024,
  hubsMax: 3,
  /** Encoded SignedChannelUpdate. */
  updateBytes: 128 * 1024,
} as const;

/**
 * Id of a channel (32 bytes): SHA-256("qpc-channel" || seed || each hub and a zero byte). It commits to who
 * may begin it: nobody finds a seed for the id of a channel that is somebody else's.
 */
export function channelId(seed: Uint8Array, hubs: readonly string[]): Uint8Array {
  const hash = createHash('sha256').update('qpc-channel').update(seed);
  for (const hub of hubs) hash.update(`${hub}\0`);
  return new Uint8Array(hash.digest());
}

/** Seed of a channel of a group (both 32 bytes); tells nobody the group's id. */
export function groupChannelSeed(group: Uint8Array, nonce: Uint8Array): Uint8Array {
  return seedOf('qpc-channel-of-group', group, nonce);
}

/** Seed of a channel that a device makes by itself (both 32 bytes). */
export function deviceChannelSeed(rid: Uint8Array, nonce: Uint8Array): Uint8Array {
  return seedOf('qpc-channel-of-device', rid, nonce);
}

function seedOf(what: string, owner: Uint8Array, nonce: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(what).update(owner).update(nonce).digest());
}

/** Whether an update is of the channel that its seed and hubs name. */
export function isOfItsChannel({ cid, seed, hubs }: ChannelUpdate): boolean {
  return sameBytes(cid, channelId(seed, hubs));
}

/** What a post's signature covers. */
export interface ChannelStatement {
  readonly cid: Uint8Array;
  readonly epoch: number;
  readonly mid: Uint8Array;
  readonly payload: Uint8Array;
}

/** Signature (64 bytes) of a post, by the write key of its epoch. */
export function signChannelPost(post: ChannelStatement, writeKey: SigningKey): Uint8Array {
  return signStatement('qpc/channel-post/1', postBytes(post), writeKey);
}

/** True only for a signature by the write key whose public half (32 bytes) is given. */
export function verifyChannelPost(
  post: ChannelStatement,
  signature: Uint8Array,
  writePub: Uint8Array,
): boolean {
  return verifyStatement('qpc/channel-post/1', postBytes(post), signature, writePub);
}

function postBytes({ cid, epoch, mid, payload }: ChannelStatement): Uint8Array {
  const epochBytes = Buffer.alloc(8);
  epochBytes.writeBigUInt64BE(BigInt(epoch));
  const digest = createHash('sha256').update(payload).digest();
  return Buffer.concat([cid, epochBytes, mid, digest]);
}

/**
 * Names a list of domains: 16 bytes of SHA-256("qpc-domains" || each domain and a zero byte). The
 * order in which they are given does not matter, nor does a repeat.
 */
export function domainsHash(domains: readonly string[]): Uint8Array {
  const hash = createHash('sha256').update('qpc-domains');
  // Domains are ASCII: the order of code units is that of their bytes.
  for (const domain of [...new Set(domains)].toSorted()) hash.update(`${domain}\0`);
  return new Uint8Array(hash.digest().subarray(0, channelLimits.domainsHashBytes));
}

/** Payload of a row of kind 3. `writeKey` is that of the epoch before the update's. */
export function signChannelUpdate(update: ChannelUpdate, writeKey: SigningKey): Uint8Array {
  const bytes = toBinary(ChannelUpdateSchema, update);
  const signature = signStatement('qpc/channel-update/1', bytes, writeKey);
  return toBinary(SignedChannelUpdateSchema, {
    $typeName: 'qpc.v1.SignedChannelUpdate',
    update: bytes,
    signature,
  });
}

/** A ChannelUpdate whose fields keep their bounds, with what its signature covers. */
export interface ParsedChannelUpdate {
  readonly update: ChannelUpdate;
  /** As a number: at most 2^53 - 1. */
  readonly epoch: number;
  readonly signedBytes: Uint8Array;
  readonly signature: Uint8Array;
}

/** Throws InvalidArgumentError BAD_FIELD. Whose signature it is, `verifyChannelUpdate` says. */
export function parseChannelUpdate(payload: Uint8Array): ParsedChannelUpdate {
  if (payload.length > channelLimits.updateBytes) {
    throw bad(`${payload.length} bytes, at most ${channelLimits.updateBytes}`);
  }
  const { update: signedBytes, signature } = decode(SignedChannelUpdateSchema, payload);
  const update = decode(ChannelUpdateSchema, signedBytes);
  const { cid, hubs, epoch, writePub, add, remove, seed } = update;
  if (cid.length !== channelLimits.cidBytes) throw bad(`cid: ${cid.length} bytes, need 32`);
  const wrongHubs = hubsViolation(hubs);
  if (wrongHubs !== undefined) throw bad(`hubs: ${wrongHubs}`);
  if (epoch > BigInt(Number.MAX_SAFE_INTEGER)) throw bad('epoch: above 2^53 - 1');
  if (writePub.length !== 0 && writePub.length !== 32) {
    throw bad(`writePub: ${writePub.length} bytes, need 32 or none`);
  }
  if (seed.length !== channelLimits.seedBytes) throw bad(`seed: ${seed.length} bytes, need 32`);
  if (add.length + remove.length > channelLimits.changes) {
    throw bad(`${add.length + remove.length} changes, at most ${channelLimits.changes}`);
  }
  for (const { rid, token } of add) {
    if (rid.length !== 32) throw bad(`add.rid: ${rid.length} bytes, need 32`);
    if (token.length !== 0 && token.length !== 16) {
      throw bad(`add.token: ${token.length} bytes, need 16 or none`);
    }
  }
  for (const rid of remove) {
    if (rid.length !== 32) throw bad(`remove: ${rid.length} bytes, need 32`);
  }
  return { update, epoch: Number(epoch), signedBytes, signature };
}

/** True only for a signature by the write key whose public half (32 bytes) is given. */
export function verifyChannelUpdate(parsed: ParsedChannelUpdate, writePub: Uint8Array): boolean {
  const { signedBytes, signature } = parsed;
  return verifyStatement('qpc/channel-update/1', signedBytes, signature, writePub);
}

/** What is wrong with a list of hubs, or undefined: 1 or 3 domains, each once. */
export function hubsViolation(hubs: readonly string[]): string | undefined {
  if (hubs.length !== 1 && hubs.length !== channelLimits.hubsMax) {
    return `${hubs.length}, need 1 or ${channelLimits.hubsMax}`;
  }
  if (!hubs.every(isDomain)) return 'need lower-case domains';
  return new Set(hubs).size === hubs.length ? undefined : 'each domain once';
}

function decode<T extends typeof SignedChannelUpdateSchema | typeof ChannelUpdateSchema>(
  schema: T,
  bytes: Uint8Array,
) {
  try {
    return fromBinary<T>(schema, bytes);
  } catch (cause) {
    throw bad('does not parse', cause);
  }
}

function bad(what: string, cause?: unknown): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', `channel update: ${what}`, { cause });
}
