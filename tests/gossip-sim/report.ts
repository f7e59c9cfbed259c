/** What many runs of the gossip simulation came to. */
import type { RunResult } from './run.ts';

export class Totals {
  readonly #began = { wallMs: performance.now(), cpu: process.cpuUsage() };
  readonly #kinds = new Map<string, number>();
  readonly #evidence = new Map<string, number>();
  readonly #counts = new Map<string, number>();
  readonly #healed = new Map<string, number[]>();
  #runs = 0;
  #simulatedMs = 0;
  failed = 0;

  add({ kind, plan, violations, healedMs, simulatedMs, counts, kinds }: RunResult): void {
    const count = (map: Map<string, number>, name: string, by = 1): void =>
      void map.set(name, (map.get(name) ?? 0) + by);
    this.#runs += 1;
    this.#simulatedMs += simulatedMs;
    if (violations.length > 0) this.failed += 1;
    count(this.#kinds, plan.liar === undefined ? kind : `${kind}: ${plan.liar.lie}`);
    for (const one of kinds) count(this.#evidence, one);
    for (const [name, value] of Object.entries(counts)) count(this.#counts, name, value);
    if (healedMs === undefined || kind === 'untold lie') return;
    const name = `${kind} over ${plan.carrier}`;
    this.#healed.set(name, [...(this.#healed.get(name) ?? []), healedMs]);
  }

  lines(): string[] {
    const { user, system } = process.cpuUsage(this.#began.cpu);
    const list = (map: ReadonlyMap<string, number>): string =>
      [...map]
        .toSorted(byName)
        .map(([name, value]) => `${name} ${value}`)
        .join(', ');
    const cpuMs = (user + system) / 1000 / this.#runs;
    return [
      `${this.#runs} runs, ${this.failed} with violations; ${list(this.#kinds)}`,
      `evidence at the end: ${list(this.#evidence)}`,
      `in all: ${list(this.#counts)}; ${(this.#simulatedMs / 3_600_000).toFixed(0)} simulated hours`,
      ...[...this.#healed].toSorted(byName).map(([name, times]) => {
        const sorted = times.toSorted((a, b) => a - b);
        const at = (share: number): string =>
          (
            (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0) / 1000
          ).toFixed(1);
        return `${name}: all after ${at(0.5)} s (median), ${at(0.99)} s (99 of 100), ${at(1)} s (worst)`;
      }),
      `${cpuMs.toFixed(1)} ms of CPU for a run`,
    ];
  }
}

const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number =>
  a < b ? -1 : 1;
