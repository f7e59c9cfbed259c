/**
 * `npm run chaos`: real nodes and real clients, real faults, and checkers that judge the history.
 * Usage: `npm run chaos -- [scenario ...] [--kills N] [--cuts N] [--partition-seconds N]
 * [--pause-seconds N] [--people N] [--storm-seconds N] [--seed N] [--keep]`. Ends with 0 when every scenario passed, 1 when one
 * failed, 77 when none failed and some were skipped.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Dice } from '../cluster/dice.ts';
import { missing } from './capabilities.ts';
import { machineLine } from '../bench/measure.ts';
import { exitCode, printOutcome, printSummary, type Outcome } from './report.ts';
import type { Scenario, Sizes, Stage } from './scenario.ts';
import { scenarios } from './scenarios/index.ts';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    kills: { type: 'string', default: '12' },
    cuts: { type: 'string', default: '8' },
    'partition-seconds': { type: 'string', default: '10' },
    'pause-seconds': { type: 'string', default: '30' },
    people: { type: 'string', default: '6' },
    'storm-seconds': { type: 'string', default: '40' },
    seed: { type: 'string' },
    keep: { type: 'boolean', default: false },
  },
});
const sizes: Sizes = {
  kills: whole('kills', options.kills),
  cuts: whole('cuts', options.cuts),
  partitionSeconds: whole('partition-seconds', options['partition-seconds']),
  pauseSeconds: whole('pause-seconds', options['pause-seconds']),
  people: whole('people', options.people),
  stormSeconds: whole('storm-seconds', options['storm-seconds']),
};
const dice = new Dice(options.seed === undefined ? undefined : whole('seed', options.seed));

function whole(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`--${name}: ${text} is no number`);
  return value;
}

function chosen(): readonly Scenario[] {
  const unknown = positionals.filter((name) => !scenarios.some((one) => one.name === name));
  if (unknown.length > 0) {
    const known = scenarios.map(({ name }) => name).join(', ');
    throw new Error(`no scenario ${unknown.join(', ')}; there are ${known}`);
  }
  return positionals.length === 0
    ? scenarios
    : scenarios.filter(({ name }) => positionals.includes(name));
}

/** Work that undoes what running scenarios did to the machine, newest first. */
const undo: (() => Promise<void> | void)[] = [];
async function cleanUp(): Promise<void> {
  for (let work = undo.pop(); work !== undefined; work = undo.pop()) {
    try {
      await work();
    } catch (error) {
      console.error(`clean-up: ${String(error)}`);
    }
  }
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    cleanUp().then(
      () => process.exit(1),
      () => process.exit(1),
    );
  });
}

async function perform(scenario: Scenario, index: number): Promise<Outcome> {
  const { name } = scenario;
  const lacking = missing(scenario.needs);
  if (lacking.length > 0) return { name, skipped: lacking };
  const directory = mkdtempSync(join(tmpdir(), `qpc-chaos-${process.pid}-`));
  const startMs = performance.now();
  const stage: Stage = {
    sizes,
    dice: dice.branch(index),
    directory,
    cleanUp: (work) => void undo.push(work),
    say: (line) => console.log(`  ${line}`),
  };
  let outcome: Outcome;
  try {
    const parts = await scenario.run(stage);
    outcome = { name, parts, seconds: (performance.now() - startMs) / 1000 };
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    outcome = { name, broken: text, seconds: (performance.now() - startMs) / 1000 };
  }
  await cleanUp();
  if (options.keep || exitCode([outcome]) === 1) console.log(`  kept: ${directory}`);
  else rmSync(directory, { recursive: true, force: true });
  return outcome;
}

console.log(`${machineLine()}\nseed ${dice.seed}, ${JSON.stringify(sizes)}`);
const outcomes: Outcome[] = [];
for (const [index, scenario] of chosen().entries()) {
  console.log(`\n${scenario.name}: ${scenario.shows}`);
  const outcome = await perform(scenario, index);
  printOutcome(outcome);
  outcomes.push(outcome);
}
printSummary(outcomes);
process.exit(exitCode(outcomes));
