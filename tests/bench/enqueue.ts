/**
 * Question: how many durable Enqueues/s do group commits give at 1, 16 and 64 clients, over one
 * commit for each message? Schema, pragmas (WAL, synchronous=FULL), encryption and rows are the same
 * on both sides: the baseline is the same store core, driven one row after the other. Then the same
 * of a whole node over QUIC, against the same baseline without any network.
 */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { NodeProcess } from '../cluster/node-process.ts';
import { registerDevice } from './devices.ts';
import type { EnqueueJob } from './enqueue-peer.ts';
import type { BenchReport, Comparison, Round } from './measure.ts';
import { askPeer } from './peer-process.ts';
import { takeTurns } from './report.ts';
import { whileRunning, type Scratch } from './scratch.ts';

const rounds = 3;
const clientCounts = [1, 16, 64];
/** Only what is measured is lifted: rates, and the size of an inbox that nobody empties. */
export const unboundedConfig =
  '[limits]\ninbox_rows = 100000000\ninbox_mib = 100000\nmib_per_sender_per_minute = 100000\n[rates.send]\nper_second = 1000000\nburst = 1000000\n';
const peer = new URL('./enqueue-peer.ts', import.meta.url);

/** The peer is of this folder and answers with a Round. */
async function measure(job: EnqueueJob): Promise<Round> {
  return (await askPeer(peer, job)) as Round;
}

export async function enqueue(scratch: Scratch): Promise<BenchReport> {
  const node = await NodeProcess.init(
    'red.example',
    join(scratch.directory, 'red'),
    unboundedConfig,
  );
  scratch.own([node]);
  const devices = await whileRunning([node], () =>
    Promise.all(['anna', 'ben', 'cleo', 'dora'].map((name) => registerDevice(node, name))),
  );
  const store = (how: 'oneByOne' | 'grouped', clients: number): Promise<Round> =>
    measure({ how, clients, directory: mkdtempSync(join(scratch.directory, 'store-')) });
  const wholeNode = (clients: number): Promise<Round> =>
    whileRunning([node], () =>
      measure({ how: 'node', clients, devices, serverPid: node.pid ?? 0 }),
    );

  const rows: Comparison[] = [];
  const unit = 'rows/s';
  for (const [what, candidate] of [
    ['store', (clients: number) => store('grouped', clients)],
    ['node over QUIC', wholeNode],
  ] as const) {
    for (const clients of clientCounts) {
      const name = `${what}, ${clients} ${clients === 1 ? 'client' : 'clients'}`;
      const [alone = [], whole = []] = await takeTurns(name, unit, rounds, [
        { name: 'one commit each', measure: () => store('oneByOne', clients) },
        { name: what, measure: () => candidate(clients) },
      ]);
      rows.push({ name: `enqueue, ${name}`, unit, baseline: alone, candidate: whole });
    }
  }
  return { question: 'enqueue: durable rows/s over one commit for each row', rows };
}
