/** Who comes back into a group with a channel brings the channel's nodes along. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  parseChannelUpdate,
  parseEntry,
  systemRandom,
  verifyChannelPost,
  verifyChannelUpdate,
} from '@quicprochat/proto';
import { fromBinary, SubmitCommitRequestSchema } from '@quicprochat/proto/messages';
import { channelOf, channelWriteKey } from '../../channels/channel.ts';
import {
  epochJoinKeys,
  newJoinKey,
  openCommit,
  openJoinState,
  sealJoinState,
} from './group-info.ts';
import { firstEntry } from '../log/group-log.ts';
import { acceptCommit, mandatorySuite } from '../../mls/index.ts';
import { groupOf, TestWorld } from '../../mls/test-members.ts';
import { returnRequest } from './resync-request.ts';
import { openMemoryStore } from '../../store/sqlite-store.ts';

test('the write key of its epoch lies with the state; the commit is a post and hands the next one on', async () => {
  const world = new TestWorld({ mayCommit: () => true });
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  const [ofAlice, ofBob] = await groupOf(mandatorySuite, [alice, bob]);
  assert(ofBob !== undefined);
  const info = { ...ofAlice.info, channelNonce: systemRandom.bytes(32) };
  const made = await alice.mls.commit(ofAlice, { context: { info } });
  const group = acceptCommit(ofAlice, made.pending).next;
  const key = await newJoinKey(alice.mls, group);
  const sealed = await sealJoinState(alice.mls, group, key, systemRandom);
  const state = openJoinState(sealed, key);
  const channel = channelOf(group);
  assert(channel !== undefined && state.writeKey !== undefined);
  const { publicKey } = await channelWriteKey(alice.mls, group, channel.cid);
  assert.deepEqual(state.writeKey.publicKey, publicKey);

  const back = await bob.mls.comeBack(state.groupInfo, ofBob, bob);
  const { signing } = await epochJoinKeys(alice.mls, group);
  const first = parseEntry(await firstEntry(alice.mls, group, signing.publicKey));
  const tip = { ...first, epoch: Number(group.epoch) };
  using store = openMemoryStore();
  const parts = { store, mls: bob.mls, random: systemRandom };
  const { request } = await returnRequest(parts, { hub: 'red.example', tip, key, ...state }, back);
  const {
    channel: post,
    commit,
    mid,
    updates,
    targets,
  } = fromBinary(SubmitCommitRequestSchema, request);
  assert(post !== undefined);
  // It is named by the epoch that it ends; under another name it is no commit of it.
  assert.equal((await openCommit(alice.mls, group, commit))?.isReturn, true);
  const misnamed = { hub: 'red.example', tip, key, ...state, channelKeyId: new Uint8Array(8) };
  const { request: other } = await returnRequest(parts, misnamed, back);
  const { commit: named } = fromBinary(SubmitCommitRequestSchema, other);
  assert.equal(await openCommit(alice.mls, group, named), undefined);
  const { next } = await alice.mls.processReturn(group, back.commit);
  const statement = { cid: channel.cid, epoch: Number(group.epoch), mid, payload: commit };
  assert.equal(verifyChannelPost(statement, post.signature, publicKey), true);
  assert.deepEqual([post.domains, targets], [['red.example'], []]);
  const [update] = updates.map((one) => parseChannelUpdate(one.update));
  assert(update !== undefined);
  assert.equal(verifyChannelUpdate(update, publicKey), true);
  const { writePub, add, remove, epoch } = update.update;
  assert.deepEqual(writePub, (await channelWriteKey(alice.mls, next, channel.cid)).publicKey);
  assert.deepEqual([add, remove, epoch], [[], [], next.epoch]);
});
