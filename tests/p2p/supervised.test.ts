/** A node's swarm in its own process: it relays and gossips, is started again, and takes nothing with it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeSwarmKey, SupervisedSwarm, type NodeSwarmEvents } from '@quicprochat/p2p';
import { startNodeSwarm } from '@quicprochat/p2p/swarm';
import { systemRandom } from '@quicprochat/proto';
import { freePort } from '../cluster/free-port.ts';
import { message, runtime, startDevice, until } from './devices.ts';

/** Pauses of no time. */
const hasty = { ...runtime, random: { bytes: (length: number) => new Uint8Array(length) } };

const quiet: NodeSwarmEvents = {
  onPeer: () => undefined,
  onGossip: () => Promise.resolve('ignore'),
  onPull: () => Promise.resolve({ status: 11, payload: new Uint8Array() }),
  mayReserve: () => Promise.resolve(false),
};

test('it relays for those it may, comes back after a kill, and keeps its peers', async () => {
  const key = makeSwarmKey(systemRandom);
  const port = await freePort();
  const address = `/ip4/127.0.0.1/tcp/${port}`;
  const other = makeSwarmKey(systemRandom);
  const otherAddress = `/ip4/127.0.0.1/tcp/${await freePort()}`;
  const heard: string[] = [];
  const pulled: string[] = [];
  let friend = '';
  await using swarm = await SupervisedSwarm.start(
    { key, runtime: hasty, listen: [address, `/ip4/127.0.0.1/udp/${port}/quic-v1`], relays: true },
    {
      ...quiet,
      onPeer: (peerId, isUp) => void heard.push(`${peerId} ${isUp}`),
      onPull: (from, methodId, payload) => {
        pulled.push(`${from} ${methodId} ${payload.length}`);
        return Promise.resolve({ status: 0, payload: Uint8Array.of(1, 2, 3) });
      },
      mayReserve: (peerId) => Promise.resolve(peerId === friend),
    },
  );
  await using peer = await startNodeSwarm(
    { key: other, runtime: hasty, listen: [otherAddress], relays: false },
    quiet,
  );
  await swarm.setPeers([{ peerId: other.peerId, addresses: [otherAddress] }]);
  await peer.setPeers([{ peerId: key.peerId, addresses: [address] }]);
  await until(() => heard.includes(`${other.peerId} true`));
  const answer = await peer.pull(key.peerId, 916, new Uint8Array(7));
  assert.deepEqual(answer.payload, Uint8Array.of(1, 2, 3));
  assert.deepEqual(pulled, [`${other.peerId} 916 7`]);

  await using anna = await startDevice({ relayOnly: true });
  await using bert = await startDevice({ relayOnly: true, runtime: hasty });
  friend = bert.swarm.peerId;
  bert.swarm.setRelays([`${address}/p2p/${key.peerId}`]);
  await until(() => bert.swarm.relays.every(({ isReserved }) => isReserved));
  const to = bert.destination();
  assert.equal((await anna.swarm.deliver(to, message(bert))).via, 'relay');
  const stats = await swarm.stats();
  assert.equal(stats.reservations, 1);
  assert.ok(stats.rssBytes > 1024 * 1024);

  const { pid } = swarm;
  assert(pid !== undefined);
  process.kill(pid, 'SIGKILL');
  await until(() => heard.includes(`${other.peerId} false`));
  heard.length = 0;
  await assert.rejects(swarm.stats(), { reason: 'DISCONNECTED' });
  await until(() => heard.includes(`${other.peerId} true`), 20_000);
  assert.equal(swarm.restarts, 1);
  assert.notEqual(swarm.pid, pid);
  await until(() => bert.swarm.relays.every(({ isReserved }) => isReserved), 20_000);
  assert.equal((await anna.swarm.deliver(to, message(bert))).via, 'relay');
});

test('a taken port is told at the start', async () => {
  const key = makeSwarmKey(systemRandom);
  const listen = [`/ip4/127.0.0.1/tcp/${await freePort()}`];
  await using _first = await startNodeSwarm({ key, runtime, listen, relays: false }, quiet);
  await assert.rejects(SupervisedSwarm.start({ key, runtime, listen, relays: false }, quiet), {
    reason: 'DISCONNECTED',
  });
});

test('a process that cannot be made is told at the start', async (t) => {
  const { execPath } = process;
  t.after(() => (process.execPath = execPath));
  process.execPath = '/nonexistent/node';
  const key = makeSwarmKey(systemRandom);
  await assert.rejects(SupervisedSwarm.start({ key, runtime, listen: [], relays: false }, quiet), {
    reason: 'DISCONNECTED',
  });
});
