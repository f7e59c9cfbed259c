/** A group of this device alone, at the first entry of its log: made, and stored with its conversation. */
import { parseEntry, type Runtime } from '@quicprochat/proto';
import { create, GroupControlSchema, type GroupControl } from '@quicprochat/proto/messages';
import type { Identity, Mls, MlsGroup, SignatureKey } from '../mls/index.ts';
import { envelopeKeyOf } from '../sending/envelope-key.ts';
import type { EnvelopeKey } from '../store/group-rows.ts';
import type { ClientStore } from '../store/store.ts';
import type { Batch } from '../writer.ts';
import { epochJoinKeys, newJoinKey } from './returning/group-info.ts';
import { firstEntry } from './log/group-log.ts';
import { headOf } from './log/group-walker.ts';
import { firstRekey } from './intents/rekeys.ts';

export interface NewGroupParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly mls: Mls;
  readonly identity: Identity;
  readonly signatureKey: SignatureKey;
}

export interface NewGroup {
  readonly group: MlsGroup;
  readonly key: EnvelopeKey;
  readonly joinKey: Uint8Array;
  /** The first entry, with the word of its hubs as far as they know of it. */
  readonly control: GroupControl;
}

/** Not certified yet: the hub hears of the group before its first commit. Nothing is stored. */
export async function makeGroup(
  { mls, identity, signatureKey }: NewGroupParts,
  options: Pick<Parameters<Mls['createGroup']>[0], 'suite' | 'name' | 'hubs'>,
): Promise<NewGroup> {
  const group = await mls.createGroup({ ...options, identity, signatureKey });
  const key = await envelopeKeyOf(mls, group);
  const { signing } = await epochJoinKeys(mls, group);
  const entry = await firstEntry(mls, group, signing.publicKey);
  const control = create(GroupControlSchema, { entry: { entry } });
  return { group, key, joinKey: await newJoinKey(mls, group), control };
}

/** Part of a batch. */
export function storeGroup(
  { store, runtime, identity }: NewGroupParts,
  batch: Batch,
  { group, key, joinKey, control }: NewGroup,
): void {
  const { groupId, suite, info } = group;
  const { nowMs } = batch;
  batch.enterEpoch(group, key, []);
  batch.write(() => {
    store.groups.addConversation({
      id: info.conversationId,
      groupId,
      suite,
      name: info.name,
      creator: identity.userId,
      joinedMs: nowMs,
      sentCount: 0,
      lamport: 0,
    });
    store.resync.putJoinKey(groupId, joinKey);
    store.groupLog.putHead(groupId, headOf(parseEntry(control.entry?.entry), control));
    store.groupLog.putRekey(firstRekey(groupId, 0, nowMs, runtime.random));
  });
}
