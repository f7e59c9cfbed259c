/** How a run of chaos is printed: each part, then one table and one line that says it all. */
import { isPassed, type Part } from './scenario.ts';

export type Outcome =
  | { readonly name: string; readonly skipped: readonly string[] }
  | { readonly name: string; readonly parts: readonly Part[]; readonly seconds: number }
  /** The scenario itself did not come to its end. */
  | { readonly name: string; readonly broken: string; readonly seconds: number };

/** Findings that are printed of one part; the history has all. */
const shownFindings = 8;

function isOk(outcome: Outcome): boolean {
  return 'parts' in outcome && outcome.parts.length > 0 && outcome.parts.every(isPassed);
}

/** 0: everything passed; 1: something failed; 77: nothing failed, but something was skipped. */
export function exitCode(outcomes: readonly Outcome[]): 0 | 1 | 77 {
  if (outcomes.some((outcome) => !('skipped' in outcome) && !isOk(outcome))) return 1;
  return outcomes.every(isOk) ? 0 : 77;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

/** One line of the table, as cells. */
function cells(name: string, part: Part): readonly string[] {
  const { acknowledged, owed, received, lost, doubled, gaveUp, recoveryMs, drainMs } =
    part.judgement;
  return [
    name,
    part.name,
    String(acknowledged),
    `${received} of ${owed}`,
    String(lost),
    String(doubled),
    String(gaveUp),
    recoveryMs === undefined
      ? '-'
      : `${seconds(recoveryMs.median)}, max ${seconds(recoveryMs.max)}`,
    seconds(drainMs),
    isPassed(part) ? 'passed' : 'FAILED',
  ];
}

export function printOutcome(outcome: Outcome): void {
  if ('skipped' in outcome) {
    console.log(`  SKIPPED, not passed: needs ${outcome.skipped.join(', ')}`);
    return;
  }
  if ('broken' in outcome) {
    console.log(`  FAILED: ${outcome.broken}`);
    return;
  }
  for (const { name, judgement, findings, notes } of outcome.parts) {
    const { acknowledged, received, lost, doubled, faults, violations } = judgement;
    console.log(
      `  ${name}: acknowledged ${acknowledged}, received ${received}, lost ${lost}, doubled ${doubled}; faults ${JSON.stringify(faults)}`,
    );
    for (const note of notes) console.log(`    ${note}`);
    const texts = [
      ...violations.map(({ checker, text }) => `${checker}: ${text}`),
      ...findings.map((text) => `finding: ${text}`),
    ];
    for (const text of texts.slice(0, shownFindings)) console.log(`    ${text}`);
    if (texts.length > shownFindings) {
      console.log(`    and ${texts.length - shownFindings} more`);
    }
  }
}

const columns = [
  'scenario',
  'part',
  'acknowledged',
  'received',
  'lost',
  'doubled',
  'told',
  'recovery',
  'drained',
  '',
];

/** The last line says how many were skipped: a skipped scenario shows nothing. */
export function summaryOf(outcomes: readonly Outcome[]): string {
  const skipped = outcomes.flatMap((outcome) => ('skipped' in outcome ? [outcome.name] : []));
  const passed = outcomes.filter(isOk).length;
  const failed = outcomes.length - passed - skipped.length;
  const tail = skipped.length === 0 ? '' : ` (${skipped.join(', ')}: not passed)`;
  return `${passed} passed, ${failed} failed, ${skipped.length} skipped${tail}`;
}

export function printSummary(outcomes: readonly Outcome[]): void {
  const rows = outcomes.flatMap((outcome) => {
    if ('parts' in outcome) return outcome.parts.map((part) => cells(outcome.name, part));
    const why =
      'skipped' in outcome ? `SKIPPED: needs ${outcome.skipped.join(', ')}` : 'FAILED: broke off';
    return [[outcome.name, ...columns.slice(2).map(() => ''), why]];
  });
  const widths = columns.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  console.log(`\n${line(columns)}\n|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`);
  for (const row of rows) console.log(line(row));
  const took = outcomes.reduce(
    (sum, outcome) => sum + ('seconds' in outcome ? outcome.seconds : 0),
    0,
  );
  console.log(`\n${summaryOf(outcomes)}; ${Math.round(took)} s`);
}
