/** The other devices of an account in its conversations: in those that it begins, and in those that were there before them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QpcClient, type ClientEvent } from '@quicprochat/client-lib';
import { systemRandom } from '@quicprochat/proto';
import { testRuntime } from '../cluster/local-node.ts';
import { inTime, Rig } from './rig.ts';

const password = new TextEncoder().encode('correct horse battery');

/** The first text that comes. */
async function textOf(client: QpcClient): Promise<string> {
  for await (const { text } of client.messages()) return text;
  throw new Error('closed');
}

test('a second device is in what its account begins, and comes into older conversations when it is added', async () => {
  await using rig = await Rig.make();
  const alice = await rig.client('alice@red.example');
  const bob = await rig.client('bob@blue.example');
  const before = await alice.client.createConversation({ name: 'before', members: [bob.userId] });
  await using second = await QpcClient.open({
    storePath: ':memory:',
    storeKey: systemRandom.bytes(32),
    runtime: testRuntime,
    transport: alice.node.network.transport('second'),
  });
  const { userId, node } = alice;
  await second.addDevice({ userId, password, nodeAddress: node.address });
  second.start();
  await alice.events.first(({ type }) => type === 'deviceChange', 'the new device');

  const after = await alice.client.createConversation({ name: 'after', members: [bob.userId] });
  const devicesIn = async (id: Uint8Array): Promise<readonly (readonly string[])[]> =>
    (await alice.client.listMembers(id)).map(({ deviceIds }) => deviceIds.toSorted());
  const mine = [alice.client.whoami().deviceId, second.whoami().deviceId].toSorted();
  assert.deepEqual(await devicesIn(after), [mine, [bob.client.whoami().deviceId]]);
  const { messageId } = await alice.client.send(after, 'one');
  const isIt = (event: ClientEvent): boolean =>
    event.type === 'accepted' && event.messageId === messageId;
  await alice.events.first(isIt, 'word of this message');
  assert.equal(await inTime(textOf(second), 'the first text'), 'one');

  await alice.client.addMembers(before, [userId]);
  assert.deepEqual((await devicesIn(before))[0], mine);
  await alice.client.send(before, 'two');
  assert.equal(await inTime(textOf(second), 'the second text'), 'two');
  // Nothing is left to add.
  await alice.client.addMembers(before, [userId]);
});
