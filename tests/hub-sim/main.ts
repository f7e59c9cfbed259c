/**
 * Runs three production hubs, or one, under faults and says what broke:
 *   node tests/hub-sim/main.ts [--seed 1] [--runs 100] [--hubs 3 | --forget] [--minutes N] [--first]
 * `--forget`: two of three and more lose their disks. Begins no run after so many minutes. Exits with 1 when anything did; `--first` ends with the first run that shows something.
 */
import { parseArgs } from 'node:util';
import { makeStarts } from './cluster.ts';
import { runForgetful } from './forgetful.ts';
import { runHubs, type HubReport } from './run.ts';
import { runSingle } from './single.ts';
import { mixOf } from './mixes.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    runs: { type: 'string', default: '100' },
    hubs: { type: 'string', default: '3' },
    forget: { type: 'boolean', default: false },
    minutes: { type: 'string', default: '1e9' },
    first: { type: 'boolean', default: false },
  },
});
const starts = await makeStarts();
const ofHubs = values.hubs === '1' ? runSingle : runHubs;
const run = values.forget ? runForgetful : ofHubs;
const first = Number(values.seed);
const sum = {
  entries: 0,
  submitted: 0,
  acknowledged: 0,
  deaths: 0,
  takeovers: 0,
  installed: 0,
  restores: 0,
  silent: 0,
  brought: 0,
  letGo: 0,
};
let broken = 0;
let done = 0;
const add = (report: HubReport): void => {
  const { entries, submitted, acknowledged, deaths, counts } = report;
  sum.restores += counts.learned;
  sum.silent += report.isSilent ? 1 : 0;
  sum.entries += entries;
  sum.submitted += submitted;
  sum.acknowledged += acknowledged;
  sum.deaths += deaths;
  sum.takeovers += counts.takenOver;
  sum.installed += counts.installed;
  sum.brought += counts.brought;
  sum.letGo += counts.letGo;
};
for (let seed = first; seed < first + Number(values.runs); seed += 1) {
  if (performance.now() > 60_000 * Number(values.minutes)) break;
  const report = await run(starts, seed, mixOf(seed));
  add(report);
  done += 1;
  if (report.violations.length === 0) continue;
  broken += 1;
  console.log(`seed ${seed}: ${report.violations.slice(0, 3).join('\n  ')}`);
  if (values.first) break;
}
console.log(`${done} runs from seed ${first}: ${JSON.stringify(sum)}; ${broken} broken`);
if (broken > 0) process.exitCode = 1;
