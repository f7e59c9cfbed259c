/**
 * `npm run bench [-- NAME...]`: runs the benches one after the other, prints one table, and keeps the
 * numbers under results/. Exit code 1 when a bench had an error: it prints no number then.
 */
import { channelClients } from './channel-clients.ts';
import { channels } from './channels.ts';
import { enqueue } from './enqueue.ts';
import { nodeEngines } from './node-engines.ts';
import { fallback } from './fallback.ts';
import { floor } from './floor.ts';
import { federatedLatency } from './federated-latency.ts';
import { hub } from './hub.ts';
import { kt } from './kt.ts';
import { p2p } from './p2p.ts';
import { p2pGossip } from './p2p-gossip.ts';
import { idleDevices } from './idle-devices.ts';
import { machineLine, type BenchReport } from './measure.ts';
import { printTable, writeResults } from './report.ts';
import { recovery } from './recovery.ts';
import { relay } from './relay.ts';
import { rpc } from './rpc.ts';
import { Scratch } from './scratch.ts';

const benches: Readonly<Record<string, (scratch: Scratch) => Promise<BenchReport>>> = {
  rpc,
  enqueue,
  floor,
  channels,
  'channel-clients': () => channelClients(),
  'node-engines': nodeEngines,
  'federated-latency': federatedLatency,
  relay,
  hub: (scratch) => hub(scratch),
  recovery: (scratch) => recovery(scratch),
  'idle-devices': (scratch) => idleDevices(scratch),
  kt,
  p2p,
  'p2p-gossip': p2pGossip,
  fallback,
};

const asked = process.argv.slice(2);
const unknown = asked.find((name) => !(name in benches));
if (unknown !== undefined) {
  console.error(`bench: no "${unknown}"; there are ${Object.keys(benches).join(', ')}`);
  process.exit(2);
}

let current: Scratch | undefined;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    void Promise.resolve(current?.[Symbol.asyncDispose]()).finally(() => process.exit(130));
  });
}

const started = new Date();
const before = machineLine();
console.log(before);
const reports: BenchReport[] = [];
for (const [name, run] of Object.entries(benches)) {
  if (asked.length > 0 && !asked.includes(name)) continue;
  await using scratch = new Scratch();
  current = scratch;
  console.log(`\n${name}`);
  try {
    reports.push(await run(scratch));
  } catch (error) {
    console.error(`${name}: no number, because of an error:`, error);
    process.exitCode = 1;
  }
}
const after = machineLine();
if (reports.length > 0) {
  printTable(reports);
  for (const { question } of reports) console.log(question);
  console.log(`\nbefore: ${before}\nafter:  ${after}`);
  console.log(`kept: ${writeResults(started, { before, after }, reports)}`);
}
