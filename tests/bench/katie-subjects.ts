/**
 * The two logs that the bench `katie` compares, each over one of its stores: ours in this process,
 * katie's in a Go program. Both tell what a step cost in processor time of all their threads.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import {
  encode,
  KtLog,
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
import type { KatieProgram } from '../interop/katie/katie-process.ts';

const valueBytes = 200;
const seed = (n: number): Uint8Array => new Uint8Array(32).fill(n);
const durations = { maxAheadMs: 300_000, maxBehindMs: 3_600_000, windowMs: 86_400_000 };

/** One of the two logs. */
export interface Subject {
  /** One new version of each label, `batch` labels in one entry. */
  update(labels: readonly number[], batch: number): Promise<Cost>;
  /** The greatest version of each label, for somebody new, as bytes. */
  search(labels: readonly number[]): Promise<Cost>;
}
export interface Cost {
  readonly cpuUs: number;
  readonly bytes: number;
}

/** `memory` and `leveldb` are katie's own; `synced` is LevelDB with a sync before a commit counts. */
export type KatieStore = 'memory' | 'leveldb' | 'synced';

export class Katie implements Subject, AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  constructor(program: KatieProgram) {
    const env = { ...process.env, GOMAXPROCS: '1' };
    this.#child = spawn(program.bench, ['bench'], { env, stdio: ['pipe', 'pipe', 'inherit'] });
    const { stdout } = this.#child;
    if (stdout === null) throw new TypeError('no pipe');
    this.#answers = createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  async open(store: KatieStore, folder: string): Promise<void> {
    const seeds = { signatureSeed: seed(1), vrfSeed: seed(3) };
    await this.#ask({
      op: 'open',
      store,
      folder,
      config: { ...seeds, ...durations, lifetimeMs: 0 },
    });
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

export class Ours implements Subject {
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
export async function nodeStore(folder: string): Promise<NodeStore> {
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
