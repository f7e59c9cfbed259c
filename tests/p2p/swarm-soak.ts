/**
 * A node's swarm under churn: devices that come, get a place at its relay, are reached through it and go,
 * and peers that connect, gossip and go. RSS of the swarm's process and what lives in it after a full
 * collection, every so often, and the slope of both over the second half.
 * Usage: `npm run soak:swarm -- [--minutes 120]`.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { makeSwarmKey, SupervisedSwarm } from '@quicprochat/p2p';
import { startNodeSwarm } from '@quicprochat/p2p/swarm';
import { hasReason, systemClock, systemRandom } from '@quicprochat/proto';
import { freePort } from '../cluster/free-port.ts';
import { slope } from '../fuzz/live-server.ts';
import { message, runtime, startDevice, until } from './devices.ts';
import type { Live } from './swarm-live.ts';

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '120' } } });
const minutes = Number(values.minutes);
const samples = 40;
/** Devices that are there at a time. */
const atOnce = 6;
/** Full collections in all: as few as V8 makes by itself in that time. */
const collections = 20;

const directory = mkdtempSync(join(tmpdir(), 'qpc-swarm-soak-'));
const liveFile = join(directory, 'live');
// For the process that is forked below, and for nothing that runs already.
process.env['NODE_OPTIONS'] = `--import ${import.meta.resolve('./swarm-live.ts')}`;
process.env['QPC_LIVE_FILE'] = liveFile;
process.env['QPC_LIVE_MS'] = String((minutes * 60_000) / (collections + 1));

const listen = `/ip4/127.0.0.1/tcp/${await freePort()}`;
const key = makeSwarmKey(systemRandom);
const events = {
  onPeer: () => undefined,
  onGossip: async () => 'accept' as const,
  onPull: async () => ({ status: 0, payload: new Uint8Array(0) }),
  mayReserve: () => Promise.resolve(true),
};
await using node = await SupervisedSwarm.start(
  { key, runtime, listen: [listen], relays: true },
  events,
);
const relay = `${listen}/p2p/${key.peerId}`;
const endMs = performance.now() + minutes * 60_000;
const counts = { devices: 0, delivered: 0, failed: 0, peers: 0, notes: 0, late: 0 };

/** A pair of devices behind the relay, for one exchange. */
async function exchange(): Promise<void> {
  await using from = await startDevice({ relayOnly: true });
  await using to = await startDevice({ relayOnly: true });
  counts.devices += 2;
  try {
    to.swarm.setRelays([relay]);
    await until(() => to.swarm.relays.every(({ isReserved }) => isReserved));
    await from.swarm.deliver(to.destination(), message(to, systemRandom.bytes(1_024)));
    counts.delivered += 1;
  } catch {
    counts.failed += 1;
  }
}

/** Another node that joins, hears what is said, and leaves. */
async function visit(): Promise<void> {
  const peer = makeSwarmKey(systemRandom);
  await using swarm = await startNodeSwarm(
    { key: peer, runtime, listen: ['/ip4/127.0.0.1/tcp/0'], relays: false },
    {
      ...events,
      onGossip: async () => {
        counts.notes += 1;
        return 'accept' as const;
      },
    },
  );
  counts.peers += 1;
  const addresses = await swarm.addresses();
  await node.setPeers([{ peerId: peer.peerId, addresses }]);
  await swarm.setPeers([{ peerId: key.peerId, addresses: [listen] }]);
  await systemClock.sleep(3_000);
  for (let i = 0; i < 5; i += 1) await node.publish('qpc/kt/1', systemRandom.bytes(500));
  await swarm.pull(key.peerId, 916, systemRandom.bytes(100)).catch(() => undefined);
  await systemClock.sleep(500);
  await node.setPeers([]);
}

/** On a machine with much else to do the swarm's process may not answer in time: that is counted, and goes on. */
async function again(work: () => Promise<void>): Promise<void> {
  while (performance.now() < endMs) {
    try {
      await work();
    } catch (error) {
      if (!hasReason(error, 'TIMEOUT')) throw error;
      counts.late += 1;
    }
  }
}

/** Minutes since the start, and MiB. */
const rss: (readonly [number, number])[] = [];
const startMs = performance.now();
async function sample(): Promise<void> {
  await systemClock.sleep((minutes * 60_000) / samples);
  const { rssBytes, connections } = await node.stats();
  rss.push([(performance.now() - startMs) / 60_000, rssBytes / 2 ** 20]);
  const counted = Object.entries(counts).map(([name, count]) => `${name} ${count}`);
  console.log(
    `${(rssBytes / 2 ** 20).toFixed(0)} MiB, ${connections} connections, ${counted.join(', ')}`,
  );
}

await Promise.all([
  again(sample),
  again(visit),
  ...Array.from({ length: atOnce / 2 }, () => again(exchange)),
]);
const live = readFileSync(liveFile, 'utf8')
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => JSON.parse(line) as Live);
rmSync(directory, { recursive: true });
for (const { minutes: at, heap, external, heapTotal, rss: resident } of live) {
  const parts = { live: heap + external, 'heap with its free space': heapTotal, RSS: resident };
  const text = Object.entries(parts).map(([name, n]) => `${name} ${(n / 2 ** 20).toFixed(1)}`);
  console.log(`after ${at.toFixed(0)} min: ${text.join(', ')} MiB`);
}
perHour("RSS of the swarm's process", rss);
const lived = live.map(
  ({ minutes: at, heap, external }) => [at, (heap + external) / 2 ** 20] as const,
);
perHour('what lives in it', lived);
console.log(`started again ${node.restarts} times`);

function perHour(what: string, points: readonly (readonly [number, number])[]): void {
  const rising = slope(points.slice(Math.floor(points.length / 2))) * 60;
  console.log(`${what}: ${rising.toFixed(1)} MiB an hour over the second half`);
}
