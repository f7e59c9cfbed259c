/**
 * Question: how many durable Enqueues/s does a whole node do with 64 clients, by transport engine? Same
 * node, same store, same devices; the baseline is the stock QUIC engine on both sides.
 */
import { join } from 'node:path';
import type { EngineName } from '@quicprochat/proto/transport';
import { NodeProcess } from '../cluster/node-process.ts';
import { registerDevice } from './devices.ts';
import { unboundedConfig } from './enqueue.ts';
import type { EnqueueJob } from './enqueue-peer.ts';
import type { BenchReport, Comparison, Round } from './measure.ts';
import { askPeer } from './peer-process.ts';
import { takeTurns } from './report.ts';
import { whileRunning, type Scratch } from './scratch.ts';

const rounds = 3;
const clients = 64;
const peer = new URL('./enqueue-peer.ts', import.meta.url);
const variants: readonly (readonly [name: string, engine: EngineName, config: string])[] = [
  ['quic-stock', 'quic-stock', 'engines = ["quic-stock"]'],
  ['quic', 'quic', 'engines = ["quic"]'],
  ['quic, 2 processes', 'quic', 'engines = ["quic"]\nprocesses = 2'],
  ['tls', 'tls', 'engines = ["quic", "tls"]'],
];

export async function nodeEngines(scratch: Scratch): Promise<BenchReport> {
  const takers: { readonly name: string; readonly measure: () => Promise<Round> }[] = [];
  for (const [index, [name, engine, transport]] of variants.entries()) {
    const config = `${unboundedConfig}[transport]\n${transport}\n`;
    const node = await NodeProcess.init(
      'red.example',
      join(scratch.directory, `e${index}`),
      config,
    );
    scratch.own([node]);
    const devices = await whileRunning([node], () =>
      Promise.all(
        ['anna', 'ben', 'cleo', 'dora'].map((user) => registerDevice(node, user, engine)),
      ),
    );
    const measure = (): Promise<Round> =>
      whileRunning([node], async () => {
        const job: EnqueueJob = { how: 'node', clients, devices, serverPid: node.pid ?? 0, engine };
        // The peer is of this folder and answers with a Round.
        return (await askPeer(peer, job)) as Round;
      });
    takers.push({ name, measure });
  }
  const unit = 'rows/s';
  const [baseline = [], ...others] = await takeTurns('node by engine', unit, rounds, takers);
  const rows = others.map((candidate, index): Comparison => {
    const [name = ''] = variants[index + 1] ?? [];
    return { name: `${clients} clients, node on ${name}`, unit, baseline, candidate };
  });
  return { question: 'node-engines: durable Enqueues/s of a node over the stock engine', rows };
}
