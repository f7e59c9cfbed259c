/**
 * Question: how long does a killed node take from its start to its first durable OK, by the number of
 * rows that it holds: half of them in inboxes, half in the outbox to a peer that is away? Baseline: the
 * same with 100 rows. Directly: `node tests/bench/recovery.ts [rows ...]`, as up to 1 000 000.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openNodeStore, parseConfig, readKeyFile } from '@quicprochat/nodes';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { NodeProcess } from '../cluster/node-process.ts';
import { dialDevice, enqueueTo, registerDevice, type DeviceKeys } from './devices.ts';
import { unboundedConfig } from './enqueue.ts';
import { machineLine, type BenchReport, type Comparison, type Round } from './measure.ts';
import { printTable, takeTurns } from './report.ts';
import { Scratch, whileRunning } from './scratch.ts';

const rounds = 3;
const payloadBytes = 256;
/** Rows on their way into the store at a time. */
const atOnce = 4_096;
const ttlMs = 20 * 86_400_000;
/** Of load before each kill: the write-ahead log is not empty then (rows). */
const underLoad = 200;
const peerDomain = 'blue.example';
const config =
  unboundedConfig.replace('[limits]\n', '[limits]\noutbox_rows_per_peer = 100000000\n') +
  '[rates.cheap]\nper_second = 100000\nburst = 100000\n';

/** A node with so many rows, ready to be killed. */
class FullNode {
  readonly #node: NodeProcess;
  readonly #device: DeviceKeys;

  private constructor(node: NodeProcess, device: DeviceKeys) {
    this.#node = node;
    this.#device = device;
  }

  static async make(scratch: Scratch, rows: number): Promise<FullNode> {
    const directory = join(scratch.directory, `rows-${rows}`);
    const node = await NodeProcess.init('red.example', directory, config);
    scratch.own([node]);
    const device = await whileRunning([node], () => registerDevice(node, 'alice'));
    await fill(node, device.rid, rows);
    return new FullNode(node, device);
  }

  /** Kills it under load and starts it; from the start of its process to the first OK (ms). */
  async recover(): Promise<Round> {
    const { pid } = this.#node;
    if (pid === undefined) await this.#node.start();
    await this.#enqueue(underLoad);
    await this.#node.kill();
    const startMs = performance.now();
    await this.#node.start();
    const readyMs = performance.now() - startMs;
    await this.#enqueue(1);
    return { value: performance.now() - startMs, notes: { readyMs } };
  }

  async stop(): Promise<void> {
    await this.#node.kill();
  }

  async #enqueue(count: number): Promise<void> {
    const connection = await dialDevice(this.#device);
    for (let n = 0; n < count; n += 1) {
      await enqueueTo(connection, this.#device, systemRandom.bytes(16), payloadBytes);
    }
    await connection.close(0, 'done');
  }
}

/** Straight into the store of a stopped node. */
async function fill(node: NodeProcess, rid: Uint8Array, rows: number): Promise<void> {
  const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
  const base =
    'domain = "red.example"\nlisten = "127.0.0.1:1"\ndatabase = "x"\ndatabase_key_file = "y"\n';
  await using store = await openNodeStore({
    path: node.databaseFile,
    key: readKeyFile(join(node.directory, 'database.key')),
    limits: parseConfig(base + config, 'bench').store,
    runtime,
  });
  for (let done = 0; done < rows; done += atOnce) {
    await Promise.all(
      Array.from({ length: Math.min(atOnce, rows - done) }, (_, index) => {
        const row = {
          rid,
          kind: 1,
          mid: systemRandom.bytes(16),
          payload: systemRandom.bytes(payloadBytes),
          ttlMs,
        };
        return index % 2 === 0
          ? store.enqueue(row)
          : store.enqueueRemote(peerDomain, { ...row, rid: systemRandom.bytes(32) });
      }),
    );
  }
}

async function compare(scratch: Scratch, sizes: readonly number[]): Promise<Comparison[]> {
  const unit = 'ms';
  const sides = [];
  for (const rows of sizes) {
    const full = await FullNode.make(scratch, rows);
    sides.push({
      name: `${rows} rows`,
      measure: async () => {
        const round = await full.recover();
        await full.stop();
        return round;
      },
    });
  }
  const [baseline = [], ...others] = await takeTurns('start to OK', unit, rounds, sides);
  return others.map((candidate, index) => ({
    name: `recovery, ${sizes[index + 1]} rows over ${sizes[0]}`,
    unit,
    baseline,
    candidate,
  }));
}

export async function recovery(
  scratch: Scratch,
  sizes: readonly number[] = [100, 10_000, 100_000],
): Promise<BenchReport> {
  return {
    question: 'recovery: ms from the start of a killed node to its first OK (less is better)',
    rows: await compare(scratch, sizes),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await using scratch = new Scratch();
  console.log(machineLine());
  const asked = process.argv.slice(2).map(Number);
  printTable([await recovery(scratch, asked.length > 0 ? [100, ...asked] : undefined)]);
  console.log(machineLine());
}
