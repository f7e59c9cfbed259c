/**
 * `npm run sim`: runs seeds and says what happened (docs/simulator.md lists the options). Exits with 1
 * when a run had a violation.
 */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fork, type ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { mixes, mixNamed, mixOfSeed } from './mixes.ts';
import { replayCommand, Report, summaryOf, type RunSummary } from './report.ts';
import { runSeed } from './run.ts';
import { shrink } from './shrink.ts';
import { keptSeeds } from './seeds.ts';
import { makeWorld, type World } from './world.ts';

interface Job {
  readonly seed: number;
  readonly mix: string;
  readonly operations: number | undefined;
  readonly nights: number | undefined;
  readonly isTwice: boolean;
  readonly isTraced: boolean;
  /** Of the planned operations and faults only these. */
  readonly only?: readonly string[];
}

let world: Promise<World> | undefined;

async function run(job: Job): Promise<RunSummary> {
  const { isTwice, isTraced } = job;
  const options = await optionsOf(job);
  const before = process.cpuUsage();
  const result = await runSeed({
    ...options,
    ...(isTraced
      ? {
          onLine: (line: string) => console.log(line),
          onLog: (who: string, level: string, event: string, fields: object) =>
            console.log(`        ${who} ${level} ${event} ${JSON.stringify(fields)}`),
        }
      : {}),
  });
  const { user, system } = process.cpuUsage(before);
  const summary = summaryOf(result, (user + system) / 1000);
  if (!isTwice) return summary;
  const again = await runSeed(options);
  if (again.hash === result.hash) return summary;
  const text = `the trace was ${result.hash} and then ${again.hash}`;
  return { ...summary, violations: [...summary.violations, { checker: 'deterministic', text }] };
}

async function optionsOf({ seed, mix, operations, nights, only }: Job) {
  return {
    world: await (world ??= makeWorld()),
    seed,
    mix: mixNamed(mix),
    ...(operations === undefined ? {} : { operations }),
    ...(nights === undefined ? {} : { nights }),
    ...(only === undefined ? {} : { only: new Set(only) }),
  };
}

/** Runs that shrinking one failure may take. */
const shrinkRuns = 60;

/** Looks for a smaller run of a seed that fails in the same way, and writes down what is left in it. */
async function shrinkJob(job: Job): Promise<void> {
  const options = await optionsOf(job);
  const { violations, planned } = await runSeed(options);
  const checkers = new Set(violations.map(({ checker }) => checker));
  if (checkers.size === 0) throw new Error(`seed ${job.seed} ${job.mix} does not fail`);
  const fails = async (only: ReadonlySet<string>): Promise<boolean> => {
    const result = await runSeed({ ...options, only });
    const isSame = result.violations.some(({ checker }) => checkers.has(checker));
    console.log(`${only.size} of ${planned.length}: ${isSame ? 'fails' : 'passes'}`);
    return isSame;
  };
  const { kept, runs } = await shrink(planned, fails, shrinkRuns);
  const file = `sim-${job.seed}-${job.mix}.json`;
  writeFileSync(file, `${JSON.stringify(kept)}\n`);
  console.log(`${kept.length} of ${planned.length} after ${runs} runs: ${kept.join(', ')}`);
  console.log(`  again: ${replayCommand(job)} --only ${file}`);
}

/** Runs all jobs in processes of their own; `done` hears of each. */
async function spread(
  jobs: Job[],
  workers: number,
  done: (run: RunSummary) => void,
  isOver: () => boolean,
): Promise<void> {
  const queue = jobs.values();
  await Promise.all(
    Array.from({ length: Math.min(workers, jobs.length) }, async () => {
      let worker: ChildProcess | undefined;
      for (const job of queue) {
        worker ??= fork(import.meta.filename, [], { env: { ...process.env, [workerMark]: '1' } });
        const summary = await ask(worker, job);
        if (!worker.connected) worker = undefined;
        done(summary);
        if (isOver()) break;
      }
      worker?.disconnect();
    }),
  );
}

/** A worker that ends in the middle of a run is a finding about that seed. */
function ask(worker: ChildProcess, job: Job): Promise<RunSummary> {
  return new Promise((resolve) => {
    const onExit = (code: number | null, signal: string | null): void => {
      const text = `the process ended: ${signal ?? code}`;
      resolve({ ...nothingOf(job), violations: [{ checker: 'uncaught', text }] });
    };
    worker.once('exit', onExit);
    worker.once('message', (summary: RunSummary) => {
      worker.off('exit', onExit);
      resolve(summary);
    });
    worker.send(job);
  });
}

function nothingOf({ seed, mix }: Job): RunSummary {
  const counts = { operations: 0, sent: 0, stored: 0, gaveUp: 0, steps: 0, looks: 0 };
  const times = { simulatedMs: 0, drainMs: 0, cpuMs: 0 };
  const pastNodes = { direct: 0, relay: 0 };
  const none = { hash: '', violations: [], faults: [], actions: [], pastNodes };
  return { seed, mix, ...none, ...counts, ...times };
}

/** The runs that a file of `--json` holds; a line that was cut off, or is of an older program, is none. */
function readRuns(file: string): RunSummary[] {
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .flatMap((line) => {
      try {
        const run = JSON.parse(line) as Partial<RunSummary>;
        return run.pastNodes === undefined ? [] : [run as RunSummary];
      } catch {
        return [];
      }
    });
}

const workerMark = 'QPC_SIM_WORKER';

function parseSeeds(seed: string | undefined, seeds: string | undefined): number[] {
  if (seeds === undefined) return [seed === undefined ? randomInt(2 ** 31) : Number(seed)];
  const range = /^(\d+)\.\.(\d+)$/.exec(seeds);
  const [from, to] = [Number(range?.[1]), Number(range?.[2])];
  if (!(to >= from)) throw new Error(`--seeds ${seeds}: need A..B`);
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      seeds: { type: 'string' },
      mix: { type: 'string' },
      operations: { type: 'string' },
      nights: { type: 'string' },
      workers: { type: 'string', default: '1' },
      json: { type: 'string' },
      trace: { type: 'boolean', default: false },
      twice: { type: 'boolean', default: false },
      mixes: { type: 'boolean', default: false },
      first: { type: 'boolean', default: false },
      kept: { type: 'boolean', default: false },
      summary: { type: 'boolean', default: false },
      minutes: { type: 'string' },
      shrink: { type: 'boolean', default: false },
      only: { type: 'string' },
    },
  });
  if (values.mixes) {
    for (const { name, what } of mixes) console.log(`${name}: ${what}`);
    return;
  }
  const report = new Report();
  if (values.summary) {
    if (values.json === undefined) throw new Error('--summary needs --json FILE');
    for (const run of readRuns(values.json)) report.add(run);
    for (const line of report.lines()) console.log(line);
    for (const { seed, mix, violations } of report.failed) {
      console.log(
        `  ${replayCommand({ seed, mix })}: ${violations[0]?.checker} ${violations[0]?.text}`,
      );
    }
    return;
  }
  const chosen = values.kept
    ? keptSeeds
    : parseSeeds(values.seed, values.seeds).map((seed) => ({ seed, mix: values.mix }));
  // A campaign goes on where it ended: runs that are in the file are not made again.
  const isDone = new Set(
    values.json === undefined ? [] : readRuns(values.json).map(({ seed, mix }) => `${seed} ${mix}`),
  );
  // A file that --shrink wrote.
  const only =
    values.only === undefined
      ? undefined
      : (JSON.parse(readFileSync(values.only, 'utf8')) as readonly string[]);
  const all = chosen.map(({ seed, mix }) => ({
    seed,
    mix: mixOfSeed(seed, mix).name,
    operations: values.operations === undefined ? undefined : Number(values.operations),
    nights: values.nights === undefined ? undefined : Number(values.nights),
    isTwice: values.twice,
    isTraced: values.trace,
    ...(only === undefined ? {} : { only }),
  }));
  if (values.shrink) {
    for (const job of all) await shrinkJob(job);
    return;
  }
  const jobs = all.filter(({ seed, mix }) => !isDone.has(`${seed} ${mix}`));
  if (jobs.length < all.length) console.log(`${all.length - jobs.length} runs are in the file`);
  const endMs =
    values.minutes === undefined
      ? Number.POSITIVE_INFINITY
      : performance.now() + Number(values.minutes) * 60_000;
  const asked = [values.operations, values.nights].map((count, index) =>
    count === undefined ? '' : ` --${index === 0 ? 'operations' : 'nights'} ${count}`,
  );
  const done = (summary: RunSummary): void => {
    report.add(summary);
    if (values.json !== undefined) appendFileSync(values.json, `${JSON.stringify(summary)}\n`);
    const { seed, mix, hash, violations, cpuMs, drainMs } = summary;
    console.log(
      `seed ${seed} ${mix} ${hash} ${(cpuMs / 1000).toFixed(1)} s, drained in ${Math.round(drainMs / 1000)} s`,
    );
    if (violations.length === 0) return;
    for (const { checker, text } of violations.slice(0, 5)) console.log(`  ${checker}: ${text}`);
    if (violations.length > 5) console.log(`  and ${violations.length - 5} more`);
    console.log(`  again: ${replayCommand(summary)}${asked.join('')}`);
  };
  const workers = Number(values.workers);
  if (workers <= 1) {
    for (const job of jobs) {
      done(await run(job));
      const isFound = values.first && report.failed.length > 0;
      if (isFound || performance.now() >= endMs) break;
    }
  } else {
    await spread(jobs, workers, done, () => performance.now() >= endMs);
  }
  for (const line of report.lines()) console.log(line);
  if (report.failed.length > 0 || report.unused.length > 0) process.exitCode = 1;
}

if (process.env[workerMark] === undefined) {
  await main();
} else {
  process.on('message', (job: Job) => {
    void run(job).then((summary) => process.send?.(summary));
  });
}
