/** A commit on its way to the hub tells nodes by what token each device may be subscribed to a channel. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex, parseChannelUpdate, systemRandom } from '@quicprochat/proto';
import { fromBinary, SubmitCommitRequestSchema } from '@quicprochat/proto/messages';
import { TestDevice } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';

test('the own device is no stranger to its node, once that knows its token', async () => {
  const directory = new TestDirectory();
  const alice = new TestDevice('alice@red.example', directory);
  const bob = new TestDevice('bob@red.example', directory);
  await alice.knowItself();
  const { store } = alice;
  const groupId = await alice.conversations.create('tea', [bob.userId]);
  await alice.conversations.updateMetadata(groupId, { directDevices: 1 });
  const [own, other] = [systemRandom.bytes(16), systemRandom.bytes(16)];
  store.tokens.putOwn(own, 1);
  store.tokens.put(bob.rid, other, false, 1);

  store.tokens.markAtNode(store.tokens.own()?.id ?? 0);
  directory.isDown = true;
  await alice.groups.committer.add(groupId, { kind: 'channel', isDuty: true });
  await alice.settle();
  const [pending] = store.groupLog.pendings(groupId);
  assert(pending !== undefined);
  const { updates } = fromBinary(SubmitCommitRequestSchema, pending.request);
  const [update] = updates.map((one) => parseChannelUpdate(one.update));
  assert(update !== undefined);
  const tokens = new Map(update.update.add.map(({ rid, token }) => [hex(rid), hex(token)]));
  assert.deepEqual(
    [bob, alice].map(({ rid }) => tokens.get(hex(rid))),
    [hex(other), hex(own)],
  );
});
