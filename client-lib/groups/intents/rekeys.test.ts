/** The schedule of fresh keys in a large group that changes all the time; else see committer.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mandatorySuite } from '../../mls/index.ts';
import { company as companyOf, groupOf, HastyClock } from '../../test-company.ts';
import { exchange } from '../../test-devices.ts';
import { rekeyLimits, Rekeys } from './rekeys.ts';
import { testRuntime } from '../../test-runtime.ts';

const minuteMs = 60_000;

/** alice's group, in which she made as many commits as count, so far apart; and the schedule of bob, due now. */
async function busyGroup(apartMs: number, largeDevices: number) {
  const { clock, alice, bob, carol, id } = await companyOf([mandatorySuite], new HastyClock());
  for (let commits = 0; commits < rekeyLimits.busyEpochs; commits += 1) {
    clock.advance(apartMs);
    await alice.conversations.updateMetadata(id, { name: `the ${commits}th` });
    await exchange(alice, bob, carol);
  }
  const nowMs = clock.now();
  const due = { groupId: id, dueMs: nowMs, sentCount: 0, isFirst: true };
  bob.store.groupLog.putRekey(due);
  const runtime = { ...testRuntime, clock };
  const rekeys = new Rekeys({
    store: bob.store,
    runtime,
    onIntents: () => undefined,
    largeDevices,
  });
  rekeys.run();
  return { clock, alice, bob, id, rekeys, due };
}
const wishes = (bob: Awaited<ReturnType<typeof busyGroup>>['bob'], id: Uint8Array): number =>
  bob.store.groupLog.openIntents(id).length;

test('a large group with more than a commit a minute has no scheduled keys until it is quieter', async () => {
  const { clock, alice, bob, id, rekeys, due } = await busyGroup(minuteMs / 4, 2);
  assert.equal((await groupOf(bob, id)).epoch, (await groupOf(alice, id)).epoch);
  assert.equal(wishes(bob, id), 0);
  const { dueMs, isFirst, sentCount } = bob.store.groupLog.rekey(id) ?? due;
  assert.ok(dueMs >= due.dueMs + rekeyLimits.laterMs, 'an hour later');
  assert.deepEqual({ isFirst, sentCount }, { isFirst: true, sentCount: 0 }, 'it is still owed');
  clock.advance(2 * rekeyLimits.laterMs);
  rekeys.run();
  assert.equal(wishes(bob, id), 1);
});

test('a small one, or one with fewer commits, has them at once', async () => {
  const small = await busyGroup(minuteMs / 4, 3);
  assert.equal(wishes(small.bob, small.id), 1);
  const slow = await busyGroup(1.5 * minuteMs, 2);
  assert.equal(wishes(slow.bob, slow.id), 1);
});
