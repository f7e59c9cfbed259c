/**
 * `npm run bench [-- NAME...]`: runs the benches one after the other and prints one table each;
 * `--json FILE` also writes the numbers. Exit code 1 when one failed: a bench with an error has no
 * numbers.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { run as enqueue } from './enqueue.ts';
import { run as federatedLatency } from './federated-latency.ts';
import { machineLine, printReport, type BenchReport } from './measure.ts';
import { run as rpc } from './rpc.ts';

const benches: Readonly<Record<string, () => Promise<BenchReport>>> = {
  rpc,
  enqueue,
  'federated-latency': federatedLatency,
};

const { values, positionals } = parseArgs({
  options: { json: { type: 'string' } },
  allowPositionals: true,
});
const unknown = positionals.find((name) => !(name in benches));
if (unknown !== undefined) {
  console.error(`bench: no "${unknown}"; there are ${Object.keys(benches).join(', ')}`);
  process.exit(2);
}

console.log(machineLine());
const reports: Record<string, BenchReport> = {};
for (const [name, run] of Object.entries(benches)) {
  if (positionals.length > 0 && !positionals.includes(name)) continue;
  try {
    const report = await run();
    reports[name] = report;
    printReport(report);
  } catch (error) {
    console.error(`\n${name}: no number, because of an error\n`, error);
    process.exitCode = 1;
  }
}
console.log(`\nafterwards: ${machineLine()}`);
if (values.json !== undefined) {
  writeFileSync(values.json, `${JSON.stringify({ machine: machineLine(), reports }, null, 2)}\n`);
}
process.exit();
