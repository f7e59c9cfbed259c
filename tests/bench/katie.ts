/**
 * `node tests/bench/katie.ts [LABELS...]`. Question: how many updates and searches does a core do for
 * our log and for the Go reference implementation, VRFs and signatures included, at 1e3, 1e4 and 1e5
 * labels? Three comparisons, because the two promise different things about their disks:
 *
 * 1. both in memory: the logs alone;
 * 2. ours in a node's store, where each entry is encrypted and synced before it counts, over katie's
 *    LevelDB as it is, which neither encrypts nor syncs;
 * 3. the same over LevelDB that syncs each commit.
 *
 * One thread proves on each side; counted is the processor time of all, so that a busy machine hits none.
 */
import { join } from 'node:path';
import { MemoryTreeStore } from '@quicprochat/kt-log';
import { Dice } from '../cluster/dice.ts';
import { KatieProgram, whyAbsent } from '../interop/katie/katie-process.ts';
import { Katie, nodeStore, Ours, type Cost, type Subject } from './katie-subjects.ts';
import { machineLine, type BenchReport, type Comparison, type Round } from './measure.ts';
import { printTable, takeTurns, writeResults } from './report.ts';
import { Scratch } from './scratch.ts';

const rounds = 3;
/** Labels of one entry while loading; what one entry may carry. */
const loadBatch = 255;
const batches = [1, 64, 255];
/** Operations of one round. */
const updates = 1024;
const searches = 600;
/** Before the first round, by each: a node runs for longer than its compiler needs. */
const warmUp = 256;
/** Labels that each has before it is measured, with numbers of their own. */
const warmLabels = Array.from({ length: 1024 }, (_, i) => 1_000_000_000 + i);

/** Operations per second of one core. */
function roundOf({ cpuUs, bytes }: Cost, operations: number): Round {
  const notes = { clientCpuUs: cpuUs / operations, answerBytes: bytes / operations };
  return { value: (operations / cpuUs) * 1e6, notes };
}

/** What stands over what. */
const pairs = [
  ['in memory, over katie in memory', 'memory', 'katie memory'],
  ['node store, over katie on LevelDB', 'node store', 'katie leveldb'],
  ['node store, over katie on LevelDB that syncs', 'node store', 'katie synced'],
] as const;

class Comparer {
  readonly rows: Comparison[] = [];
  readonly #labels: number;
  readonly #subjects: Readonly<Record<string, Subject>>;
  readonly #dice: Dice;

  constructor(labels: number, subjects: Readonly<Record<string, Subject>>) {
    this.#labels = labels;
    this.#subjects = subjects;
    this.#dice = new Dice(labels);
  }

  /** Labels of which none comes twice: an entry takes one update of a label. */
  some(count: number): readonly number[] {
    const start = this.#dice.int(this.#labels);
    const step = this.#labels % 7 === 0 ? 11 : 7;
    return Array.from({ length: count }, (_, i) => (start + i * step) % this.#labels);
  }

  /** Rounds of all subjects in turn over the same labels, which `choose` gives once for each round. */
  async measure(
    what: string,
    unit: string,
    choose: () => readonly number[],
    work: (subject: Subject, chosen: readonly number[]) => Promise<Cost>,
  ): Promise<void> {
    let chosen: readonly number[] = [];
    const names = Object.keys(this.#subjects);
    const turns = Object.entries(this.#subjects).map(([name, subject], i) => ({
      name,
      measure: async () => {
        if (i === 0) chosen = choose();
        return roundOf(await work(subject, chosen), chosen.length);
      },
    }));
    const measured = await takeTurns(`${this.#labels} labels, ${what}`, unit, rounds, turns);
    for (const [over, ours, katie] of pairs) {
      const [baseline = [], candidate = []] = [katie, ours].map((n) => measured[names.indexOf(n)]);
      this.rows.push({
        name: `${this.#labels} labels, ${what}, ${over}`,
        unit,
        baseline,
        candidate,
      });
    }
  }

  async warm(work: (subject: Subject) => Promise<unknown>): Promise<void> {
    for (const subject of Object.values(this.#subjects)) await work(subject);
  }
}

async function compare(
  labels: number,
  program: KatieProgram,
  scratch: Scratch,
): Promise<Comparison[]> {
  await using katieMemory = new Katie(program);
  await using katieLevel = new Katie(program);
  await using katieSynced = new Katie(program);
  await katieMemory.open('memory', '');
  await katieLevel.open('leveldb', join(scratch.directory, `leveldb-${labels}`));
  await katieSynced.open('synced', join(scratch.directory, `synced-${labels}`));
  await using store = await nodeStore(scratch.directory);
  const comparer = new Comparer(labels, {
    'katie memory': katieMemory,
    'katie leveldb': katieLevel,
    'katie synced': katieSynced,
    memory: await Ours.open(new MemoryTreeStore()),
    'node store': await Ours.open(store.keyLog),
  });
  await comparer.warm((subject) => subject.update(warmLabels, loadBatch));
  let loaded = 0;
  const part = Math.ceil(labels / rounds);
  await comparer.measure(
    `first versions, ${loadBatch} in an entry`,
    'updates/s',
    () => {
      const length = Math.min(part, labels - loaded);
      loaded += length;
      return Array.from({ length }, (_, i) => loaded - length + i);
    },
    (subject, chosen) => subject.update(chosen, loadBatch),
  );
  for (const batch of batches) {
    const count = Math.min(updates, labels);
    const warming = comparer.some(Math.min(warmUp, count));
    await comparer.warm((subject) => subject.update(warming, batch));
    await comparer.measure(
      `updates, ${batch} in an entry`,
      'updates/s',
      () => comparer.some(count),
      (subject, chosen) => subject.update(chosen, batch),
    );
  }
  const search = (subject: Subject, chosen: readonly number[]): Promise<Cost> =>
    subject.search(chosen);
  const warming = comparer.some(Math.min(warmUp, searches));
  await comparer.warm((subject) => subject.search(warming));
  await comparer.measure('searches, any', 'searches/s', () => comparer.some(searches), search);
  // People look up the same few again and again; our log keeps what it proved for them.
  const often = Array.from({ length: Math.min(250, labels) }, (_, i) => i);
  await comparer.warm((subject) => subject.search(often));
  const again = Array.from({ length: searches }, (_, i) => often[i % often.length] ?? 0);
  await comparer.measure('searches, asked before', 'searches/s', () => again, search);
  return comparer.rows;
}

const absent = await whyAbsent();
if (absent === undefined) {
  const sizes = process.argv.slice(2).map(Number);
  const started = new Date();
  const before = machineLine();
  console.log(before);
  const rows: Comparison[] = [];
  using program = await KatieProgram.build('bench');
  for (const labels of sizes.length > 0 ? sizes : [1000, 10_000, 100_000]) {
    await using scratch = new Scratch();
    rows.push(...(await compare(labels, program, scratch)));
  }
  const question = 'katie: updates and searches per second of a core, over the Go reference';
  const reports: BenchReport[] = [{ question, rows }];
  printTable(reports);
  const after = machineLine();
  console.log(`\nbefore: ${before}\nafter:  ${after}`);
  console.log(`kept: ${writeResults(started, { before, after }, reports)}`);
} else {
  console.log(`skipped, no comparison: ${absent}`);
}
