/**
 * Question: how long from an Enqueue at the sender's node to the push at the recipient, over two
 * nodes, compared with both on one node? Closed loop, one message at a time; every hop is on disk
 * before it answers. Nodes are processes of their own.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { call, methods, systemRandom } from '@quicprochat/proto';
import { initCluster } from '../cluster/node-process.ts';
import { BenchDevice } from './devices.ts';
import { percentileOf, type BenchReport } from './measure.ts';

const rounds = 3;
const messages = 150;
const payloadBytes = 512;
/** Only what is measured is lifted. */
const config = ['send', 'read', 'relay', 'auth']
  .map((name) => `[rates.${name}]\nper_second = 100000\nburst = 100000\n`)
  .join('');

/** Recipients with what they wait for. */
class Receiver {
  readonly device: BenchDevice;
  readonly #waiting = new Map<string, () => void>();
  constructor(device: BenchDevice) {
    this.device = device;
  }
  subscribe(): Promise<void> {
    return this.device.subscribe((mid) => this.#waiting.get(mid)?.());
  }
  arrival(mid: Uint8Array): Promise<void> {
    return new Promise((resolve) => this.#waiting.set(Buffer.from(mid).toString('hex'), resolve));
  }
}

/** Latencies (ms) of one message after the other. */
async function latencies(from: BenchDevice, to: Receiver): Promise<number[]> {
  const result: number[] = [];
  for (let sent = 0; sent < messages; sent += 1) {
    const mid = systemRandom.bytes(16);
    const arrived = to.arrival(mid);
    const startMs = performance.now();
    await call(from.connection, methods.enqueue, {
      rid: to.device.rid,
      domain: to.device.node.domain,
      mid,
      payload: systemRandom.bytes(payloadBytes),
    });
    await arrived;
    result.push(performance.now() - startMs);
  }
  return result;
}

export async function run(): Promise<BenchReport> {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-bench-'));
  const nodes = await initCluster(directory, ['red.example', 'blue.example'], config);
  try {
    const [red, blue] = nodes;
    if (red === undefined || blue === undefined) throw new Error('bench: need two nodes');
    await Promise.all(nodes.map((node) => node.start()));
    const alice = await BenchDevice.register(red, 'alice');
    const carol = new Receiver(await BenchDevice.register(red, 'carol'));
    const bob = new Receiver(await BenchDevice.register(blue, 'bob'));
    await Promise.all([carol.subscribe(), bob.subscribe()]);
    await latencies(alice, carol);
    await latencies(alice, bob);
    const one: number[][] = [];
    const two: number[][] = [];
    for (let round = 0; round < rounds; round += 1) {
      one.push(await latencies(alice, carol));
      two.push(await latencies(alice, bob));
    }
    const row = (name: string, share: number) => ({
      name,
      unit: 'ms',
      baseline: one.map((values) => percentileOf(values, share)),
      candidate: two.map((values) => percentileOf(values, share)),
    });
    return {
      question: 'Latency: Enqueue to push over two federated nodes',
      baseline: 'sender and recipient on one node',
      candidate: 'sender on red, recipient on blue: two disks, two hops',
      rows: [row('p50', 0.5), row('p99', 0.99)],
    };
  } finally {
    await Promise.all(nodes.map((node) => node.kill()));
    rmSync(directory, { recursive: true, force: true });
  }
}
