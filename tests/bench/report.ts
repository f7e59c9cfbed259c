/**
 * How the benches print: each round as it ends, one table at the end, everything as JSON under
 * results/ beside this file.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  median,
  ratiosOf,
  type BenchReport,
  type Comparison,
  type Ratios,
  type Round,
} from './measure.ts';

const resultsFolder = join(import.meta.dirname, 'results');

/** The name of one side of a comparison, and how to take its number once. */
export interface Side {
  readonly name: string;
  measure(): Promise<Round>;
}

/** Takes every side's number in turn, `rounds` times, and prints each. The first is the baseline. */
export async function takeTurns(
  row: string,
  unit: string,
  rounds: number,
  sides: readonly Side[],
): Promise<Round[][]> {
  const taken: Round[][] = sides.map(() => []);
  for (let round = 1; round <= rounds; round += 1) {
    const values: string[] = [];
    for (const [index, side] of sides.entries()) {
      const result = await side.measure();
      taken[index]?.push(result);
      values.push(`${side.name} ${short(result.value)}`);
    }
    console.log(`  ${row}, round ${round}: ${values.join(', ')} ${unit}`);
  }
  return taken;
}

/** Three significant digits are more than a shared machine gives. */
function short(value: number): string {
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function range(values: readonly number[]): string {
  return `${Math.min(...values).toFixed(2)}-${Math.max(...values).toFixed(2)}`;
}

/** Median CPU of an operation on all sides that were measured (us). */
function cpuOf(rounds: readonly Round[]): string {
  const sums = rounds.map(({ notes }) =>
    [notes['clientCpuUs'], notes['serverCpuUs']].map((us) => us ?? 0),
  );
  const [client, server] = [0, 1].map((side) => median(sums.map((pair) => pair[side] ?? 0)));
  if (!client) return '';
  return server ? `${short(client)} + ${short(server)}` : short(client);
}

function tableRow(row: Comparison, ratios: Ratios): readonly string[] {
  const { baseline, candidate, name, unit } = row;
  return [
    name,
    `${short(median(baseline.map(({ value }) => value)))} ${unit}`,
    `${short(median(candidate.map(({ value }) => value)))} ${unit}`,
    `${ratios.median.toFixed(2)} (${range(ratios.perRound)})${ratios.isNoisy ? ' noisy' : ''}`,
    cpuOf(baseline),
    cpuOf(candidate),
  ];
}

const columns = [
  '',
  'baseline',
  'candidate',
  'ratio (range)',
  'CPU us baseline',
  'CPU us candidate',
];

/** One table of all reports, in Markdown, so that it can be quoted as it is. */
export function printTable(reports: readonly BenchReport[]): void {
  const rows = reports.flatMap(({ rows: own }) => own.map((row) => tableRow(row, ratiosOf(row))));
  const widths = columns.map((title, column) =>
    Math.max(title.length, ...rows.map((cells) => cells[column]?.length ?? 0)),
  );
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  console.log(`\n${line(columns)}`);
  console.log(`|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`);
  for (const cells of rows) console.log(line(cells));
  console.log('\nCPU per operation: client + server, or the one process that is both.');
}

/** Writes one run to a file of its own and returns its path. */
export function writeResults(
  at: Date,
  machine: { readonly before: string; readonly after: string },
  reports: readonly BenchReport[],
): string {
  const withRatios = reports.map((report) => ({
    ...report,
    rows: report.rows.map((row) => ({ ...row, ratios: ratiosOf(row) })),
  }));
  mkdirSync(resultsFolder, { recursive: true });
  const file = join(resultsFolder, `${at.toISOString().replaceAll(':', '-')}.json`);
  const digits = (_key: string, value: unknown): unknown =>
    typeof value === 'number' ? Number(value.toPrecision(4)) : value;
  writeFileSync(file, `${JSON.stringify({ machine, reports: withRatios }, digits, 1)}\n`);
  return file;
}
