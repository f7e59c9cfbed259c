/** The external commit of a device that comes back as its hub gets it, and the group after it, as both are kept. */
import {
  commitHash,
  methods,
  parseUserId,
  PayloadTooLargeError,
  signEntry,
  type Random,
} from '@quicprochat/proto';
import {
  create,
  GroupEntrySchema,
  SubmitCommitRequestSchema,
  toBinary,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import { returnRouteOf } from '../../channels/channel-commit.ts';
import { sealChannel } from '../../crypto/envelope.ts';
import { epochJoinKeys, sealJoinState } from './group-info.ts';
import { commitKeyOf } from '../log/group-log.ts';
import type { JoinPlace } from './join-place.ts';
import { encodeCold, encodeHot, type Mls, type Return } from '../../mls/index.ts';
import { recipientsOf } from '../../sending/sealing.ts';
import type { SentReturn } from '../../store/resync-rows.ts';
import type { ClientStore } from '../../store/store.ts';

/** Throws PayloadTooLargeError when no hub takes it. */
export async function returnRequest(
  parts: { readonly store: ClientStore; readonly mls: Mls; readonly random: Random },
  { hub, tip, keys, key, writeKey, channelKeyId: keyId }: Omit<JoinPlace, 'certified'>,
  { commit, pending }: Pick<Return, 'commit' | 'pending'>,
): Promise<SentReturn> {
  const { store, mls, random } = parts;
  const content = { kind: 'mlsMessage', bytes: commit } as const;
  const envelope = sealChannel({ content, key: keys.envelopeKey, keyId, random });
  const entry = create(GroupEntrySchema, {
    group: pending.groupId,
    parent: tip.hash,
    epoch: BigInt(tip.epoch) + 1n,
    commitHash: commitHash(envelope),
    nextCommitPub: (await commitKeyOf(mls, pending)).publicKey,
    joinCommitPub: (await epochJoinKeys(mls, pending)).signing.publicKey,
  });
  const mid = random.bytes(16);
  const { isDirect, ...route } = await returnRouteOf(mls, pending, writeKey, { mid, envelope });
  const submit = create(SubmitCommitRequestSchema, {
    hub,
    entry: signEntry(entry, keys.signing),
    commit: envelope,
    mid,
    ...route,
    targets: (isDirect ? recipientsOf(pending) : []).map(({ identityPub: rid, userId }) => ({
      rid,
      domain: parseUserId(userId).domain,
      token: store.tokens.of(rid) ?? new Uint8Array(0),
    })),
  });
  const groupInfo = await sealJoinState(mls, pending, key, random);
  const request = requestBytes({ ...submit, groupInfo }) ?? requestBytes(submit);
  if (request === undefined) throw new PayloadTooLargeError('the commit of a way back');
  return { request, cold: encodeCold(pending), hot: encodeHot(pending) };
}

/** Encoded; undefined: more than a hub takes. */
export function requestBytes(request: SubmitCommitRequest): Uint8Array | undefined {
  const bytes = toBinary(SubmitCommitRequestSchema, request);
  return bytes.length > methods.submitCommit.maxRequestBytes ? undefined : bytes;
}
