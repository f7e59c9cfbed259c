/**
 * Question: how fast is a device reached directly, over libp2p by QUIC and by TCP, compared with a
 * message through a node of both? Latency one message at a time, throughput with 64 in flight; 1 KiB
 * each. Direct: from the call to the receiver's DELIVERED, its disk included. Node: from Enqueue to
 * the push at the recipient, the node's disk included. Every number from fresh processes.
 */
import { initCluster } from '../cluster/node-process.ts';
import { registerDevice } from './devices.ts';
import type { BenchReport, Round } from './measure.ts';
import type { Receiver } from './p2p-receiver.ts';
import type { SenderJob } from './p2p-sender.ts';
import { askPeer, startPeer } from './peer-process.ts';
import { takeTurns } from './report.ts';
import { whileRunning, type Scratch } from './scratch.ts';

const rounds = 3;
const config = ['send', 'read']
  .map((name) => `[rates.${name}]\nper_second = 100000\nburst = 100000\n`)
  .join('');
const sender = new URL('./p2p-sender.ts', import.meta.url);
const receiver = new URL('./p2p-receiver.ts', import.meta.url);
const inFlight = 64;

export async function p2p(scratch: Scratch): Promise<BenchReport> {
  const nodes = await initCluster(scratch.directory, ['red.example'], config);
  scratch.own(nodes);
  const [red] = nodes;
  if (red === undefined) throw new Error('bench: need a node');
  const devices = await whileRunning(nodes, async () => ({
    from: await registerDevice(red, 'alice'),
    to: await registerDevice(red, 'bob'),
  }));

  // What a peer of this folder answers.
  const ask = async (job: SenderJob): Promise<Round> => (await askPeer(sender, job)) as Round;
  const throughNode = (loops: number): Promise<Round> =>
    whileRunning(nodes, () => ask({ over: 'node', loops, ...devices }));
  const direct = async (over: 'quic-v1' | 'tcp', loops: number): Promise<Round> => {
    await using peer = await startPeer(receiver, { directory: scratch.directory });
    return await ask({ over, loops, to: peer.answer as Receiver, serverPid: peer.pid });
  };
  const latency = (round: Round): Round => ({ ...round, value: round.notes['p50Ms'] ?? NaN });
  const [nodeMs = [], quicMs = [], tcpMs = []] = await takeTurns('latency, p50', 'ms', rounds, [
    { name: 'node', measure: async () => latency(await throughNode(1)) },
    { name: 'quic', measure: async () => latency(await direct('quic-v1', 1)) },
    { name: 'tcp', measure: async () => latency(await direct('tcp', 1)) },
  ]);
  const [node = [], quic = [], tcp = []] = await takeTurns('throughput', 'messages/s', rounds, [
    { name: 'node', measure: () => throughNode(inFlight) },
    { name: 'quic', measure: () => direct('quic-v1', inFlight) },
    { name: 'tcp', measure: () => direct('tcp', inFlight) },
  ]);
  return {
    question: 'p2p: a device directly by libp2p, over a message through a node of both',
    rows: [
      { name: 'latency p50, quic', unit: 'ms', baseline: nodeMs, candidate: quicMs },
      { name: 'latency p50, tcp', unit: 'ms', baseline: nodeMs, candidate: tcpMs },
      { name: 'throughput, quic', unit: 'messages/s', baseline: node, candidate: quic },
      { name: 'throughput, tcp', unit: 'messages/s', baseline: node, candidate: tcp },
    ],
  };
}
