/**
 * Question: how long from an Enqueue at the sender's node to the push at a recipient of another
 * node, compared with a recipient of the same node? Closed loop, one message at a time, every hop on
 * disk before it answers. Both nodes are fresh processes in every round; sender and recipients share
 * one process, for one clock.
 */
import { initCluster } from '../cluster/node-process.ts';
import { registerDevice } from './devices.ts';
import type { LatencyJob, Latencies } from './latency-peer.ts';
import { percentile, type BenchReport, type Round } from './measure.ts';
import { askPeer } from './peer-process.ts';
import { takeTurns } from './report.ts';
import { whileRunning, type Scratch } from './scratch.ts';

const rounds = 3;
/** Only what is measured is lifted. */
const config = ['send', 'read', 'relay']
  .map((name) => `[rates.${name}]\nper_second = 100000\nburst = 100000\n`)
  .join('');
const peer = new URL('./latency-peer.ts', import.meta.url);

export async function federatedLatency(scratch: Scratch): Promise<BenchReport> {
  const nodes = await initCluster(scratch.directory, ['red.example', 'blue.example'], config);
  scratch.own(nodes);
  const [red, blue] = nodes;
  if (red === undefined || blue === undefined) throw new Error('bench: need two nodes');
  const job: LatencyJob = await whileRunning(nodes, async () => ({
    from: await registerDevice(red, 'alice'),
    near: await registerDevice(red, 'carol'),
    far: await registerDevice(blue, 'bob'),
  }));

  let latest: Latencies = { near: [], far: [] };
  const p99: { near: Round[]; far: Round[] } = { near: [], far: [] };
  const take = (which: keyof Latencies, share: number): Round => ({
    value: percentile(latest[which], share),
    notes: { maxMs: percentile(latest[which], 1), count: latest[which].length },
  });
  const [near = [], far = []] = await takeTurns('p50', 'ms', rounds, [
    {
      name: 'one node',
      // One process measures both: they take turns inside it, in blocks of messages.
      measure: async () => {
        // The peer is of this folder.
        latest = await whileRunning(nodes, async () => (await askPeer(peer, job)) as Latencies);
        p99.near.push(take('near', 0.99));
        p99.far.push(take('far', 0.99));
        return take('near', 0.5);
      },
    },
    { name: 'two nodes', measure: async () => take('far', 0.5) },
  ]);
  return {
    question:
      'federated-latency: ms from Enqueue to push over two nodes, over one node (less is better)',
    rows: [
      { name: 'latency, p50', unit: 'ms', baseline: near, candidate: far },
      { name: 'latency, p99', unit: 'ms', baseline: p99.near, candidate: p99.far },
    ],
  };
}
