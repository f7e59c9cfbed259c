/** When a device gives its group a fresh channel in the place of one that its nodes do not know. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog, systemRandom } from '@quicprochat/proto';
import { ChannelDuty, channelDutyLimits } from './channel-duty.ts';
import { channelOf } from './channel.ts';
import { envelopeKeyOf } from '../sending/envelope-key.ts';
import { acceptCommit, mandatorySuite, type Change, type MlsGroup } from '../mls/index.ts';
import { groupOf, TestWorld } from '../mls/test-members.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import { LaterClock } from '../test-runtime.ts';
import { Writer } from '../writer.ts';

const { stuckMs, stuckMaxMs } = channelDutyLimits;

/** A device in a group with a channel. */
async function makeRig() {
  const world = new TestWorld();
  const alice = world.device('alice');
  const { mls } = alice;
  let [group] = await groupOf(mandatorySuite, [alice, world.device('bob')]);
  const { groupId } = group;
  const store = openMemoryStore();
  const clock = new LaterClock();
  const runtime = { clock, random: systemRandom, log: silentLog };
  const writer = new Writer(store, runtime);
  const enter = (next: MlsGroup): Promise<void> =>
    writer.run(async (batch) => batch.enterEpoch(next, await envelopeKeyOf(mls, next), []));
  const commit = async (change: Change): Promise<void> => {
    group = acceptCommit(group, (await mls.commit(group, change)).pending).next;
    await enter(group);
  };
  const fresh = (): Promise<void> =>
    commit({ context: { info: { ...group.info, channelNonce: systemRandom.bytes(32) } } });
  await enter(group);
  await commit({ context: { info: { ...group.info, directDevices: 1 } } });
  await fresh();
  let behind = 0;
  const duty = new ChannelDuty({
    ...{ store, runtime, writer },
    onIntents: () => undefined,
    onBehind: () => (behind += 1),
  });
  duty.start();
  const settle = async (): Promise<void> => {
    await new Promise<void>((resolve) => void clock.timer(1, resolve));
    await writer.run(async () => undefined);
  };
  await settle();
  return {
    clock,
    commit,
    fresh,
    behind: () => behind,
    /** A node refuses something; returns whether the channel is to be replaced now. */
    refused: async (): Promise<boolean> => {
      duty.stuck(groupId, channelOf(group)?.cid ?? new Uint8Array(0));
      await settle();
      const wanted = store.groupLog.openIntents(groupId);
      for (const { id } of wanted) store.groupLog.endIntent(id, 'DONE', undefined, clock.now());
      return wanted.some(({ kind }) => kind === 'channel');
    },
  };
}

test('a channel is replaced when nodes are behind with one epoch for long, not now and then with several', async () => {
  const { clock, commit, behind, refused } = await makeRig();
  // Each post that overtakes its epoch's update is refused for a moment.
  for (let epoch = 0; epoch < 3; epoch += 1) {
    assert.equal(await refused(), false);
    clock.advance(stuckMaxMs);
    await commit({});
  }
  assert.equal(behind(), 3, 'each time there may be a commit that was not heard of');
  assert.equal(await refused(), false);
  clock.advance(stuckMs / 2);
  assert.equal(await refused(), false);
  clock.advance(stuckMs / 2);
  assert.equal(await refused(), true);
});

test('fresh channels that do not help follow each other later and later', async () => {
  const { clock, fresh, refused } = await makeRig();
  const waits: number[] = [];
  for (let n = 0; n < 9; n += 1) {
    await refused();
    let steps = 0;
    do {
      clock.advance(stuckMs);
      steps += 1;
    } while (!(await refused()));
    waits.push(steps);
    await fresh();
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
  clock.advance(2 * stuckMaxMs);
  await refused();
  clock.advance(stuckMs);
  assert.equal(await refused(), true, 'that was long ago');
});
