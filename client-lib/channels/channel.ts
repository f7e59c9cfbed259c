/**
 * The client's half of a channel (docs/protocol/channels.md): its id, the write key of an epoch, signed posts,
 * and an Enqueue that names the group's domains when the node asks for them. What is stored before a post
 * leaves is the caller's.
 */
import {
  channelId,
  domainsHash,
  groupChannelSeed,
  hasReason,
  methods,
  parseUserId,
  signChannelPost,
  signingKeyFromSeed,
  type SigningKey,
} from '@quicprochat/proto';
import {
  ChannelPostSchema,
  create,
  fromBinary,
  toBinary,
  type EnqueueResponse,
} from '@quicprochat/proto/messages';
import type { Session } from '../session.ts';
import type { Mls, MlsGroup } from '../mls/index.ts';

/** A group's channel, by its state alone. */
export interface GroupChannel {
  readonly cid: Uint8Array;
  readonly seed: Uint8Array;
  readonly nonce: Uint8Array;
}

/** Undefined in direct mode. */
export function channelOf({
  groupId,
  hubs,
  info: { channelNonce: nonce },
}: Pick<MlsGroup, 'groupId' | 'hubs' | 'info'>): GroupChannel | undefined {
  if (nonce === undefined) return undefined;
  const seed = groupChannelSeed(groupId, nonce);
  return { cid: channelId(seed, hubs), seed, nonce };
}

/** Label of the MLS exporter secret that is the seed of a channel's write key. */
export const channelWriteLabel = 'qpc channel write';

/** The write key of the group's current epoch for a channel (`cid`, 32 bytes), equal on all members. */
export async function channelWriteKey(
  mls: Mls,
  group: MlsGroup,
  cid: Uint8Array,
): Promise<SigningKey> {
  const seed = await mls.exporter(group, channelWriteLabel, cid, 32);
  try {
    return signingKeyFromSeed(seed);
  } finally {
    seed.fill(0);
  }
}

/** A ciphertext for a channel, signed: always sent as the same bytes. */
export interface SignedPost {
  readonly cid: Uint8Array;
  readonly epoch: bigint;
  /** 16 bytes. */
  readonly mid: Uint8Array;
  readonly payload: Uint8Array;
  readonly signature: Uint8Array;
}

/** Signs an envelope of the group's current epoch. Throws MlsError REMOVED. */
export async function signPost(
  mls: Mls,
  group: MlsGroup,
  cid: Uint8Array,
  { mid, payload }: Pick<SignedPost, 'mid' | 'payload'>,
): Promise<SignedPost> {
  const { epoch } = group;
  const writeKey = await channelWriteKey(mls, group, cid);
  const statement = { cid, epoch: Number(epoch), mid, payload };
  return { cid, epoch, mid, payload, signature: signChannelPost(statement, writeKey) };
}

/** The domains of a group's members, ascending: what a post goes to. */
export function domainsOf(group: MlsGroup): string[] {
  return [...new Set(group.members().map(({ userId }) => parseUserId(userId).domain))].toSorted();
}

/** As the outbox keeps it; mid and payload stand beside it. */
export function encodePost(
  { cid, epoch, signature }: Omit<SignedPost, 'mid' | 'payload'>,
  domains: readonly string[],
): Uint8Array {
  return toBinary(
    ChannelPostSchema,
    create(ChannelPostSchema, { cid, epoch, signature, domains: [...domains] }),
  );
}

/** Of the own store, which `encodePost` wrote. */
export function decodePost(bytes: Uint8Array): Omit<SignedPost, 'mid' | 'payload'> & {
  readonly domains: readonly string[];
} {
  return fromBinary(ChannelPostSchema, bytes);
}

/**
 * Posts at the own node; its OK means what it means for Enqueue. The node is told the domains only
 * when it does not know them. Throws what the call throws.
 */
export async function sendPost(
  session: Pick<Session, 'call'>,
  { cid, epoch, mid, payload, signature }: SignedPost,
  domains: readonly string[],
  signal?: AbortSignal,
): Promise<EnqueueResponse> {
  const channel = { cid, epoch, signature, domainsHash: domainsHash(domains) };
  const options = signal === undefined ? {} : { signal };
  try {
    return await session.call(methods.enqueue, { mid, payload, channel }, options);
  } catch (error) {
    if (!hasReason(error, 'DOMAINS_STALE')) throw error;
    const named = { ...channel, domains: [...domains] };
    return session.call(methods.enqueue, { mid, payload, channel: named }, options);
  }
}
