/**
 * The ladder through the public interface: real nodes, real clients, real swarms on loopback. Nodes end
 * without a word, and clients find each other by what they said inside MLS.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deviceSwarm } from '@quicprochat/p2p/device';
import type { OpenOptions } from '@quicprochat/client-lib';
import { Rig, type RigClient } from '../client/rig.ts';
import { loopback } from './devices.ts';

const peers: Pick<OpenOptions, 'fallback'> = {
  fallback: {
    peers: deviceSwarm({
      listen: ['/ip4/127.0.0.1/udp/0/quic-v1', '/ip4/127.0.0.1/tcp/0'],
      reach: loopback,
    }),
  },
};

/** Resolves when a client has kept where this one is. */
const knows = (client: RigClient, sender: RigClient): Promise<unknown> =>
  client.logged.first(
    ({ event, fields }) =>
      event === 'endpoint kept' && fields['of'] === sender.client.whoami().deviceId,
    `${client.userId} to know where ${sender.userId} is`,
  );

test('with both nodes gone a group goes on over libp2p, and when they return nothing is doubled', async () => {
  await using rig = await Rig.make();
  const anna = await rig.client('anna@red.example', undefined, peers);
  const bert = await rig.client('bert@blue.example', undefined, peers);
  const id = await anna.client.createConversation({ name: 'p2p', members: [bert.userId] });
  await bert.joined();
  await anna.client.send(id, 'one');
  assert.deepEqual(await bert.texts(1), ['one']);
  await bert.client.send(id, 'two');
  assert.deepEqual(await anna.texts(1), ['two']);
  await Promise.all([knows(anna, bert), knows(bert, anna)]);
  await rig.red.node?.stop();
  await rig.blue.node?.stop();
  await anna.client.send(id, 'three');
  const [three] = await bert.read(1);
  assert.deepEqual([three?.text, three?.via], ['three', 'direct']);
});
