/**
 * One content sealed for devices of a group: the MLS message, and the envelopes that it travels in, or the
 * post that is for all of them.
 * Nothing is used up until the caller writes `next` down (docs/protocol/delivery.md, "Sending, likewise").
 */
import { parseUserId, QpcError, Status, type Random } from '@quicprochat/proto';
import { channelOf, domainsOf, encodePost, signPost } from '../channels/channel.ts';
import type { Contacts } from '../contacts/contacts.ts';
import { envelopeKeyOf } from './envelope-key.ts';
import {
  channelCopies,
  reachableCopies,
  requirePrekeys,
  type Recipient,
  type SealedCopy,
} from './fan-out.ts';
import {
  generationsKept,
  xwingSuite,
  type Encrypted,
  type Mls,
  type MlsGroup,
} from '../mls/index.ts';
import type { ClientStore } from '../store/store.ts';

/**
 * This store is an older copy of itself, so the group's next own key may have been used: a second
 * message under it would be taken for a repeat by all members, and not be safe.
 */
export class StaleKeysError extends QpcError {
  override name = 'StaleKeysError';
  constructor() {
    super(
      Status.FailedPrecondition,
      'STALE_KEYS',
      'conversation: this device was restored from an old copy and sends nothing here before it has new keys',
    );
  }
}

export interface SealingParts {
  readonly store: ClientStore;
  readonly mls: Mls;
  readonly contacts: Contacts;
  readonly random: Random;
}

/** A sealed content: `next` belongs into the transaction that stores the copies. */
export interface Sealed extends Encrypted {
  readonly copies: readonly SealedCopy[];
  /** Recipients that have no prekey, which one each would need. */
  readonly missing: readonly Recipient[];
}

export const headMarkBytes = 16;

/**
 * What every message says of the log that its sender follows: the first 16 bytes of the hash of the entry
 * of its epoch. Empty where none is kept.
 */
export function headMark(store: ClientStore, groupId: Uint8Array, epoch: bigint): Uint8Array {
  const { hash } = store.groupLog.headAt(groupId, Number(epoch)) ?? {};
  return hash?.slice(0, headMarkBytes) ?? new Uint8Array(0);
}

/** Every device of the group but this one. */
export function recipientsOf(group: MlsGroup): Recipient[] {
  return group.members().filter(({ leafIndex }) => leafIndex !== group.ownLeafIndex);
}

/** Throws StaleKeysError where nothing may be sealed. */
export function requireFresh(store: ClientStore, groupId: Uint8Array): void {
  if (store.groups.conversationOfGroup(groupId)?.staleMs !== undefined) throw new StaleKeysError();
}

/**
 * Whether a device has most likely dropped the key of an own message: something sealed more than 256
 * generations later in the same epoch went to it and did not come back, or goes ahead of it (`ahead`).
 * Then the original is of no use.
 */
export function isOvertaken(
  store: ClientStore,
  sealed: {
    readonly groupId: Uint8Array;
    readonly epoch: number;
    readonly generation?: number | undefined;
  },
  rid: Uint8Array,
  ahead?: Pick<Sealed, 'epoch' | 'generation'>,
): boolean {
  const { groupId, epoch, generation } = sealed;
  if (generation === undefined) return false;
  const sent = store.outbox.newestGeneration(groupId, rid, epoch) ?? 0;
  const newest = ahead?.epoch === BigInt(epoch) ? Math.max(sent, ahead.generation) : sent;
  return newest - generation > generationsKept;
}

/**
 * Seals with the group's next own key for these devices of it. Throws PrekeyError where a hybrid envelope cannot be
 * made, before a key is used, as long as prekeys may still be asked for (`mayFetch`); StaleKeysError; MlsError REMOVED.
 */
export async function sealContent(
  { store, mls, contacts, random }: SealingParts,
  group: MlsGroup,
  plaintext: Uint8Array,
  recipients: readonly Recipient[],
  mayFetch = true,
): Promise<Sealed> {
  requireFresh(store, group.groupId);
  // What is for everybody goes to the channel, if there is one; what is for some does not.
  const isForAll = recipients.length > 0 && recipients.length === group.members().length - 1;
  const channel = isForAll ? channelOf(group) : undefined;
  const isChannel = group.suite === xwingSuite || channel !== undefined;
  const prekeyOf = (rid: Uint8Array): Uint8Array | undefined => contacts.prekey(rid);
  if (!isChannel && mayFetch) requirePrekeys(recipients, prekeyOf);
  const envelopeKey = await envelopeKeyOf(mls, group);
  const sealed = await mls.encrypt(group, plaintext, headMark(store, group.groupId, group.epoch));
  const content = { kind: 'mlsMessage', bytes: sealed.ciphertext } as const;
  const { copies, missing } = isChannel
    ? { copies: channelCopies(content, recipients, envelopeKey, random), missing: [] }
    : reachableCopies(content, recipients, prekeyOf, random, mayFetch);
  if (channel === undefined) return { ...sealed, copies, missing };
  const posts = copies.map((copy) => postCopy(mls, group, channel.cid, copy));
  return { ...sealed, copies: await Promise.all(posts), missing };
}

/** The same ciphertext, as one row for the channel. */
async function postCopy(
  mls: Mls,
  group: MlsGroup,
  cid: Uint8Array,
  { mid, payload, targets }: SealedCopy,
): Promise<SealedCopy> {
  const own = group.members().find(({ leafIndex }) => leafIndex === group.ownLeafIndex);
  const { domain } = parseUserId(own?.userId ?? '');
  const bytes = encodePost(await signPost(mls, group, cid, { mid, payload }), domainsOf(group));
  const readers = targets.map(({ rid }) => rid);
  return { mid, payload, targets: [{ rid: cid, domain }], post: { bytes, readers } };
}
