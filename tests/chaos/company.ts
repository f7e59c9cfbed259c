/**
 * The workload of most scenarios: two federated nodes, four people on them, three MLS groups over
 * both, everybody talks. At the end all processes are closed and their stores tell the history.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Ledger } from '../cluster/client-process.ts';
import type { Dice } from '../cluster/dice.ts';
import type { Launch } from '../cluster/launch.ts';
import { NodeProcess } from '../cluster/node-process.ts';
import { hubEntries } from './hub-logs.ts';
import { Recorder } from './recorder.ts';
import type { Stage } from './scenario.ts';
import { Talker, type Room } from './talker.ts';

/** Chaos is about loss, not about how fast one device may send. */
export const unhurried = ['send', 'read', 'relay', 'cheap', 'auth']
  .map((name) => `[rates.${name}]\nper_second = 10000\nburst = 10000\n`)
  .join('');

const people = [
  ['alice', 0],
  ['bob', 1],
  ['carol', 0],
  ['dave', 1],
] as const;
const joinMs = 120_000;
/** Receipts wait this long for company (ms), and this long everything sealed may take to leave. */
const receiptMs = 1_500;
const flushMs = 20_000;
/** A loaded machine takes its time, and a slow start is no finding (ms). */
export const readyMs = 600_000;

export interface CompanyOptions {
  readonly directory: string;
  readonly dice: Dice;
  /** Takes what ends the processes, should the driver be stopped. */
  readonly cleanUp: Stage['cleanUp'];
  /** Mean pause between two texts of one person (ms). */
  readonly meanPauseMs?: number;
  /** Added to the configuration of both nodes. */
  readonly config?: string;
  /** Where the nodes' files lie, when not in `directory`. */
  readonly nodeDirectories?: readonly [red: string, blue: string];
  /** ip:port of the nodes, where they are not on loopback. */
  readonly listen?: readonly [red: string, blue: string];
  /** How the processes of each side start: the nodes, and their people. */
  readonly launches?: readonly [red: Launch, blue: Launch];
  readonly clientLaunches?: readonly [red: Launch, blue: Launch];
  /** What people of each side dial instead of the node's own address. */
  readonly dialAddress?: (node: NodeProcess) => string;
  /** Runs between `qpcd init` and the first start. */
  readonly prepare?: (nodes: readonly NodeProcess[]) => Promise<void> | void;
}

/** Members of the chaos: `red` and `blue` are up, everybody is in all rooms. */
export class Company implements AsyncDisposable {
  readonly red: NodeProcess;
  readonly blue: NodeProcess;
  readonly talkers: readonly Talker[];
  readonly recorder: Recorder;
  rooms: readonly Room[] = [];
  /** Ends of nodes that nobody here brought about. */
  readonly unexpectedEnds: string[] = [];
  readonly #options: CompanyOptions;
  readonly #stop = new AbortController();
  #talking: Promise<unknown> = Promise.resolve();

  private constructor(options: CompanyOptions, [red, blue]: readonly NodeProcess[]) {
    if (red === undefined || blue === undefined) throw new Error('two nodes are needed');
    this.#options = options;
    this.red = red;
    this.blue = blue;
    mkdirSync(options.directory, { recursive: true });
    this.recorder = new Recorder(join(options.directory, 'history.jsonl'));
    this.talkers = people.map(([name, side]) => {
      const node = this.nodes[side];
      const talker = new Talker(name, node, join(options.directory, `${name}.db`), this.recorder);
      talker.process.launch = options.clientLaunches?.[side] ?? {};
      return talker;
    });
    for (const node of this.nodes) {
      node.onUnexpectedEnd = (why) => {
        this.recorder.fault('end', node.domain, why);
        this.unexpectedEnds.push(why);
      };
    }
  }

  static async gather(options: CompanyOptions): Promise<Company> {
    const { directory, nodeDirectories, listen, launches, prepare } = options;
    const config = unhurried + (options.config ?? '');
    const nodes = await Promise.all(
      ['red.example', 'blue.example'].map((domain, side) =>
        NodeProcess.init(
          domain,
          nodeDirectories?.[side] ?? join(directory, domain),
          config,
          listen?.[side],
        ),
      ),
    );
    for (const node of nodes) node.federateWith(nodes.filter((other) => other !== node));
    await prepare?.(nodes);
    for (const [index, node] of nodes.entries()) {
      node.launch = launches?.[index] ?? {};
      node.readyMs = readyMs;
    }
    const company = new Company(options, nodes);
    options.cleanUp(() => company.#kill());
    try {
      await company.#begin();
      return company;
    } catch (error) {
      await company[Symbol.asyncDispose]();
      throw error;
    }
  }

  get nodes(): readonly [red: NodeProcess, blue: NodeProcess] {
    return [this.red, this.blue];
  }

  async #begin(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.start()));
    const { dialAddress } = this.#options;
    await Promise.all(this.talkers.map((talker) => talker.register(dialAddress?.(talker.node))));
    const [alice, bob, carol, dave] = this.talkers;
    if (!alice || !bob || !carol || !dave) throw new Error('four people are needed');
    this.rooms = [
      await alice.createRoom('all', [bob, carol, dave]),
      await bob.createRoom('pair', [alice]),
      await carol.createRoom('other pair', [dave]),
    ];
    await Promise.all(this.talkers.map((talker) => talker.joined(this.rooms, joinMs)));
  }

  /** Everybody talks until `quiet`. */
  talk(): void {
    const { dice, meanPauseMs = 100 } = this.#options;
    this.#talking = Promise.all(
      this.talkers.map((talker, index) =>
        talker.talk(this.rooms, meanPauseMs, dice.branch(10 + index), this.#stop.signal),
      ),
    );
    // Waited for in `quiet`; until then it must not end the driver.
    this.#talking.catch(() => undefined);
  }

  /** How many texts the nodes have taken and people have read so far. */
  get progress(): { readonly accepted: number; readonly read: number } {
    const sum = (sizes: readonly number[]): number => sizes.reduce((all, size) => all + size, 0);
    return {
      accepted: sum(this.talkers.map(({ accepted }) => accepted.size)),
      read: sum(this.talkers.map(({ read }) => read.size)),
    };
  }

  /** SIGKILL of a node. */
  async killNode(node: NodeProcess): Promise<void> {
    this.recorder.fault('kill', node.domain);
    await node.kill();
  }

  async startNode(node: NodeProcess): Promise<void> {
    this.recorder.fault('start', node.domain);
    await node.start();
  }

  /** All faults are over. Nobody says anything new; resolves when everything said has arrived, or late. */
  async settle(timeoutMs: number): Promise<'settled' | 'late'> {
    this.recorder.now({ kind: 'healed' });
    this.#stop.abort();
    await this.#talking;
    for (const endMs = performance.now() + timeoutMs; ;) {
      if (await this.#hasEverybodyEverything()) return 'settled';
      if (performance.now() > endMs) return 'late';
      await sleep(500);
    }
  }

  async #hasEverybodyEverything(): Promise<boolean> {
    const flushed = await Promise.allSettled(
      this.talkers.map(({ process }) => process.ask({ do: 'flush', timeoutMs: 1_000 })),
    );
    if (flushed.some(({ status }) => status === 'rejected')) return false;
    const ledgers = await Promise.all(
      this.talkers.map(({ process }) => process.ask({ do: 'ledger' }) as Promise<Ledger>),
    );
    const heard = ledgers.map((ledger) => new Set(ledger.heard));
    return ledgers.every(({ said }, speaker) =>
      said.every(({ text, conversationHex }) => {
        const members = this.rooms.find(({ idHex }) => idHex === conversationHex)?.members ?? [];
        return members.every((member) => {
          const listener = this.talkers.indexOf(member);
          return listener === speaker || heard[listener]?.has(text) === true;
        });
      }),
    );
  }

  /** Closes everything; the stores tell what happened. */
  async testify(): Promise<void> {
    // Receipts for the last texts may still be on their way; what stays unsent is a finding.
    for (let tries = 0; tries < 3; tries += 1) {
      await sleep(receiptMs);
      await Promise.allSettled(
        this.talkers.map(({ process }) => process.ask({ do: 'flush', timeoutMs: flushMs })),
      );
    }
    await Promise.all(this.talkers.map((talker) => talker.close()));
    const directory = {
      devices: new Map(this.talkers.map((talker) => [talker.deviceHex(), talker.userId])),
      rooms: new Map(this.rooms.map((room) => [room.idHex, room])),
    };
    for (const talker of this.talkers) {
      for (const line of talker.testimony(directory)) this.recorder.write(line);
    }
    await Promise.all(this.nodes.map((node) => node.kill()));
    for (const node of this.nodes) {
      for (const line of hubEntries(node)) this.recorder.write(line);
    }
  }

  async #kill(): Promise<void> {
    await Promise.all(this.talkers.map(({ process }) => process.kill()));
    await Promise.all(this.nodes.map((node) => node.kill()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#kill();
    for (const node of this.nodes) {
      writeFileSync(
        join(this.#options.directory, `${node.domain}.log`),
        node.logLines.map((line) => `${line}\n`).join(''),
      );
    }
    this.recorder[Symbol.dispose]();
  }
}
