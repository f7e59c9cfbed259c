/**
 * Places at relays of other nodes: real nodes with real relays, and clients that say nothing of where they
 * are. Their own node dies, and they reach each other over a relay of the node that it peered with.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { OpenOptions, PeerSwarm } from '@quicprochat/client-lib';
import { deviceSwarm, type DeviceSwarm } from '@quicprochat/p2p/device';
import { Rig, type RigClient } from '../client/rig.ts';
import { freePort } from '../cluster/free-port.ts';
import { loopback, recordOf, until } from './devices.ts';

const kt =
  '[kt]\nbatch_ms = 5\nvrf_threads = 0\nreasonable_monitoring_window_ms = 50\nmax_behind_ms = 4000\n';

/** A client over relays alone, and the swarm that it runs now. */
function hidden(): {
  readonly options: Pick<OpenOptions, 'fallback'>;
  readonly now: () => DeviceSwarm | undefined;
} {
  const swarm = deviceSwarm({ relayOnly: true, reach: loopback });
  let running: DeviceSwarm | undefined;
  const start: PeerSwarm['start'] = async (duties) => (running = await swarm.start(duties));
  return {
    options: { fallback: { peers: { reach: loopback, start } } },
    now: () => running,
  };
}

const standing = (swarm: DeviceSwarm | undefined): number =>
  swarm?.relays.filter(({ isReserved }) => isReserved).length ?? 0;

/** Resolves when a client has kept where another one is. */
const knows = (client: RigClient, other: RigClient): Promise<unknown> =>
  client.logged.first(
    ({ event, fields }) =>
      event === 'endpoint kept' && fields['of'] === other.client.whoami().deviceId,
    `${client.userId} to know where ${other.userId} is`,
  );

const away = (client: RigClient): Promise<unknown> =>
  client.events.first((event) => event.type === 'ownNode' && event.isAway, 'its node to be away');

test('devices of a node that died reach each other over the relay of its peer, also after a restart', async () => {
  const places = await Promise.all([freePort(), freePort()]);
  const [red = '', blue = ''] = places.map(
    (port) => `[p2p]\nlisten = "127.0.0.1:${port}"\nadvertise = ["127.0.0.1:${port}"]\n${kt}`,
  );
  await using rig = await Rig.make([red, blue]);
  const [annas, doras] = [hidden(), hidden()];
  const anna = await rig.client('anna@red.example', undefined, annas.options);
  const dora = await rig.client('dora@red.example', undefined, doras.options);
  await until(() => standing(annas.now()) === 2 && standing(doras.now()) === 2);
  const swarm = annas.now();
  assert(swarm !== undefined);
  const { addresses, relays } = recordOf(swarm);
  assert.deepEqual(addresses, []);
  assert.equal(new Set(relays.map((relay) => relay.split('/p2p/')[1])).size, 2);
  const id = await anna.client.createConversation({ name: 'dark', members: [dora.userId] });
  await dora.joined();
  await anna.client.send(id, 'here');
  assert.deepEqual(await dora.texts(1), ['here']);
  // Anna told where she is, by her text. Dora never wrote: her node told that, to who had her token.
  await Promise.all([knows(dora, anna), knows(anna, dora)]);

  await rig.red.node?.stop();
  await Promise.all([away(anna), away(dora)]);
  await anna.client.send(id, 'zero');
  assert.deepEqual(
    (await dora.read(1)).map(({ text, via }) => [text, via]),
    [['zero', 'relay']],
  );
  await dora.client.send(id, 'one');
  assert.deepEqual(
    (await anna.read(1)).map(({ text, via }) => [text, via]),
    [['one', 'relay']],
  );
  await anna.close();
  await anna.open(annas.options);
  anna.client.start();
  await until(() => standing(annas.now()) === 1);
  await dora.client.send(id, 'two');
  assert.deepEqual(await anna.texts(1), ['two']);
});
