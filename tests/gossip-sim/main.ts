/**
 * `npm run sim:gossip -- --seeds A..B [--honest]`: docs/gossip-simulation.md says what is simulated. Exits with 1
 * at a violation.
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { rememberCrypto } from '../sim/memo.ts';
import { Totals } from './report.ts';
import { runSeed } from './run.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    honest: { type: 'boolean', default: false },
    first: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
  },
});
const [from, to] = seedsOf(values.seeds);
rememberCrypto();
// Refusals are the daily bread of a simulation: nobody reads where they were made.
Error.stackTraceLimit = 0;
const totals = new Totals();
for (let seed = from; seed <= to; seed += 1) {
  const result = await runSeed(seed, { isHonest: values.honest });
  totals.add(result);
  const { kind, violations, healedMs, counts, kinds } = result;
  if (values.verbose) console.log(seed, kind, healedMs, JSON.stringify(counts), kinds.join());
  for (const violation of violations.slice(0, 5)) console.log(`seed ${seed}: ${violation}`);
  if (values.first && totals.failed > 0) break;
}
for (const line of totals.lines()) console.log(line);
if (totals.failed > 0) process.exitCode = 1;

function seedsOf(text = String(randomInt(2 ** 31))): readonly [number, number] {
  const range = /^(\d+)(?:\.\.(\d+))?$/.exec(text);
  const first = Number(range?.[1]);
  const last = Number(range?.[2] ?? first);
  if (!(last >= first)) throw new Error(`--seeds ${text}: need A..B`);
  return [first, last];
}
