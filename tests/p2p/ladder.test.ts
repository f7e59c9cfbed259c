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
import { loopback, recordOf, startDevice } from './devices.ts';

const swarm = deviceSwarm({
  listen: ['/ip4/127.0.0.1/udp/0/quic-v1', '/ip4/127.0.0.1/tcp/0'],
  reach: loopback,
});
const peers: Pick<OpenOptions, 'fallback'> = { fallback: { peers: swarm } };

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

test('with both nodes gone devices go on, and when the nodes return nothing comes twice', async () => {
  await using rig = await Rig.make();
  const anna = await rig.client('anna@red.example', undefined, peers);
  const bert = await rig.client('bert@blue.example', undefined, peers);
  const id = await anna.client.createConversation({ name: 'p2p', members: [bert.userId] });
  await bert.joined();
  await anna.client.send(id, 'one');
  assert.deepEqual(await arrivals(bert, 1), [['one', 'node']]);
  await bert.client.send(id, 'two');
  assert.deepEqual(await arrivals(anna, 1), [['two', 'node']]);
  await Promise.all([knows(anna, bert), knows(bert, anna)]);

  // What blue never got lies in red: it is brought first, or the next one would overtake it.
  await rig.blue.node?.stop();
  await anna.client.send(id, 'three');
  await anna.client.flush(AbortSignal.timeout(20_000));
  await rig.red.node?.stop();
  for (const text of ['four', 'five']) await anna.client.send(id, text);
  await bert.client.send(id, 'six');
  assert.deepEqual(await arrivals(bert, 3), [
    ['three', 'direct'],
    ['four', 'direct'],
    ['five', 'direct'],
  ]);
  assert.deepEqual(await arrivals(anna, 1), [['six', 'direct']]);

  await Promise.all([rig.red.start([rig.blue]), rig.blue.start([rig.red])]);
  await Promise.all([happened(anna, false), happened(bert, false)]);
  await anna.client.send(id, 'seven');
  assert.deepEqual(await arrivals(bert, 1), [['seven', 'node']]);
  await anna.client.flush(AbortSignal.timeout(20_000));
  const own = anna.client.history(id).filter(({ receivedMs }) => receivedMs === undefined);
  assert.deepEqual(
    own.map(({ text, paths }) => [text, ...paths]),
    [
      ['one', 'node'],
      ['three', 'node'],
      ['four', 'direct'],
      ['five', 'direct'],
      ['seven', 'node'],
    ],
  );
  // The answer of the device was the receipt.
  assert.ok(own.slice(1, 4).every(({ sendState }) => sendState === 'delivered'));
  assert.equal(bert.client.undecryptable().length, 0);
  assert.equal(bert.client.history(id).length, 7);
});

test('with the own node gone, what is for others goes straight to their nodes', async () => {
  await using rig = await Rig.make();
  const anna = await rig.client('anna@red.example', undefined, { fallback: {} });
  const bert = await rig.client('bert@blue.example');
  const id = await anna.client.createConversation({ name: 'guest', members: [bert.userId] });
  await bert.joined();
  await bert.client.send(id, 'one');
  assert.deepEqual(await arrivals(anna, 1), [['one', 'node']]);
  await rig.red.node?.stop();
  const sent = await anna.client.send(id, 'two');
  await happened(anna, true);
  // Bert cannot see the difference: his own node brought it.
  assert.deepEqual(await arrivals(bert, 1), [['two', 'node']]);
  await anna.client.flush(AbortSignal.timeout(20_000));
  const [two] = anna.client.history(id, 1);
  assert.deepEqual([two?.innerId, two?.paths, two?.sendState], [sent.id, ['guest'], 'relayed']);
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
  assert.deepEqual(await arrivals(bert, 1), [['two', 'node']]);
  assert.equal(bert.client.undecryptable().length, 0);
  // Her stream is open still; what counts is who she is to him now.
  await bert.client.block(anna.userId);
  await systemClock.sleep(100);
  await assert.rejects(annas.deliver(to, garbage()), { reason: 'BLOCKED' });
});
