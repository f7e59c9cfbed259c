/**
 * What a commit means for a group's channel (docs/protocol/channels.md, "What a commit changes"): where the commit
 * itself goes, and one update for each domain, which the hub writes in the same transaction. Pure but for
 * the keys of the two epochs.
 */
import {
  parseUserId,
  signChannelPost,
  signChannelUpdate,
  type SigningKey,
} from '@quicprochat/proto';
import {
  ChannelUpdateSchema,
  create,
  type ChannelPostSchema,
  type DomainUpdateSchema,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { channelOf, channelWriteKey, domainsOf, type GroupChannel } from './channel.ts';
import type { Member, Mls, MlsGroup } from '../mls/index.ts';

/** A commit as it travels, before it is known where to. */
export interface CommitOnItsWay {
  readonly mid: Uint8Array;
  readonly envelope: Uint8Array;
  readonly isRemoval: boolean;
}

/** Where a commit goes, and what goes with it. */
export interface CommitRoute {
  /** Devices get it in their inboxes. */
  readonly isDirect: boolean;
  readonly channel?: MessageInitShape<typeof ChannelPostSchema>;
  readonly updates?: MessageInitShape<typeof DomainUpdateSchema>[];
  readonly channelNonce?: Uint8Array;
}

/** `tokenOf`: the delivery token of a device; undefined: none is known. */
export async function routeOf(
  mls: Mls,
  group: MlsGroup,
  pending: MlsGroup,
  commit: CommitOnItsWay,
  tokenOf: (rid: Uint8Array) => Uint8Array | undefined,
): Promise<CommitRoute> {
  const [before, after] = [channelOf(group), channelOf(pending)];
  const channel = after ?? before;
  if (channel === undefined) return { isDirect: true };
  const isSame = before !== undefined && Buffer.compare(before.cid, channel.cid) === 0;
  const updates = await updatesOf(mls, group, pending, channel, { ...commit, isSame, tokenOf });
  const { nonce: channelNonce } = channel;
  // A fresh channel knows nobody's key yet, and the other one may be why there is a fresh one.
  if (!isSame) return { isDirect: true, updates, channelNonce };
  const key = await channelWriteKey(mls, group, channel.cid);
  const post = postOf(group, group.epoch, channel.cid, commit, key);
  // Who goes back to direct mode is told there as well.
  return { isDirect: after === undefined, updates, channelNonce, channel: post };
}

/**
 * The same for a device that comes back, which is in neither of the two epochs yet: `writeKey` of the one that
 * it commits on. It takes its own place, so its nodes learn nothing but the next write key.
 */
export async function returnRouteOf(
  mls: Mls,
  pending: MlsGroup,
  writeKey: SigningKey | undefined,
  commit: Pick<CommitOnItsWay, 'mid' | 'envelope'>,
): Promise<CommitRoute> {
  const channel = channelOf(pending);
  if (channel === undefined || writeKey === undefined) return { isDirect: true };
  const { cid, seed } = channel;
  const { publicKey: writePub } = await channelWriteKey(mls, pending, cid);
  const fields = { cid, seed, removal: false, hubs: [...pending.hubs], epoch: pending.epoch };
  const update = create(ChannelUpdateSchema, { ...fields, writePub, add: [], remove: [] });
  const signed = signChannelUpdate(update, writeKey);
  const updates = domainsOf(pending).map((domain) => ({ domain, update: signed }));
  const post = postOf(pending, pending.epoch - 1n, cid, commit, writeKey);
  return { isDirect: false, updates, channelNonce: channel.nonce, channel: post };
}

function postOf(
  group: MlsGroup,
  epoch: bigint,
  cid: Uint8Array,
  { mid, envelope }: Pick<CommitOnItsWay, 'mid' | 'envelope'>,
  key: SigningKey,
): NonNullable<CommitRoute['channel']> {
  const statement = { cid, epoch: Number(epoch), mid, payload: envelope };
  const signature = signChannelPost(statement, key);
  return { cid, epoch, signature, domains: domainsOf(group) };
}

interface UpdateParts extends CommitOnItsWay {
  /** Its nodes know it already. */
  readonly isSame: boolean;
  readonly tokenOf: (rid: Uint8Array) => Uint8Array | undefined;
}

async function updatesOf(
  mls: Mls,
  group: MlsGroup,
  pending: MlsGroup,
  { cid, seed }: GroupChannel,
  { isSame, isRemoval, tokenOf }: UpdateParts,
): Promise<NonNullable<CommitRoute['updates']>> {
  const hasEnded = channelOf(pending) === undefined;
  const before = isSame ? byDomain(group.members()) : new Map<string, readonly Member[]>();
  const after = hasEnded ? new Map<string, readonly Member[]>() : byDomain(pending.members());
  const key = await channelWriteKey(mls, group, cid);
  const next = hasEnded ? undefined : await channelWriteKey(mls, pending, cid);
  return [...new Set([...before.keys(), ...after.keys()])].toSorted().map((domain) => {
    const [were, are] = [before.get(domain) ?? [], after.get(domain) ?? []];
    const update = create(ChannelUpdateSchema, {
      ...{ cid, seed, removal: isRemoval },
      hubs: [...group.hubs],
      epoch: pending.epoch,
      writePub: next?.publicKey ?? new Uint8Array(0),
      add: without(are, were).map((rid) => ({ rid, token: tokenOf(rid) ?? new Uint8Array(0) })),
      remove: without(were, are),
    });
    return { domain, update: signChannelUpdate(update, key) };
  });
}

function byDomain(members: readonly Member[]): Map<string, readonly Member[]> {
  return Map.groupBy(members, ({ userId }) => parseUserId(userId).domain);
}

/** Devices of the one list that are not in the other. */
function without(members: readonly Member[], others: readonly Member[]): Uint8Array[] {
  const known = new Set(others.map(({ identityPub }) => Buffer.from(identityPub).toString('hex')));
  return members
    .map(({ identityPub }) => identityPub)
    .filter((rid) => !known.has(Buffer.from(rid).toString('hex')));
}
