/** The client's half of a channel: keys that all members share, and posts that nodes take. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom, verifyChannelPost } from '@quicprochat/proto';
import { channelWriteKey, domainsOf, signPost } from './channel.ts';
import { acceptCommit, mandatorySuite } from '../mls/index.ts';
import { groupOf, refused, TestWorld } from '../mls/test-members.ts';

test('all members of an epoch write with one key, and with another one in the next', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  const [ours, theirs] = await groupOf(mandatorySuite, [alice, bob]);
  assert.ok(theirs !== undefined);
  const cid = systemRandom.bytes(32);
  const key = await channelWriteKey(alice.mls, ours, cid);
  const same = await channelWriteKey(bob.mls, theirs, cid);
  assert.deepEqual(same.publicKey, key.publicKey);
  const elsewhere = await channelWriteKey(bob.mls, theirs, systemRandom.bytes(32));
  assert.notDeepEqual(elsewhere.publicKey, key.publicKey);
  const post = await signPost(bob.mls, theirs, cid, {
    mid: systemRandom.bytes(16),
    payload: systemRandom.bytes(50),
  });
  const statement = { ...post, epoch: Number(post.epoch) };
  assert.ok(verifyChannelPost(statement, post.signature, key.publicKey));
  assert.ok(!verifyChannelPost({ ...statement, epoch: 9 }, post.signature, key.publicKey));
  assert.deepEqual(domainsOf(ours), ['red.example']);

  // Who is removed cannot make the next key, nor go on with its own.
  const { pending, commit } = await alice.mls.removeMembers(ours, [theirs.ownLeafIndex]);
  const next = await channelWriteKey(alice.mls, acceptCommit(ours, pending).next, cid);
  assert.notDeepEqual(next.publicKey, key.publicKey);
  const gone = (await bob.mls.process(theirs, commit)).next;
  await assert.rejects(channelWriteKey(bob.mls, gone, cid), refused('REMOVED'));
});
