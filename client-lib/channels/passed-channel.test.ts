/** A device that comes through several epochs at once reads the channels that the group had in between. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog, systemRandom } from '@quicprochat/proto';
import { acceptCommit, mandatorySuite, type Wipe } from '../mls/index.ts';
import { groupOf, TestWorld } from '../mls/test-members.ts';
import { envelopeKeyOf } from '../sending/envelope-key.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import { LaterClock } from '../test-runtime.ts';
import { Writer } from '../writer.ts';
import { channelOf } from './channel.ts';

test('a channel of an epoch that was only passed through is read, as one that the group left', async () => {
  const world = new TestWorld();
  const { mls, ...alice } = world.device('alice');
  let [group] = await groupOf(mandatorySuite, [{ mls, ...alice }, world.device('bob')]);
  const store = openMemoryStore();
  const writer = new Writer(store, {
    clock: new LaterClock(),
    random: systemRandom,
    log: silentLog,
  });
  const enter = (wipes: readonly Wipe[]): Promise<void> =>
    writer.run(async (batch) => batch.enterEpoch(group, await envelopeKeyOf(mls, group), wipes));
  await enter([]);
  const had: Uint8Array[] = [];
  const wipes: Wipe[] = [];
  const { info } = group;
  const [one, two] = [systemRandom.bytes(32), systemRandom.bytes(32)];
  for (const context of [
    { directDevices: 1 },
    { directDevices: 1, channelNonce: one },
    { directDevices: 1, channelNonce: two },
    { directDevices: 32, channelNonce: two },
    { directDevices: 32, channelNonce: undefined },
  ]) {
    const { pending } = await mls.commit(group, { context: { info: { ...info, ...context } } });
    const { next, wipe } = acceptCommit(group, pending);
    group = next;
    wipes.push(wipe);
    const cid = channelOf(group)?.cid;
    if (cid !== undefined && !had.some((one) => Buffer.compare(one, cid) === 0)) had.push(cid);
  }
  assert.equal(had.length, 2);
  await enter(wipes);
  const followed = store.channels.all();
  assert.deepEqual(
    had.map((cid) => followed.some((one) => Buffer.compare(one.cid, cid) === 0)),
    [true, true],
  );
  assert(followed.every(({ leftMs }) => leftMs !== undefined));
});
