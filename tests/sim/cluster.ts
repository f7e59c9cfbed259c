/**
 * One simulated cluster: the nodes and clients of a world on one scheduler and one network, with the
 * knobs that faults turn. What dies comes back by itself after a while.
 */
import { hex, silentLog } from '@quicprochat/proto';
import { memoryNetwork, type MemoryNetwork } from '@quicprochat/proto/transport';
import { QpcError } from '@quicprochat/proto';
import type { Violation } from '../checkers/index.ts';
import { SimClient } from './client.ts';
import { Disk, type FileImage } from './disk.ts';
import { acceptedEntries } from './group-lines.ts';
import { NodeLedger } from './invariants.ts';
import { losesDisks, type Mix } from './mixes.ts';
import { noCallFaults } from './network.ts';
import { SimNode, type Surroundings } from './node.ts';
import { Process, SimRandom, type ClockError, type LogSink } from './process.ts';
import { ProofWatch } from './proofs.ts';
import type { Scheduler } from './scheduler.ts';
import { relaysToml, SimSwarms } from './swarm.ts';
import { Trace } from './trace.ts';
import { nodeConfig, nodeParts, type World } from './world.ts';

export interface ClusterOptions {
  readonly world: World;
  readonly mix: Mix;
  readonly seed: number;
  readonly scheduler: Scheduler;
  readonly onLine?: (line: string) => void;
  /** Of the planned operations and faults only these take place; unless told, all. */
  readonly only?: ReadonlySet<string>;
  /** Also the logs of nodes and clients, as lines of the trace that do not count for its hash. */
  readonly onLog?: LogSink;
}

/** Usual time of a commit (ms), and of one on a slow disk. */
const commitMs = { low: 0.2, high: 3, slowLow: 200, slowHigh: 1_500 } as const;

/** Backups of each node that are kept, besides the oldest. */
const backupsKept = 4;

interface Backup {
  readonly atMs: number;
  readonly image: FileImage;
}

export class Cluster implements Disposable {
  readonly mix: Mix;
  readonly scheduler: Scheduler;
  readonly trace: Trace;
  /** Names of the operations and planned faults that took place, in order. */
  readonly planned: string[] = [];
  readonly network: MemoryNetwork;
  readonly nodes: readonly SimNode[];
  readonly clients: readonly SimClient[];
  /** Undefined where the mix has none. */
  readonly swarms: SimSwarms | undefined;
  readonly ledger: NodeLedger;
  readonly proofs: ProofWatch;
  readonly violations: Violation[] = [];
  readonly slowDisks = new Set<string>();
  /** Hosts that take what is sent to them only after this long (ms). */
  readonly slowReaders = new Map<string, number>();
  /** Copies of the nodes' disks, oldest first; the first is what the run began with. */
  readonly backups = new Map<string, Backup[]>();
  readonly #disk = new Disk();
  /** Makes delays; a network of its own, as it is asked at every message. */
  readonly #delays: SimRandom;
  readonly #pairMs = new Map<string, number>();
  #isHealed = false;
  readonly #seedText: string;
  readonly #only: ReadonlySet<string> | undefined;
  #random: SimRandom;

  constructor({ world, mix, seed, scheduler, onLine, onLog, only }: ClusterOptions) {
    const seedText = `${mix.name} ${seed}`;
    this.#seedText = seedText;
    this.#only = only;
    this.mix = mix;
    this.ledger = new NodeLedger({
      mayExpire: mix.ttlMs !== undefined,
      mayRefuse: mix.limits !== '',
    });
    const signKeys = new Map(
      world.nodes.map(({ domain, secrets }) => [domain, secrets.signing.publicKey]),
    );
    this.proofs = new ProofWatch({
      signKeyOf: (domain) => signKeys.get(domain),
      wasSaid: (domain, place, tag) => this.ledger.wasSaid(domain, place, tag),
      mayForget: losesDisks(mix) || mix.people > 0,
    });
    this.scheduler = scheduler;
    this.trace = new Trace(scheduler, onLine);
    this.#random = this.randomOf('cluster');
    this.#delays = new SimRandom(seedText, 'delays');
    const keeper = new Process('network', scheduler, {
      random: new SimRandom(seedText, 'network'),
    });
    this.network = memoryNetwork(
      { ...keeper.runtime, log: silentLog },
      { delayMs: (from, to) => this.#delayMs(from, to), chunkBytes: mix.chunkBytes },
    );
    this.swarms =
      mix.swarm &&
      new SimSwarms({
        ...{ mix: mix.swarm, scheduler, trace: this.trace },
        random: this.randomOf('swarm'),
        hosts: [...world.nodes.map(({ domain }) => domain), ...world.clients.map((c) => c.name)],
        delayMs: (from, to) => this.#delayMs(from, to),
        isHealed: () => this.#isHealed,
      });
    const names = new Map(
      world.clients.flatMap(({ name, ridHex, deviceId }) => [
        [ridHex, name],
        [deviceId, name],
      ]),
    );
    /** A device by its name, and a channel by one that is the same in each run. */
    const logOf = (key: string): string =>
      names.get(key) ?? this.trace.label('channel', Buffer.from(key, 'hex'));
    const around: Surroundings = {
      ...(this.swarms && { swarms: this.swarms }),
      seed: seedText,
      scheduler,
      network: this.network,
      disk: this.#disk,
      trace: this.trace,
      ...(onLog === undefined ? {} : { onLog }),
      callFaults: () => (this.#isHealed ? noCallFaults : mix.calls),
      commitMs: (host, random) =>
        this.slowDisks.has(host)
          ? random.between(commitMs.slowLow, commitMs.slowHigh)
          : random.between(commitMs.low, commitMs.high),
      ttlMs: mix.ttlMs,
      sealed: mix.sealed,
      crashShare: (point) => (this.#isHealed ? 0 : (mix.crashes[point] ?? 0)),
      onAnswer: (near, far, request, response) => {
        const given = this.proofs.answered(far, request, response);
        return () => {
          for (const { place, tag, isDuplicate } of given) {
            this.trace.tell({
              ...{ kind: 'acknowledged', atMs: this.trace.nowMs, node: far, device: near },
              ...{ log: logOf(hex(place)), tag: this.trace.label('tag', tag), isDuplicate },
            });
          }
        };
      },
    };
    this.nodes = world.nodes.map((node, index) => {
      const relay = mix.swarm?.relays === true ? relaysToml(index) : '';
      const config = nodeConfig(node.domain, [mix.limits, relay].join('\n'));
      const parts = nodeParts(node, world.nodes, config);
      return new SimNode(parts, node.image, around, {
        clock: this.#clockError(),
        observer: {
          opened: (one) => this.ledger.opened(one),
          committed: (one, requests, outcome, isReplied) => {
            if (isReplied) {
              this.ledger.replied(one, requests, outcome);
              return;
            }
            const { trace } = this;
            for (const { log, seq, tag } of this.ledger.committed(one, requests, outcome)) {
              trace.tell({
                ...{ kind: 'row', atMs: trace.nowMs, node: one.domain, log: logOf(log) },
                ...{ storeId: one.storeIdHex, seq, tag: trace.label('tag', tag) },
              });
            }
            const labels = {
              nowMs: trace.nowMs,
              label: (what: string, bytes: Uint8Array) => trace.label(what, bytes),
            };
            const entries = acceptedEntries(one.domain, labels, requests, outcome);
            for (const line of entries) trace.tell(line);
          },
        },
      });
    });
    for (const node of this.nodes) this.backups.set(node.domain, [this.#backupOf(node)]);
    this.clients = world.clients.map(
      ({ image, ...parts }) =>
        new SimClient(parts, image, around, {
          clock: this.#clockError(),
          nameOf: (id) => names.get(id) ?? id,
        }),
    );
    for (const node of this.nodes) node.onDeath = () => this.#revive(node);
    for (const client of this.clients) client.onDeath = () => this.#revive(client);
  }

  get random(): SimRandom {
    return this.#random;
  }
  /** A stream of its own: what is drawn from it changes nothing for others. */
  randomOf(...name: readonly (string | number)[]): SimRandom {
    return new SimRandom(this.#seedText, ...name);
  }
  /** Work that draws from a stream of its own, for as long as it does not wait. */
  drawing(random: SimRandom, work: () => void): void {
    const before = this.#random;
    this.#random = random;
    try {
      work();
    } finally {
      this.#random = before;
    }
  }
  /** Whether a planned operation or fault takes place in this run; noted if it does. */
  takesPlace(name: string): boolean {
    if (this.#only?.has(name) === false) return false;
    this.planned.push(name);
    return true;
  }

  get isHealed(): boolean {
    return this.#isHealed;
  }

  nodeOf(client: SimClient): SimNode {
    const node = this.nodes.find(({ domain }) => domain === client.parts.home);
    if (node === undefined) throw new Error(`${client.name}: no node`);
    return node;
  }

  /** Everything starts. */
  start(): void {
    for (const node of this.nodes) this.background(this.startNode(node), `${node.domain} starts`);
    for (const client of this.clients) this.background(this.openClient(client), client.name);
  }

  async startNode(node: SimNode): Promise<void> {
    if (node.isUp) return;
    await node.start();
  }

  async openClient(client: SimClient): Promise<void> {
    if (client.isUp) return;
    const opened = await client.open();
    if (client.isUp) opened.start();
  }

  /** No fault happens from here on, and whatever is down comes back. */
  heal(): void {
    if (this.#isHealed) return;
    this.#isHealed = true;
    this.slowDisks.clear();
    this.slowReaders.clear();
    for (const { domain } of this.nodes) this.#disk.setFull(domain, false);
    const hosts = [...this.nodes.map(({ domain }) => domain), ...this.clients.map((c) => c.name)];
    for (const from of hosts) {
      for (const to of hosts) {
        this.network.heal(from, to);
        this.swarms?.heal(from, to);
      }
    }
    this.start();
    this.trace.tell({ kind: 'healed', atMs: this.trace.nowMs });
  }

  /** Work that nobody waits for: only an error that is not one of ours is a finding. */
  background(work: Promise<void>, what: string): void {
    work.catch((error: unknown) => {
      if (error instanceof QpcError) this.trace.note('cluster', what, error.reason);
      else this.find('no-surprise', `${what}: ${describe(error)}`);
    });
  }

  find(checker: string, text: string): void {
    this.violations.push({ checker, text });
  }

  /** Keeps a copy of a node's disk as it is now, of the last few. */
  backUp(node: SimNode): void {
    const backups = this.backups.get(node.domain) ?? [];
    backups.push(this.#backupOf(node));
    if (backups.length > backupsKept) backups.splice(1, 1);
  }

  /** A node dies, and when it comes back its disk is one of its backups, or the newest of them. */
  restore(node: SimNode, which: 'any' | 'newest' = 'any'): void {
    node.kill('restore');
    const backups = this.backups.get(node.domain) ?? [];
    const backup = which === 'any' ? this.random.pick(backups) : backups.at(-1);
    if (backup === undefined) throw new Error('a node without backups');
    node.restore(backup.image, this.random.chance(0.5));
    this.ledger.restored(node);
    const { domain } = node;
    this.trace.tell({
      kind: 'restored',
      atMs: this.trace.nowMs,
      node: domain,
      copyMs: backup.atMs,
    });
    // A backup that is newer than the disk is none any more.
    backups.splice(backups.indexOf(backup) + 1);
  }

  #backupOf(node: SimNode): Backup {
    return { atMs: this.trace.nowMs, image: node.image() };
  }

  /** The disk of a node takes no rows, for a while; what is there stays and is read. */
  fillDisk(node: SimNode): void {
    this.#disk.setFull(node.domain, true);
    this.scheduler.after(this.downMs(), () => this.#disk.setFull(node.domain, false));
  }

  /** Some time between the mix's bounds. */
  downMs(): number {
    return this.random.between(...this.mix.downMs);
  }

  [Symbol.dispose](): void {
    for (const client of this.clients) client.dispose();
    for (const node of this.nodes) node.dispose();
    this.#disk[Symbol.dispose]();
  }

  #revive(one: SimNode | SimClient): void {
    const isNode = one instanceof SimNode;
    const { downMs, clientDownMs = downMs } = this.mix;
    const bounds = isNode ? downMs : clientDownMs;
    this.scheduler.after(this.#isHealed ? 10 : this.random.between(...bounds), () => {
      this.background(
        isNode ? this.startNode(one) : this.openClient(one),
        isNode ? `${one.domain} starts` : one.name,
      );
    });
  }

  #clockError(): ClockError {
    const { clockMs, clockDrift } = this.mix;
    return {
      offsetMs: Math.round(this.random.between(-clockMs, clockMs)),
      rate: 1 + this.random.between(-clockDrift, clockDrift),
    };
  }

  #delayMs(from: string, to: string): number {
    const { delayMs, tailMs } = this.mix;
    const pair = `${from} ${to}`;
    let fixedMs = this.#pairMs.get(pair);
    if (fixedMs === undefined) {
      fixedMs = this.random.between(0.5, 0.5 + delayMs);
      this.#pairMs.set(pair, fixedMs);
    }
    const slowMs = this.slowReaders.get(to) ?? 0;
    return fixedMs + slowMs + this.#delays.share() ** 3 * tailMs;
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
