/** A group whose owner revoked its only device, from the log to its heir; and a member that only says that it did. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex, methods } from '@quicprochat/proto';
import { epochJoinKeys } from '../returning/group-info.ts';
import { sealCommit } from '../log/group-log.ts';
import { createMls, mandatorySuite, roleOf, successionOf } from '../../mls/index.ts';
import { company, groupOf, HastyClock } from '../../test-company.ts';
import { exchange } from '../../test-devices.ts';
import { testRuntime } from '../../test-runtime.ts';

test('members take out the owner that gave up its key, and one of them owns the group', async () => {
  const { alice, bob, carol, id } = await company([mandatorySuite], new HastyClock());
  alice.revoke();
  for (const one of [bob, carol]) {
    await one.contacts.resolve(alice.userId, alice.directory);
    await one.groups.revocations.check();
    one.groups.committer.start();
  }
  await Promise.all([bob, carol].map((one) => one.groups.committer.idle()));
  // Both wanted it; the duty of one may be in its time still.
  while (
    bob.store.groupLog.openIntents(id).length + carol.store.groupLog.openIntents(id).length >
    0
  ) {
    await exchange(bob, carol);
    await Promise.all([bob, carol].map((one) => one.settle()));
    await testRuntime.clock.sleep(1);
  }
  await exchange(bob, carol);
  const groups = await Promise.all([bob, carol].map((one) => groupOf(one, id)));
  assert.equal(new Set(groups.map((group) => hex(group.epochAuthenticator))).size, 1);
  for (const group of groups) {
    assert.deepEqual(
      new Set(group.members().map(({ userId }) => userId)),
      new Set([bob.userId, carol.userId]),
    );
    assert.equal(roleOf(group.info, bob.userId), 'owner');
  }
  await bob.conversations.updateMetadata(id, { name: 'mine now' });
  await exchange(bob, carol);
  assert.equal((await groupOf(carol, id)).info.name, 'mine now');
  for (const device of [alice, bob, carol]) await device.groups.stop();
});

test('a member that says so of an owner who gave up nothing is voted down', async () => {
  const { directory, alice, bob, carol, id } = await company([mandatorySuite]);
  const group = await groupOf(bob, id);
  const { removed, context } = successionOf(group) ?? {};
  assert(removed !== undefined && context !== undefined);
  // bob's own client would not make it: his logs say whatever he likes.
  const liar = createMls({
    ...testRuntime,
    manifests: () => ({ devices: [], revoked: [alice.rid] }),
  });
  const made = await liar.commit(group, { remove: removed.map((one) => one.leafIndex), context });
  const tip = directory.hub.copyOf(id).at(-1)?.parsed;
  assert(tip !== undefined);
  const { signing } = await epochJoinKeys(bob.mls, made.pending);
  const facts = { ...made, isRemoval: true, joinPub: signing.publicKey };
  const { envelope, entry } = await sealCommit(bob.mls, group, tip, facts, testRuntime.random);
  await directory.callerOf(bob.rid).call(methods.submitCommit, {
    ...{ entry, commit: envelope, mid: testRuntime.random.bytes(16) },
    targets: [alice, carol].map(({ rid }) => ({ rid, domain: 'red.example' })),
  });
  for (let round = 0; round < 3; round += 1) await exchange(alice, bob, carol);
  const doubts = carol.events.filter(({ type }) => type === 'commitDoubted');
  assert.equal(doubts.length, 1, JSON.stringify(carol.events.map(({ type }) => type)));
  assert.equal((await groupOf(carol, id)).epoch, group.epoch);
  assert.equal(roleOf((await groupOf(carol, id)).info, alice.userId), 'owner');
  for (const device of [alice, bob, carol]) await device.groups.stop();
});
