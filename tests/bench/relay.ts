/**
 * Question: how many messages/s go from one node to another, durable at both ends, over the durable
 * Enqueues/s that the receiving node answers to 64 clients of its own? The messages wait in the outbox
 * of the first node while the second one is away; what counts is when the second one wrote them.
 */
import { initCluster } from '../cluster/node-process.ts';
import { registerDevice } from './devices.ts';
import { unboundedConfig } from './enqueue.ts';
import type { EnqueueJob } from './enqueue-peer.ts';
import type { BenchReport, Comparison, Round } from './measure.ts';
import { askPeer } from './peer-process.ts';
import type { RelayJob } from './relay-peer.ts';
import { takeTurns } from './report.ts';
import { whileRunning, type Scratch } from './scratch.ts';

const rounds = 3;
const messages = 6_000;
const clients = 64;
const waitMs = 300_000;
/** Only what is measured is lifted. */
const config =
  unboundedConfig +
  ['read', 'relay', 'cheap']
    .map((name) => `[rates.${name}]\nper_second = 1000000\nburst = 1000000\n`)
    .join('');
const localPeer = new URL('./enqueue-peer.ts', import.meta.url);
const relayPeer = new URL('./relay-peer.ts', import.meta.url);

export async function relay(scratch: Scratch): Promise<BenchReport> {
  const nodes = await initCluster(scratch.directory, ['red.example', 'blue.example'], config);
  scratch.own(nodes);
  const [red, blue] = nodes;
  if (red === undefined || blue === undefined) throw new Error('bench: need two nodes');
  const { from, devices } = await whileRunning(nodes, async () => ({
    from: await registerDevice(red, 'alice'),
    devices: await Promise.all(
      ['anna', 'ben', 'cleo', 'dora'].map((name) => registerDevice(blue, name)),
    ),
  }));
  const ask = (job: RelayJob): Promise<unknown> => askPeer(relayPeer, job, waitMs);
  const relayed = async (round: number): Promise<Round> => {
    // An inbox of its own for each round: nothing of the last one is in it.
    const to = await whileRunning([blue], () => registerDevice(blue, `bob${round}`));
    return whileRunning([red], async () => {
      await ask({ do: 'fill', from, to, messages });
      // The peer is of this folder and answers with a Round.
      return whileRunning(
        [blue],
        async () => (await ask({ do: 'collect', to, messages })) as Round,
      );
    });
  };
  const local = (): Promise<Round> =>
    whileRunning([blue], async () => {
      const job: EnqueueJob = { how: 'node', clients, devices, serverPid: blue.pid ?? 0 };
      return (await askPeer(localPeer, job)) as Round;
    });
  const unit = 'messages/s';
  let round = 0;
  const [baseline = [], candidate = []] = await takeTurns('relay', unit, rounds, [
    { name: 'local Enqueue', measure: local },
    { name: 'node to node', measure: () => relayed((round += 1)) },
  ]);
  const row: Comparison = { name: 'relay over local Enqueue', unit, baseline, candidate };
  return { question: 'relay: messages/s from node to node over local Enqueue', rows: [row] };
}
