/**
 * `node tests/bench/katie.ts [LABELS...]`. Question: how many updates and searches does a core do for
 * our log and for the Go reference implementation, VRFs and signatures included, at 1e3, 1e4 and 1e5
 * labels? katie has its LevelDB store, which it does not sync. Ours is asked twice: over the memory
 * store, which is the log alone, and over a node's, where each entry is encrypted and on disk before it
 * counts. One thread proves; counted is the processor time of all, so that a busy machine hits none.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import {
  encode,
  KtLog,
  MemoryTreeStore,
  nativeSigner,
  nativeSuite,
  nativeVrfProver,
  noteKey,
  searchResponse,
  SignatureType,
  type Configuration,
  type TreeStore,
} from '@quicprochat/kt-log';
import { createNodeStore, openNodeStore, parseConfig, type NodeStore } from '@quicprochat/nodes';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { Dice } from '../cluster/dice.ts';
import { KatieProgram, whyAbsent } from '../interop/katie/katie-process.ts';
import { machineLine, type BenchReport, type Comparison, type Round } from './measure.ts';
import { printTable, takeTurns, writeResults } from './report.ts';
import { Scratch } from './scratch.ts';

const rounds = 3;
const valueBytes = 200;
/** Labels of one entry while loading; what one entry may carry. */
const loadBatch = 255;
const batches = [1, 64, 255];
/** Operations of one round. */
const updates = 1024;
const searches = 600;
/** Before the first round, by each: a node runs for longer than its compiler needs. */
const warmUp = 256;
const seed = (n: number): Uint8Array => new Uint8Array(32).fill(n);
const durations = { maxAheadMs: 300_000, maxBehindMs: 3_600_000, windowMs: 86_400_000 };

/** One of the two logs. */
interface Subject {
  /** One new version of each label, `batch` labels in one entry. */
  update(labels: readonly number[], batch: number): Promise<Cost>;
  /** The greatest version of each label, for somebody new, as bytes. */
  search(labels: readonly number[]): Promise<Cost>;
}
interface Cost {
  readonly cpuUs: number;
  readonly bytes: number;
}

class Katie implements Subject, AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  constructor(program: KatieProgram) {
    const env = { ...process.env, GOMAXPROCS: '1' };
    this.#child = spawn(program.bench, ['bench'], { env, stdio: ['pipe', 'pipe', 'inherit'] });
    const { stdout } = this.#child;
    if (stdout === null) throw new TypeError('no pipe');
    this.#answers = createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  async open(folder: string): Promise<void> {
    const seeds = { signatureSeed: seed(1), vrfSeed: seed(3) };
    await this.#ask({ op: 'open', folder, config: { ...seeds, ...durations, lifetimeMs: 0 } });
  }
  update(labels: readonly number[], batch: number): Promise<Cost> {
    return this.#ask({ op: 'update', labels, batch, bytes: valueBytes });
  }
  search(labels: readonly number[]): Promise<Cost> {
    return this.#ask({ op: 'search', labels });
  }

  async #ask(message: Readonly<Record<string, unknown>>): Promise<Cost> {
    const line = JSON.stringify(message, (_key, value: unknown) =>
      value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value,
    );
    this.#child.stdin?.write(`${line}\n`);
    const answer = await this.#answers.next();
    if (answer.done === true) throw new Error('the Go program ended');
    return JSON.parse(answer.value) as Cost;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#child, 'close');
    this.#child.stdin?.end();
    await closed;
  }
}

class Ours implements Subject {
  readonly #log: KtLog;
  /** Greatest version of each label. */
  readonly #greatest = new Map<number, number>();

  private constructor(log: KtLog) {
    this.#log = log;
  }

  static async open(store: TreeStore): Promise<Ours> {
    const keys = {
      treeHead: nativeSigner(seed(1)),
      note: nativeSigner(seed(2)),
      vrf: nativeVrfProver(seed(3)),
    };
    const config: Configuration = {
      cipherSuite: 2,
      mode: 1,
      signaturePublicKey: keys.treeHead.publicKey,
      vrfPublicKey: keys.vrf.publicKey,
      maxAheadMs: durations.maxAheadMs,
      maxBehindMs: durations.maxBehindMs,
      reasonableMonitoringWindowMs: durations.windowMs,
    };
    const { publicKey } = keys.note;
    const key = noteKey(nativeSuite.sha256, 'ours.example', SignatureType.ed25519, publicKey);
    const log = await KtLog.open({
      config,
      identity: { origin: 'ours.example', key },
      keys,
      store,
      suite: nativeSuite,
      clock: systemClock,
      random: systemRandom,
      // The pace that a node lets new labels in with is not what is measured here.
      sequencerLimits: { batchMs: 0, newLeavesPerSecond: 1e9, newLeavesBurst: 1e9 },
    });
    return new Ours(log);
  }

  update(labels: readonly number[], batch: number): Promise<Cost> {
    return costOf(async () => {
      for (let at = 0; at < labels.length; at += batch) {
        const written = labels.slice(at, at + batch).map((number) => {
          const greatest = this.#greatest.get(number) ?? -1;
          this.#greatest.set(number, greatest + 1);
          const values = [new Uint8Array(valueBytes)];
          return this.#log.append({ label: labelOf(number), greatest, values });
        });
        await Promise.all(written);
      }
      return 0;
    });
  }

  search(labels: readonly number[]): Promise<Cost> {
    const structure = searchResponse(1, false);
    return costOf(async () => {
      let bytes = 0;
      for (const label of labels) {
        bytes += encode(structure, await this.#log.search({ label: labelOf(label) })).length;
      }
      return bytes;
    });
  }
}

/** A node's store in an empty folder, with the limits of a default configuration. */
async function nodeStore(folder: string): Promise<NodeStore> {
  const path = join(folder, 'node.db');
  const key = systemRandom.bytes(32);
  const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
  const files = `database = "${path}"\ndatabase_key_file = "${path}.key"\n`;
  const config = `domain = "ours.example"\nlisten = "127.0.0.1:5001"\n${files}`;
  const { store: limits } = parseConfig(config, 'bench');
  await createNodeStore({ path, key, runtime });
  return openNodeStore({ path, key, runtime, limits });
}

const labelOf = (number: number): Uint8Array => new TextEncoder().encode(`user-${number}`);

async function costOf(work: () => Promise<number>): Promise<Cost> {
  const before = process.cpuUsage();
  const bytes = await work();
  const { user, system } = process.cpuUsage(before);
  return { cpuUs: user + system, bytes };
}

/** Operations per second of one core. */
function roundOf({ cpuUs, bytes }: Cost, operations: number): Round {
  const notes = { clientCpuUs: cpuUs / operations, answerBytes: bytes / operations };
  return { value: (operations / cpuUs) * 1e6, notes };
}

async function compare(
  labels: number,
  program: KatieProgram,
  scratch: Scratch,
): Promise<Comparison[]> {
  const dice = new Dice(labels);
  await using katie = new Katie(program);
  await katie.open(join(scratch.directory, `leveldb-${labels}`));
  const memory = await Ours.open(new MemoryTreeStore());
  await using store = await nodeStore(scratch.directory);
  const onDisk = await Ours.open(store.keyLog);
  const candidates = { memory, 'node store': onDisk };
  const all = Array.from({ length: labels }, (_, i) => i);
  const rows: Comparison[] = [];
  const baseline = [roundOf(await katie.update(all, loadBatch), labels)];
  for (const [where, ours] of Object.entries(candidates)) {
    const name = `${labels} labels, ${where}, first versions, ${loadBatch} in an entry`;
    const candidate = [roundOf(await ours.update(all, loadBatch), labels)];
    rows.push({ name, unit: 'updates/s', baseline, candidate });
  }
  const measure = async (
    what: string,
    unit: string,
    count: number,
    work: (subject: Subject, chosen: readonly number[]) => Promise<Cost>,
  ): Promise<void> => {
    let chosen: readonly number[] = [];
    const choose = (of = count): void => {
      // No label twice in one entry: an entry takes one update of a label.
      const start = dice.int(labels);
      const step = labels % 7 === 0 ? 11 : 7;
      chosen = Array.from({ length: of }, (_, i) => (start + i * step) % labels);
    };
    choose(Math.min(warmUp, count));
    await work(katie, chosen);
    for (const ours of Object.values(candidates)) await work(ours, chosen);
    const turns = Object.entries(candidates).map(([where, ours]) => ({
      name: `ours, ${where}`,
      measure: async () => roundOf(await work(ours, chosen), count),
    }));
    const [baseline = [], ...measured] = await takeTurns(
      `${labels} labels, ${what}`,
      unit,
      rounds,
      [
        {
          name: 'katie',
          measure: async () => {
            choose();
            return roundOf(await work(katie, chosen), count);
          },
        },
        ...turns,
      ],
    );
    for (const [i, where] of Object.keys(candidates).entries()) {
      const candidate = measured[i] ?? [];
      rows.push({ name: `${labels} labels, ${where}, ${what}`, unit, baseline, candidate });
    }
  };
  for (const batch of batches) {
    await measure(
      `updates, ${batch} in an entry`,
      'updates/s',
      Math.min(updates, labels),
      (subject, chosen) => subject.update(chosen, batch),
    );
  }
  await measure('searches, any', 'searches/s', searches, (subject, chosen) =>
    subject.search(chosen),
  );
  // People look up the same few again and again; our log keeps what it proved for them.
  const often = Array.from({ length: Math.min(250, labels) }, (_, i) => i);
  await katie.search(often);
  for (const ours of Object.values(candidates)) await ours.search(often);
  await measure('searches, asked before', 'searches/s', searches, (subject) =>
    subject.search(Array.from({ length: searches }, (_, i) => often[i % often.length] ?? 0)),
  );
  return rows;
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
