/** When a device gives its group a fresh channel in the place of one that its nodes do not know. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog, systemRandom } from '@quicprochat/proto';
import { ChannelDuty, channelDutyLimits } from './channel-duty.ts';
import { channelOf } from './channel.ts';
import { envelopeKeyOf } from './envelope-key.ts';
import { acceptCommit, mandatorySuite, type Change, type MlsGroup } from './mls/index.ts';
import { groupOf, TestWorld } from './mls/test-members.ts';
import { openMemoryStore } from './store/sqlite-store.ts';
import { LaterClock } from './test-later-clock.ts';
import { Writer } from './writer.ts';

test('a channel is replaced when nodes are behind with one epoch for long, not now and then with several', async () => {
  const world = new TestWorld();
  const alice = world.device('alice');
  const { mls } = alice;
  let [group] = await groupOf(mandatorySuite, [alice, world.device('bob')]);
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
  await enter(group);
  // A hub decides such a switch; here it only has to stand in the state.
  await commit({ context: { info: { ...group.info, directDevices: 1 } } });
  await commit({ context: { info: { ...group.info, channelNonce: systemRandom.bytes(32) } } });
  const { groupId } = group;
  const cid = channelOf(group)?.cid ?? new Uint8Array(0);
  let behind = 0;
  const wanted = Promise.withResolvers<void>();
  const duty = new ChannelDuty({
    ...{ store, runtime, writer },
    onIntents: wanted.resolve,
    onBehind: () => (behind += 1),
  });
  duty.start();
  await new Promise<void>((resolve) => void clock.timer(0, resolve));
  const intents = () => store.groupLog.openIntents(groupId).map(({ kind }) => kind);

  // Each post that overtakes its epoch's update is refused for a moment.
  for (let epoch = 0; epoch < 3; epoch += 1) {
    duty.stuck(groupId, cid);
    clock.advance(channelDutyLimits.stuckMs * 100);
    await commit({});
  }
  assert.equal(behind, 3, 'each time there may be a commit that was not heard of');
  duty.stuck(groupId, cid);
  clock.advance(channelDutyLimits.stuckMs - 1);
  duty.stuck(groupId, cid);
  await new Promise<void>((resolve) => void clock.timer(0, resolve));
  await writer.run(async () => undefined);
  assert.deepEqual(intents(), []);
  clock.advance(1);
  duty.stuck(groupId, cid);
  await wanted.promise;
  assert.deepEqual(intents(), ['channel']);
  duty.stop();
});
