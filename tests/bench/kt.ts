/**
 * Question: what does the key-transparency log cost as it grows, in the node's encrypted store, VRFs
 * and signatures included, and what does it cost over plain RFC 6962 inclusion proofs? `npm run
 * bench -- kt` takes 1e3, 1e4 and 1e5 labels, together two to four minutes; `node tests/bench/kt.ts
 * LABELS...` any others: about a minute for each 1e5, 1.6 GB of disk for 1e6. Rates are per second of
 * processor time, all threads together.
 */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import type { KtAnswer, KtJob } from './kt-peer.ts';
import { machineLine, median, type BenchReport, type Comparison, type Round } from './measure.ts';
import { askPeer } from './peer-process.ts';
import { printTable, writeResults } from './report.ts';
import { Scratch } from './scratch.ts';

const defaultSizes = [1000, 10_000, 100_000];
const peer = new URL('./kt-peer.ts', import.meta.url);
/** What a log of a million labels may take on a slow machine. */
const waitMs = 3_600_000;

/** What is compared with the RFC 6962 tree of the same log, and in what unit. */
const overPlain = [
  ['search served', 'inclusion served', 'answers/s'],
  ['search verified', 'inclusion verified', 'answers/s'],
  ['search verified, noble', 'inclusion verified', 'answers/s'],
] as const;
/** What is compared with the same of the smallest log. */
const overSmallest = [
  ['fill', 'labels/s'],
  ['lone updates', 'updates/s'],
  ['batched updates', 'updates/s'],
  ['search served', 'answers/s'],
  ['search served, first time', 'answers/s'],
  ['answer, version 0', 'bytes'],
  ['answer, version 15 at most', 'bytes'],
  ['search verified', 'answers/s'],
  ['audited, one leaf an entry', 'entries/s'],
  ['audited leaves', 'leaves/s'],
  ['disk', 'bytes/label'],
  ['disk, lone updates', 'bytes/update'],
  ['disk, batched updates', 'bytes/update'],
  ['restart', 'ms'],
  ['restart, log alone', 'ms'],
  ['memory', 'MiB'],
] as const;

export async function kt(scratch: Scratch, sizes = defaultSizes): Promise<BenchReport> {
  const rows: Comparison[] = [];
  let smallest: KtAnswer | undefined;
  for (const labels of sizes) {
    const directory = mkdtempSync(join(scratch.directory, `${labels}-`));
    const job: KtJob = { labels, directory };
    const startMs = performance.now();
    // The peer is of this folder and answers with rounds.
    const answer = (await askPeer(peer, job, waitMs)) as KtAnswer;
    smallest ??= answer;
    const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
    console.log(`  ${labels} labels, in ${seconds} s`);
    for (const [name, rounds] of Object.entries(answer)) console.log(`    ${line(name, rounds)}`);
    for (const [name, plain, unit] of overPlain) {
      const [baseline = [], candidate = []] = [answer[plain], answer[name]];
      rows.push({ name: `${labels} labels, ${name}, over RFC 6962`, unit, baseline, candidate });
    }
    if (answer === smallest) continue;
    for (const [name, unit] of overSmallest) {
      const [baseline = [], candidate = []] = [smallest[name], answer[name]];
      const over = `${labels} labels over ${sizes[0]}, ${name}`;
      rows.push({ name: over, unit, baseline, candidate });
    }
  }
  return { question: 'kt: a key log as it grows, and over plain inclusion proofs', rows };
}

function line(name: string, rounds: readonly Round[]): string {
  const values = rounds.map(({ value }) => Number(value.toPrecision(4)));
  return `${name}: ${median(values)} (${values.join(', ')})`;
}

if (import.meta.main) {
  const sizes = process.argv.slice(2).map(Number);
  const started = new Date();
  const before = machineLine();
  console.log(before);
  await using scratch = new Scratch();
  const reports = [await kt(scratch, sizes.length > 0 ? sizes : defaultSizes)];
  printTable(reports);
  const after = machineLine();
  console.log(`\nbefore: ${before}\nafter:  ${after}`);
  console.log(`kept: ${writeResults(started, { before, after }, reports)}`);
}
