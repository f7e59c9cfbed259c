/**
 * The state of a group as its hubs keep it for members that lost their place (docs/protocol/group-log.md, "Coming
 * back"): a GroupInfo under a key that members have and hubs do not. Two secrets, both made by MLS:
 *
 *   join key      opens what hubs keep; begins anew with each removal, so that nobody has it who is out
 *   join secret   of one epoch, lies beside the GroupInfo: signs the entry of an external commit, and seals it
 */
import {
  PayloadTooLargeError,
  sameBytes,
  signingKeyFromSeed,
  type Random,
  type SigningKey,
} from '@quicprochat/proto';
import { create, fromBinary, JoinStateSchema, toBinary } from '@quicprochat/proto/messages';
import {
  channelKeyId,
  EnvelopeError,
  openChannel,
  parseEnvelope,
  sealChannel,
  type SealedContent,
} from '../../crypto/envelope.ts';
import { channelOf, channelWriteLabel } from '../../channels/channel.ts';
import { hkdfExpand } from '../../crypto/hkdf.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import type { Mls, MlsGroup } from '../../mls/index.ts';

const joinSecretBytes = 32;
const text = new TextEncoder();

/** A join secret (32 bytes) as the two keys that it stands for. */
export interface JoinKeys {
  readonly secret: Uint8Array;
  /** Its public half stands in the epoch's entry. */
  readonly signing: SigningKey;
  /** Of the envelope of an external commit (32 bytes). */
  readonly envelopeKey: Uint8Array;
}

function joinKeysOf(secret: Uint8Array): JoinKeys {
  const part = (label: string): Uint8Array => hkdfExpand('sha256', secret, text.encode(label), 32);
  const seed = part('qpc join commit');
  const signing = signingKeyFromSeed(seed);
  seed.fill(0);
  return { secret, signing, envelopeKey: part('qpc join envelope') };
}

/** Of the group's epoch, equal on all members. */
export async function epochJoinKeys(mls: Mls, group: MlsGroup): Promise<JoinKeys> {
  return joinKeysOf(await mls.exporter(group, 'qpc join', group.groupId, joinSecretBytes));
}

/** The join key (32 bytes) that begins with this epoch. */
export function newJoinKey(mls: Mls, group: MlsGroup): Promise<Uint8Array> {
  return mls.exporter(group, 'qpc join key', group.groupId, 32);
}

/** The join key after a commit: another one if somebody is out now. Undefined: it is not known. */
export async function joinKeyAfter(
  mls: Mls,
  before: MlsGroup,
  after: MlsGroup,
  key: Uint8Array | undefined,
): Promise<Uint8Array | undefined> {
  const staying = after.members();
  const isOut = before
    .members()
    .some(({ identityPub }) => !staying.some((one) => sameBytes(one.identityPub, identityPub)));
  return isOut ? newJoinKey(mls, after) : key;
}

/** The state of an epoch for its hubs; empty where it is too large for them (512 KiB), or there is no key. */
export async function sealJoinState(
  mls: Mls,
  group: MlsGroup,
  key: Uint8Array | undefined,
  random: Random,
): Promise<Uint8Array> {
  if (key === undefined) return new Uint8Array(0);
  const groupInfo = await mls.groupInfoOf(group);
  const { secret: joinSecret } = await epochJoinKeys(mls, group);
  const channel = channelOf(group);
  const writeSecret = channel && (await mls.exporter(group, channelWriteLabel, channel.cid, 32));
  const { keyId: channelKeyId } = await envelopeKeyOf(mls, group);
  const state = { groupInfo, joinSecret, channelKeyId, ...(writeSecret && { writeSecret }) };
  const bytes = toBinary(JoinStateSchema, create(JoinStateSchema, state));
  try {
    return sealChannel({ content: { kind: 'joinState', bytes }, key, random });
  } catch (error) {
    if (error instanceof PayloadTooLargeError) return new Uint8Array(0);
    throw error;
  }
}

/**
 * What a hub gave out. Throws EnvelopeError UNKNOWN_KEY where it is under another key than this one, and
 * BAD_ENVELOPE for what no member sealed.
 */
export function openJoinState(
  sealed: Uint8Array,
  key: Uint8Array,
): {
  readonly groupInfo: Uint8Array;
  readonly keys: JoinKeys;
  /** Of the group's channel in that epoch, if it has one. */
  readonly writeKey: SigningKey | undefined;
  /** What envelopes of that epoch are named by (8 bytes). */
  readonly channelKeyId: Uint8Array;
} {
  const envelope = parseEnvelope(sealed);
  if (envelope.mode !== 'channel') throw notOurs('for one device');
  const keyId = channelKeyId(key);
  const content = openChannel(envelope, (id) => (sameBytes(id, keyId) ? key : undefined));
  if (content.kind !== 'joinState') throw notOurs('of another kind');
  const { groupInfo, joinSecret, writeSecret, ...state } = fromBinary(
    JoinStateSchema,
    content.bytes,
  );
  const isWhole = joinSecret.length === joinSecretBytes && [0, 32].includes(writeSecret.length);
  if (!isWhole || state.channelKeyId.length !== keyId.length) throw notOurs('without its secrets');
  const writeKey = writeSecret.length === 0 ? undefined : signingKeyFromSeed(writeSecret);
  const { channelKeyId: named } = state;
  return { groupInfo, keys: joinKeysOf(joinSecret), writeKey, channelKeyId: named };
}

/**
 * The MLS message of a commit as it travels, on the group's epoch. `isReturn`: of a device that comes back, which has
 * the join secret and no key of the epoch. Undefined: no commit, or not named by the epoch, as any other has to be, so
 * that the log tells which keys went with their epochs. Throws EnvelopeError BAD_ENVELOPE where it is under neither key.
 */
export async function openCommit(
  mls: Mls,
  group: MlsGroup,
  commit: Uint8Array,
): Promise<{ readonly bytes: Uint8Array; readonly isReturn: boolean } | undefined> {
  const sealed = parseEnvelope(commit);
  if (sealed.mode !== 'channel') return undefined;
  const { key, keyId } = await envelopeKeyOf(mls, group);
  if (!sameBytes(sealed.keyId, keyId)) return undefined;
  let isReturn = false;
  let opened: SealedContent;
  try {
    opened = openChannel(sealed, () => key);
  } catch (error) {
    if (!(error instanceof EnvelopeError)) throw error;
    const { envelopeKey } = await epochJoinKeys(mls, group);
    opened = openChannel(sealed, () => envelopeKey);
    isReturn = true;
  }
  return opened.kind === 'mlsMessage' ? { bytes: opened.bytes, isReturn } : undefined;
}

function notOurs(what: string): EnvelopeError {
  return new EnvelopeError('BAD_ENVELOPE', `the state of a group ${what}`);
}
