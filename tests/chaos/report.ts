/** How a run of chaos is printed: each part, then one table and one line that says it all. */
import { isPassed, type Part, type SkippedPart } from './scenario.ts';

export type Outcome =
  | { readonly name: string; readonly skipped: readonly string[] }
  | {
      readonly name: string;
      readonly parts: readonly (Part | SkippedPart)[];
      readonly seconds: number;
    }
  /** The scenario itself did not come to its end. */
  | { readonly name: string; readonly broken: string; readonly seconds: number };

/** Findings that are printed of one part; the history has all. */
const shownFindings = 8;

/** `partly skipped`: what ran of it passed, and a part did not run. */
export type Verdict = 'passed' | 'partly skipped' | 'skipped' | 'failed';

export function verdictOf(outcome: Outcome): Verdict {
  if ('skipped' in outcome) return 'skipped';
  if ('broken' in outcome) return 'failed';
  const ran = outcome.parts.filter((part): part is Part => !('skipped' in part));
  // Who shows nothing at all has not passed.
  if (outcome.parts.length === 0 || !ran.every(isPassed)) return 'failed';
  if (ran.length === outcome.parts.length) return 'passed';
  return ran.length === 0 ? 'skipped' : 'partly skipped';
}

/** 0: everything passed; 1: something failed; 77: nothing failed, but something was skipped, or a part of it. */
export function exitCode(outcomes: readonly Outcome[]): 0 | 1 | 77 {
  const verdicts = outcomes.map(verdictOf);
  if (verdicts.includes('failed')) return 1;
  return verdicts.every((verdict) => verdict === 'passed') ? 0 : 77;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

const needs = (lacking: readonly string[]): string => `needs ${lacking.join(', ')}`;

/** A line of the table for what has no numbers, as cells. */
function emptyCells(name: string, part: string, why: string): readonly string[] {
  return [name, part, ...columns.slice(3).map(() => ''), why];
}

/** One line of the table, as cells. */
function cells(name: string, part: Part | SkippedPart): readonly string[] {
  if ('skipped' in part) return emptyCells(name, part.name, `SKIPPED: ${needs(part.skipped)}`);
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
    console.log(`  SKIPPED, not passed: ${needs(outcome.skipped)}`);
    return;
  }
  if ('broken' in outcome) {
    console.log(`  FAILED: ${outcome.broken}`);
    return;
  }
  for (const part of outcome.parts) {
    if ('skipped' in part) {
      console.log(`  ${part.name}: SKIPPED, not passed: ${needs(part.skipped)}`);
      continue;
    }
    const { name, judgement, findings, notes } = part;
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

/** The last line says what was skipped, wholly or in part: that shows nothing. */
export function summaryOf(outcomes: readonly Outcome[]): string {
  const named = (verdict: Verdict): readonly string[] =>
    outcomes.flatMap((outcome) => (verdictOf(outcome) === verdict ? [outcome.name] : []));
  const count = (verdict: Verdict): string => `${named(verdict).length} ${verdict}`;
  const skipped = [...named('skipped'), ...named('partly skipped')];
  const tail = skipped.length === 0 ? '' : ` (${skipped.join(', ')}: not passed)`;
  const partly = named('partly skipped').length === 0 ? '' : `, ${count('partly skipped')}`;
  return `${count('passed')}, ${count('failed')}, ${count('skipped')}${partly}${tail}`;
}

export function printSummary(outcomes: readonly Outcome[]): void {
  const rows = outcomes.flatMap((outcome) => {
    if ('parts' in outcome) return outcome.parts.map((part) => cells(outcome.name, part));
    const why = 'skipped' in outcome ? `SKIPPED: ${needs(outcome.skipped)}` : 'FAILED: broke off';
    return [emptyCells(outcome.name, '', why)];
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
