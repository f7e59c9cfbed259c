/**
 * The reporter of the benches: interleaved rounds, ratios to a baseline of the same run, median and
 * spread. A round with one error gives no number: the error ends the bench.
 */
import { arch, cpus, loadavg, platform, release } from 'node:os';

/** One row of a table: what was measured, the baseline beside it, their ratio per round. */
export interface Comparison {
  readonly name: string;
  readonly unit: string;
  readonly baseline: readonly number[];
  readonly candidate: readonly number[];
}

export interface BenchReport {
  readonly question: string;
  readonly baseline: string;
  readonly candidate: string;
  readonly rows: readonly Comparison[];
}

/** Relative spread of the ratios above which a row is called noisy. */
const noisySpread = 0.15;

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low = Number.NaN, high = Number.NaN] = [
    sorted[sorted.length % 2 === 0 ? middle - 1 : middle],
    sorted[middle],
  ];
  return (low + high) / 2;
}

export function percentileOf(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** Runs `baseline` and `candidate` in turn, `rounds` times. */
export async function interleave(
  rounds: number,
  baseline: () => Promise<number>,
  candidate: () => Promise<number>,
): Promise<{ baseline: number[]; candidate: number[] }> {
  const result = { baseline: [] as number[], candidate: [] as number[] };
  for (let round = 0; round < rounds; round += 1) {
    result.baseline.push(await baseline());
    result.candidate.push(await candidate());
  }
  return result;
}

/** Operations per second of `count` loops that call `operation` for `ms`. */
export async function perSecond(
  count: number,
  ms: number,
  operation: (loop: number) => Promise<unknown>,
): Promise<number> {
  const startMs = performance.now();
  let done = 0;
  await Promise.all(
    Array.from({ length: count }, async (_, loop) => {
      while (performance.now() - startMs < ms) {
        await operation(loop);
        done += 1;
      }
    }),
  );
  return (done / (performance.now() - startMs)) * 1000;
}

/** CPU, cores, kernel, Node and load: without them no number means anything. */
export function machineLine(): string {
  const model = cpus()[0]?.model ?? 'unknown processor';
  const load = loadavg().map((value) => value.toFixed(1));
  return `${model}, ${cpus().length} cores, ${platform()} ${release()} ${arch()}, Node ${process.version}, load ${load.join(' ')}`;
}

export function printReport(report: BenchReport): void {
  console.log(`\n${report.question}`);
  console.log(`  baseline: ${report.baseline}\n  candidate: ${report.candidate}`);
  for (const row of report.rows) {
    const ratios = row.candidate.map((value, index) => value / (row.baseline[index] ?? Number.NaN));
    const middle = median(ratios);
    const spread = (Math.max(...ratios) - Math.min(...ratios)) / middle;
    const cells = [
      row.name.padEnd(34),
      `${round(median(row.baseline))} -> ${round(median(row.candidate))} ${row.unit}`.padEnd(34),
      `ratio ${middle.toFixed(2)} (${Math.min(...ratios).toFixed(2)}-${Math.max(...ratios).toFixed(2)})`,
    ];
    console.log(`  ${cells.join('')}${spread > noisySpread ? '  noisy' : ''}`);
  }
}

function round(value: number): string {
  return value >= 100 ? String(Math.round(value)) : value.toFixed(2);
}
