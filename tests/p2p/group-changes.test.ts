/**
 * Two people whose nodes are both dead change a group at its hub, and talk on in the new epoch from device to device:
 * who hears the other there first reads the log at the hub itself.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { OpenOptions } from '@quicprochat/client-lib';
import { deviceSwarm } from '@quicprochat/p2p/device';
import { inTime, type RigClient } from '../client/rig.ts';
import { threeNodes } from '../client/three-nodes.ts';
import { loopback } from './devices.ts';

const listen = ['/ip4/127.0.0.1/udp/0/quic-v1', '/ip4/127.0.0.1/tcp/0'];
const peers: Pick<OpenOptions, 'fallback'> = {
  fallback: { peers: deviceSwarm({ listen, reach: loopback }) },
};

test('with both their nodes dead two go on in an epoch that the hub of a third node gave them', async () => {
  await using stack = new AsyncDisposableStack();
  const { nodes, people } = await threeNodes(stack, ['anna', 'bert', 'gina'], {
    optionsOf: () => peers,
  });
  const [anna, bert, gina] = people;
  const [red, blue] = nodes;

  // Of two domains: then the group has one hub, which is green.
  const id = await gina.client.createConversation({ name: 'three', members: [anna.userId] });
  await anna.joined();
  await gina.client.addMembers(id, [bert.userId]);
  await bert.joined();
  await gina.client.setRole(id, bert.userId, 'owner');
  for (const one of [anna, bert]) {
    await one.events.first(({ type }) => type === 'roleChanged', 'bert to be an owner');
  }
  for (const writer of people) {
    await writer.client.send(id, writer.userId);
    for (const reader of people.filter((one) => one !== writer)) {
      assert.deepEqual(
        (await reader.read(1)).map(({ text }) => text),
        [writer.userId],
      );
    }
  }
  const knows = (one: RigClient, other: RigClient): Promise<unknown> =>
    one.logged.first(
      ({ event, fields }) =>
        event === 'endpoint kept' && fields['of'] === other.client.whoami().deviceId,
      `${one.userId} to know where ${other.userId} is`,
    );
  await Promise.all([knows(anna, bert), knows(bert, anna)]);

  for (const node of [red, blue]) {
    await node.node?.stop();
    node.node = undefined;
  }
  for (const one of [anna, bert]) {
    await one.events.first(
      (event) => event.type === 'ownNode' && event.isAway,
      'a node to be away',
    );
  }
  const before = await anna.client.groupState(id);
  await inTime(bert.client.updateMetadata(id, { name: 'dark' }), 'bert to rename');
  await inTime(bert.client.rotateKeys(id), 'bert to have new keys');
  await bert.client.send(id, 'in the new epoch');
  const [heard] = await anna.read(1);
  assert.deepEqual([heard?.text, heard?.via], ['in the new epoch', 'direct']);
  const after = await anna.client.groupState(id);
  assert.equal(after?.epoch, (before?.epoch ?? 0) + 2);
  assert.equal((await anna.client.metadata(id))?.name, 'dark');
  await anna.client.send(id, 'heard');
  for (const one of [bert, gina]) {
    const texts: string[] = [];
    while (!texts.includes('heard')) texts.push(...(await one.texts(1)));
  }

  for (const node of [red, blue]) await node.start(nodes.filter((one) => one !== node));
  for (const one of [anna, bert]) {
    await one.events.first(
      (event) => event.type === 'ownNode' && !event.isAway,
      'a node to return',
    );
  }
  await inTime(bert.client.rotateKeys(id), 'his own node to bring it');
  const states = await Promise.all(people.map(({ client }) => client.groupState(id)));
  assert(states.every((state) => state?.lost === undefined));
});
