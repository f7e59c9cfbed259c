/**
 * The ladder through the public interface: real nodes, real clients, real swarms on loopback. Nodes end
 * without a word, and clients go past them by what they told each other inside MLS.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasReason, systemClock, systemRandom } from '@quicprochat/proto';
import type { OpenOptions, Path, PeerSwarm } from '@quicprochat/client-lib';
import { deviceSwarm, type DeviceSwarm } from '@quicprochat/p2p/device';
import { Rig, type RigClient } from '../client/rig.ts';
import { loopback, recordOf, startDevice, startRelay, type Relay } from './devices.ts';

const swarm = deviceSwarm({
  listen: ['/ip4/127.0.0.1/udp/0/quic-v1', '/ip4/127.0.0.1/tcp/0'],
  reach: loopback,
});
const peers: Pick<OpenOptions, 'fallback'> = { fallback: { peers: swarm } };

/** A swarm over this relay alone; a node with one would name it. */
const over = (relay: Relay): Pick<OpenOptions, 'fallback'> => {
  const hidden = deviceSwarm({ relayOnly: true, reach: loopback });
  const start: PeerSwarm['start'] = async (duties) => {
    const running = await hidden.start(duties);
    running.setRelays([relay.address]);
    return running;
  };
  return { fallback: { peers: { reach: hidden.reach, start } } };
};

/** Resolves when a client has kept where another one is. */
const knows = (client: RigClient, other: RigClient): Promise<unknown> =>
  client.logged.first(
    ({ event, fields }) =>
      event === 'endpoint kept' && fields['of'] === other.client.whoami().deviceId,
    `${client.userId} to know where ${other.userId} is`,
  );

const happened = (client: RigClient, isAway: boolean): Promise<unknown> =>
  client.events.first(
    (event) => event.type === 'ownNode' && event.isAway === isAway,
    `the node of ${client.userId} to be ${isAway ? 'away' : 'back'}`,
  );

/** Texts in the order of their arrival, and by which path each came. */
async function arrivals(client: RigClient, count: number): Promise<readonly [string, Path][]> {
  return (await client.read(count)).map(({ text, via }) => [text, via]);
}

test('past an own node as a guest, past all nodes to the devices, and nothing comes twice when they return', async () => {
  await using relay = await startRelay();
  await using rig = await Rig.make();
  const anna = await rig.client('anna@red.example', undefined, peers);
  const bert = await rig.client('bert@blue.example', undefined, peers);
  const carl = await rig.client('carl@blue.example', undefined, over(relay));
  const dora = await rig.client('dora@red.example', undefined, { fallback: {} });
  const everybody = [anna, bert, carl, dora];
  const members = everybody.slice(1).map(({ userId }) => userId);
  const id = await anna.client.createConversation({ name: 'p2p', members });
  await Promise.all(everybody.slice(1).map((client) => client.joined()));
  // Who writes nothing tells nobody where it is.
  for (const writer of everybody) {
    await writer.client.send(id, writer.userId);
    const readers = everybody.filter((one) => one !== writer);
    for (const reader of readers) assert.deepEqual(await reader.texts(1), [writer.userId]);
  }
  await Promise.all([knows(anna, bert), knows(anna, carl), knows(bert, anna)]);

  // Red is gone, and dora knows no way but to the nodes of others.
  await rig.red.node?.stop();
  await Promise.all([happened(anna, true), happened(dora, true)]);
  await dora.client.send(id, 'guest');
  for (const other of [bert, carl]) assert.deepEqual(await arrivals(other, 1), [['guest', 'node']]);

  await rig.blue.node?.stop();
  for (const text of ['one', 'two']) await anna.client.send(id, text);
  assert.deepEqual(await arrivals(bert, 2), [
    ['one', 'direct'],
    ['two', 'direct'],
  ]);
  // He dials no devices, and tells them no address: the relay knows it, and nobody else.
  assert.deepEqual(await arrivals(carl, 2), [
    ['one', 'relay'],
    ['two', 'relay'],
  ]);
  await bert.client.send(id, 'three');
  assert.deepEqual(await arrivals(anna, 1), [['three', 'direct']]);

  await Promise.all([rig.red.start([rig.blue]), rig.blue.start([rig.red])]);
  await Promise.all([happened(anna, false), happened(bert, false)]);
  await anna.client.send(id, 'four');
  // What was there already does not come again.
  assert.deepEqual(await anna.texts(1), ['guest']);
  assert.deepEqual(await bert.texts(1), ['four']);
  assert.deepEqual(new Set(await carl.texts(2)), new Set(['three', 'four']));
  assert.deepEqual(new Set(await dora.texts(4)), new Set(['one', 'two', 'three', 'four']));
  for (const { client } of everybody) {
    await client.flush(AbortSignal.timeout(20_000));
    assert.equal(client.history(id).length, 9);
    assert.equal(client.undecryptable().length, 0);
  }
  const pathsOf = (client: RigClient, text: string): readonly Path[] =>
    client.client.history(id).find((one) => one.text === text)?.paths ?? [];
  // Dora's copies of what anna wrote in the dark waited.
  for (const text of ['one', 'two']) {
    assert.deepEqual(pathsOf(anna, text), ['direct', 'node', 'relay']);
  }
  assert.ok(pathsOf(dora, 'guest').includes('guest'));
});

test('strangers are refused, a member that sends garbage and floods is too, and nodes bring messages on', async () => {
  await using rig = await Rig.make();
  const swarms = new Map<string, DeviceSwarm>();
  /** A client's own swarm, in the hands of this test. */
  const seized = (name: string): Pick<OpenOptions, 'fallback'> => {
    const start: PeerSwarm['start'] = async (duties) => {
      const running = await swarm.start(duties);
      swarms.set(name, running);
      return running;
    };
    return { fallback: { peers: { reach: swarm.reach, start } } };
  };
  const anna = await rig.client('anna@red.example', undefined, seized('anna'));
  const bert = await rig.client('bert@blue.example', undefined, seized('bert'));
  const id = await anna.client.createConversation({ name: 'hostile', members: [bert.userId] });
  await bert.joined();
  await bert.client.send(id, 'one');
  await Promise.all([arrivals(anna, 1), knows(anna, bert)]);
  const [annas, berts] = [swarms.get('anna'), swarms.get('bert')];
  assert(annas !== undefined && berts !== undefined);
  const to = { record: recordOf(berts) };
  const garbage = () => ({
    ...{ rid: to.record.device, domain: rig.blue.domain, ttlS: 0 },
    ...{ mid: systemRandom.bytes(16), payload: systemRandom.bytes(1_000) },
  });
  await using mallory = await startDevice();
  await assert.rejects(mallory.swarm.deliver(to, garbage()), { reason: 'BLOCKED' });
  const flood = await Promise.allSettled(
    Array.from({ length: 400 }, () => annas.deliver(to, garbage())),
  );
  // How many of which depends on how fast this machine is; hostile.test.ts counts them.
  for (const one of flood) {
    assert(one.status === 'rejected' && hasReason(one.reason, 'BAD_FIELD', 'RATE_LIMITED'));
  }
  await anna.client.send(id, 'two');
  assert.deepEqual(await bert.texts(1), ['two']);
  assert.equal(bert.client.undecryptable().length, 0);
  // Her stream is open still; what counts is who she is to him now.
  await bert.client.block(anna.userId);
  await systemClock.sleep(100);
  await assert.rejects(annas.deliver(to, garbage()), { reason: 'BLOCKED' });
});
