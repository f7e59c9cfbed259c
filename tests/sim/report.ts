/** What many runs came to: faults that fired, crash points reached, work done, seeds that failed. */
import type { Violation } from '../checkers/index.ts';
import { clientCrashPoints } from './client-store.ts';
import { mixes } from './mixes.ts';
import { nodeCrashPoints } from './node-store.ts';
import type { RunResult } from './run.ts';

/** A run, without what only its checkers need; plain data, to travel between processes. */
export interface RunSummary {
  readonly seed: number;
  readonly mix: string;
  readonly hash: string;
  readonly violations: readonly Violation[];
  readonly faults: readonly (readonly [string, number])[];
  /** Files of an older program do not have it. */
  readonly commits?: RunResult['commits'];
  readonly operations: number;
  readonly actions: readonly (readonly [string, number])[];
  readonly sent: number;
  /** Copies that became history of a device. */
  readonly stored: number;
  readonly gaveUp: number;
  /** Messages that devices took in past nodes. */
  readonly pastNodes: RunResult['pastNodes'];
  readonly steps: number;
  readonly looks: number;
  readonly simulatedMs: number;
  readonly drainMs: number;
  /** Files of an older program do not have it. */
  readonly waitedFor?: RunResult['waitedFor'];
  readonly cpuMs: number;
}

export function summaryOf(result: RunResult, cpuMs: number): RunSummary {
  const count = (kind: string): number =>
    result.history.filter((line) => line.kind === kind).length;
  const { seed, mix, hash, violations, commits, pastNodes, steps, looks } = result;
  const { simulatedMs, drainMs, waitedFor } = result;
  return {
    seed,
    mix,
    hash,
    violations,
    faults: [...result.faults],
    commits,
    operations: result.work.operations,
    actions: [...result.work.counts],
    sent: count('sent'),
    stored: count('stored'),
    gaveUp: count('gaveUp'),
    pastNodes,
    steps,
    looks,
    simulatedMs,
    drainMs,
    waitedFor,
    cpuMs,
  };
}

/** Runs of a mix after which a way that no message took is a finding: one short run may have no use for it. */
const runsUntilUnused = 3;

export class Report {
  readonly #runs: RunSummary[] = [];

  add(run: RunSummary): void {
    this.#runs.push(run);
  }

  get failed(): readonly RunSummary[] {
    return this.#runs.filter(({ violations }) => violations.length > 0);
  }

  /** Crash points that no run reached. */
  get unreached(): readonly string[] {
    const fired = total(this.#runs.map(({ faults }) => faults));
    return [...nodeCrashPoints, ...clientCrashPoints].filter(
      (point) => !fired.has(`crash:${point}`),
    );
  }

  /** Ways past nodes that mixes have and no message took: such runs show nothing of them. */
  get unused(): readonly string[] {
    return [...Map.groupBy(this.#runs, ({ mix }) => mix)].flatMap(([mix, runs]) => {
      const swarm = mixes.find(({ name }) => name === mix)?.swarm;
      if (swarm === undefined || runs.length < runsUntilUnused) return [];
      const ways = swarm.relays ? (['direct', 'relay'] as const) : (['direct'] as const);
      return ways
        .filter((way) => runs.every(({ pastNodes }) => pastNodes[way] === 0))
        .map((way) => `${mix} ${way}`);
    });
  }

  lines(): string[] {
    const runs = this.#runs;
    const sum = (of: (run: RunSummary) => number): number =>
      runs.reduce((all, run) => all + of(run), 0);
    const faults = total(runs.map((run) => run.faults));
    const actions = total(runs.map((run) => run.actions));
    const mixes = Map.groupBy(runs, ({ mix }) => mix);
    const slowest = runs.toSorted((one, other) => other.drainMs - one.drainMs).slice(0, 3);
    return [
      `${runs.length} seeds, ${mixes.size} mixes, ${sum((run) => run.operations)} client operations ` +
        `(${listed(actions)})`,
      `${sum((run) => run.sent)} messages, ${sum((run) => run.stored)} copies delivered, ` +
        `${sum((run) => run.gaveUp)} given up by a typed end`,
      `${sum(({ commits }) => commits?.accepted ?? 0)} commits accepted, ` +
        `${sum(({ commits }) => commits?.lost ?? 0)} times one lost its epoch to another`,
      `past nodes: ${sum(({ pastNodes }) => pastNodes.direct)} taken in directly, ` +
        `${sum(({ pastNodes }) => pastNodes.relay)} over relays; ` +
        `ways that no message took: ${this.unused.join(', ') || 'none'}`,
      `faults that fired: ${listed(faults)}`,
      `crash points not reached: ${this.unreached.join(', ') || 'none'}`,
      `${sum((run) => run.steps)} events in ${hours(sum((run) => run.simulatedMs))} simulated hours; ` +
        `databases compared ${sum((run) => run.looks)} times`,
      // What takes long without being wrong is where people wait.
      `longest drains after the last fault: ${slowest.map(drained).join(', ')}`,
      `${(sum((run) => run.cpuMs) / 1000 / Math.max(1, runs.length)).toFixed(2)} s of one core for a seed`,
      ...[...mixes].map(([mix, of]) => {
        const failed = of.filter(({ violations }) => violations.length > 0).length;
        return `  ${mix}: ${of.length} seeds, ${failed} failed`;
      }),
      `violations: ${sum((run) => run.violations.length)} in ${this.failed.length} seeds`,
    ];
  }
}

/** The one command that runs a seed again. */
export function replayCommand({ seed, mix }: Pick<RunSummary, 'seed' | 'mix'>): string {
  return `npm run sim -- --seed ${seed} --mix ${mix} --trace`;
}

function total(counts: readonly (readonly (readonly [string, number])[])[]): Map<string, number> {
  const sums = new Map<string, number>();
  for (const [name, count] of counts.flat()) sums.set(name, (sums.get(name) ?? 0) + count);
  return sums;
}

function listed(counts: ReadonlyMap<string, number>): string {
  return [...counts]
    .sort(([one], [other]) => one.localeCompare(other))
    .map(([name, count]) => `${name} ${count}`)
    .join(', ');
}

function drained({ seed, mix, drainMs, waitedFor = [] }: RunSummary): string {
  const what = waitedFor.length === 0 ? '' : `: ${waitedFor.join('; ')}`;
  return `${Math.round(drainMs / 1000)} s (${mix} ${seed}${what})`;
}

function hours(ms: number): string {
  return (ms / 3_600_000).toFixed(1);
}
