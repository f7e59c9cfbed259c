/**
 * One group over three nodes that everybody changes at once, each a client process of its own: the core adds,
 * removes, renames, makes new keys and talks, stays from beginning to end and must agree on everything. The others,
 * the movers, are put in and thrown out all the time; while they are in, they talk and make new keys, which is all
 * that the group lets a member do.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { restoreGroup } from '@quicprochat/client-lib/mls';
import type { ChangeEnd, GroupChange, GroupView, Ledger } from '../cluster/client-process.ts';
import type { Dice } from '../cluster/dice.ts';
import { NodeProcess } from '../cluster/node-process.ts';
import { readyMs, unhurried } from './company.ts';
import { hubEntries } from './hub-logs.ts';
import { parkedText } from './left-over.ts';
import { Recorder } from './recorder.ts';
import type { Stage } from './scenario.ts';
import { Talker, type Room } from './talker.ts';

const domains = ['red.example', 'blue.example', 'green.example'] as const;
/** Of the people, so many are movers: one in three. */
const moverShare = 3;
const joinMs = 240_000;
/** Mean pauses of one person: between two texts, and between two changes (ms). */
const textPauseMs = 3_000;
const changePauseMs = 6_000;

export interface StormOptions {
  readonly directory: string;
  readonly people: number;
  readonly dice: Dice;
  readonly cleanUp: Stage['cleanUp'];
}

/** How one change that a person asked for ended. */
export interface Wish extends ChangeEnd {
  readonly by: string;
  readonly change: GroupChange;
  /** From being asked to its end (ms). */
  readonly ms: number;
}

export class StormCrowd implements AsyncDisposable {
  readonly nodes: readonly NodeProcess[];
  readonly core: readonly Talker[];
  readonly movers: readonly Talker[];
  readonly recorder: Recorder;
  readonly wishes: Wish[] = [];
  readonly unexpectedEnds: string[] = [];
  /** What clients told, or kept, of hubs and key logs that were caught at something; whole since `testify`. */
  readonly alarms: string[] = [];
  /** What still waits at people that are in at the end, and for what; since `testify`. */
  readonly leftOver: string[] = [];
  /** Hubs that the group has, as the core sees it; since `testify`. */
  hubs = 0;
  readonly #dice: Dice;
  readonly #directory: string;
  readonly #stop = new AbortController();
  #room: Room | undefined;
  #busy: Promise<unknown> = Promise.resolve();
  #names = 0;

  private constructor(nodes: readonly NodeProcess[], options: StormOptions) {
    const { directory, people, dice } = options;
    this.nodes = nodes;
    this.#dice = dice;
    this.#directory = directory;
    this.recorder = new Recorder(join(directory, 'history.jsonl'));
    const talkers = Array.from({ length: people }, (_, index) => {
      const node = nodes[index % nodes.length];
      if (node === undefined) throw new Error('a node for everybody');
      const name = `person${index}`;
      return new Talker(name, node, join(directory, `${name}.db`), this.recorder);
    });
    const isMover = (index: number): boolean => index % moverShare === moverShare - 1 && index > 2;
    this.core = talkers.filter((_, index) => !isMover(index));
    this.movers = talkers.filter((_, index) => isMover(index));
    for (const node of nodes) {
      node.onUnexpectedEnd = (why) => {
        this.recorder.fault('end', node.domain, why);
        this.unexpectedEnds.push(why);
      };
    }
  }

  static async gather(options: StormOptions): Promise<StormCrowd> {
    mkdirSync(options.directory, { recursive: true });
    const nodes = await Promise.all(
      domains.map((domain) => NodeProcess.init(domain, join(options.directory, domain), unhurried)),
    );
    for (const node of nodes) {
      node.federateWith(nodes.filter((other) => other !== node));
      node.readyMs = readyMs;
    }
    const crowd = new StormCrowd(nodes, options);
    options.cleanUp(() => crowd.#kill());
    try {
      await crowd.#begin();
      return crowd;
    } catch (error) {
      await crowd[Symbol.asyncDispose]();
      throw error;
    }
  }

  get people(): readonly Talker[] {
    return [...this.core, ...this.movers];
  }

  /** The room as the judges see it: only the core is owed everything. */
  get room(): Room {
    if (this.#room === undefined) throw new Error('no group yet');
    return this.#room;
  }

  async #begin(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.start()));
    // A few at a time: a password costs memory and time on purpose.
    for (const talker of this.people) await talker.register();
    const [creator, ...others] = this.core;
    if (creator === undefined) throw new Error('nobody there');
    const { idHex, name } = await creator.createRoom('storm', others);
    this.#room = { idHex, name, members: this.core };
    await Promise.all(others.map((talker) => talker.joined([this.room], joinMs)));
    // Who may change everything is an admin; the creator says so, one after the other.
    for (const talker of others) {
      const end = await this.#change(creator, { kind: 'admin', userId: talker.userId });
      if (end.outcome === 'refused') throw new Error(`${talker.userId}: ${end.reason}`);
    }
  }

  /** Everybody talks and changes the group, until `calm`. */
  storm(): void {
    const { signal } = this.#stop;
    this.#busy = Promise.all([
      ...this.core.map((talker, index) =>
        talker.talk([this.room], textPauseMs / 2, this.#dice.branch(100 + index), signal),
      ),
      ...this.movers.map((talker, index) =>
        this.#moverTalks(talker, this.#dice.branch(200 + index)),
      ),
      ...this.core.map((talker, index) => this.#wishAway(talker, this.#dice.branch(300 + index))),
      ...this.movers.map((talker, index) =>
        this.#moverWishes(talker, this.#dice.branch(400 + index)),
      ),
    ]);
    this.#busy.catch(() => undefined);
  }

  /** No new words and no new wishes; resolves when every wish ended. */
  async calm(): Promise<void> {
    this.recorder.now({ kind: 'healed' });
    this.#stop.abort();
    await this.#busy;
  }

  /** What each of the core sees of the group now. */
  async views(): Promise<readonly (GroupView | null)[]> {
    return Promise.all(this.core.map((talker) => this.#view(talker)));
  }

  /**
   * Undefined once all of the core see the same, and have all that anybody said, and the movers that are in
   * by then see it too; else what is missing.
   */
  async unsettled(): Promise<string | undefined> {
    const flushed = await Promise.allSettled(
      this.people.map(({ process }) => process.ask({ do: 'flush', timeoutMs: 2_000 })),
    );
    const behind = flushed.filter(({ status }) => status === 'rejected').length;
    if (behind > 0) return `${behind} people have copies that their node does not have`;
    const views = await this.views();
    const states = new Set(views.map((view) => JSON.stringify(view)));
    if (states.size > 1) return `${states.size} different views: ${[...states].join(' ')}`;
    const [state] = states;
    for (const talker of this.#moversIn(views[0])) {
      const view = JSON.stringify(await this.#view(talker));
      if (view !== state) return `${talker.userId} is in and sees ${view} instead of ${state}`;
    }
    const ledgers = await Promise.all(
      this.people.map(async ({ process }) => (await process.ask({ do: 'ledger' })) as Ledger),
    );
    const said = ledgers.flatMap((ledger) => ledger.said.map(({ text }) => text));
    const lacking = ledgers.slice(0, this.core.length).flatMap((ledger, index) => {
      const has = new Set([...ledger.heard, ...ledger.said.map(({ text }) => text)]);
      const missing = said.filter((text) => !has.has(text));
      return missing.length === 0 ? [] : [`${this.core[index]?.userId} lacks ${missing.length}`];
    });
    return lacking.length === 0 ? undefined : lacking.join(', ');
  }

  /** Closes everything; the stores tell what happened. */
  async testify(): Promise<void> {
    const [view] = await this.views();
    const present = new Set([...this.core, ...this.#moversIn(view)]);
    await Promise.all(this.people.map((talker) => talker.close()));
    const directory = {
      devices: new Map(this.people.map((talker) => [talker.deviceHex(), talker.userId])),
      rooms: new Map([[this.room.idHex, this.room]]),
    };
    this.hubs = this.#hubsOf(this.core[0]);
    this.#lookAtLeftOver(present);
    for (const talker of this.people) {
      for (const line of talker.testimony(directory)) {
        if (line.kind !== 'rest') this.recorder.write(line);
        // Who was taken out keeps what it could not open for a while; nobody owes it the keys.
        else if (present.has(talker)) this.recorder.write(line);
      }
    }
    await Promise.all(this.nodes.map((node) => node.kill()));
    for (const node of this.nodes) {
      for (const line of hubEntries(node)) this.recorder.write(line);
    }
  }

  #hubsOf(talker: Talker | undefined): number {
    if (talker === undefined) return 0;
    using store = talker.store();
    const state = store.groups.state(new Uint8Array(Buffer.from(this.room.idHex, 'hex')));
    return state === undefined ? 0 : restoreGroup({ ...state, past: [] }).hubs.length;
  }

  #lookAtLeftOver(present: ReadonlySet<Talker>): void {
    const stores = new Map(this.people.map((talker) => [talker, talker.store()]));
    const all = [...stores.values()];
    try {
      for (const [talker, store] of stores) {
        const forks = store.groupLog.forks().length;
        if (forks > 0) this.alarms.push(`${talker.userId} keeps ${forks} proofs against hubs`);
        this.alarms.push(...talker.alarms);
        const holes = store.resend.holes().filter(({ state }) => state === 'OPEN').length;
        if (store.inbox.parkedSize('all').rows + holes === 0) continue;
        const name = `${talker.userId} (${present.has(talker) ? 'in' : 'out'}, ${holes} holes)`;
        this.leftOver.push(`${name}: ${parkedText(store, all)}`);
      }
    } finally {
      for (const store of all) store.close();
    }
  }

  #moversIn(view: GroupView | null | undefined): readonly Talker[] {
    return this.movers.filter(({ userId }) => view?.members.includes(userId));
  }

  async #moverTalks(talker: Talker, dice: Dice): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await pause(textPauseMs, dice, signal);
      if (signal.aborted || !(await this.#isIn(talker))) continue;
      // It may be thrown out between the two questions: then it cannot speak, and hears why.
      await talker.say(this.room).catch(() => undefined);
    }
  }

  async #moverWishes(talker: Talker, dice: Dice): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await pause(changePauseMs, dice, signal);
      if (signal.aborted || !(await this.#isIn(talker))) continue;
      this.wishes.push(await this.#wish(talker, { kind: 'rekey' }));
    }
  }

  /** As far as it knows. */
  async #isIn(talker: Talker): Promise<boolean> {
    const known = (await talker.process.ask({ do: 'conversations' })) as readonly string[];
    if (!known.includes(this.room.idHex)) return false;
    const view = await this.#view(talker);
    return view?.members.includes(talker.userId) === true;
  }

  async #wishAway(talker: Talker, dice: Dice): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await pause(changePauseMs, dice, signal);
      if (signal.aborted) return;
      this.wishes.push(await this.#wish(talker, this.#anyChange(dice)));
    }
  }

  async #wish(talker: Talker, change: GroupChange): Promise<Wish> {
    const startMs = performance.now();
    const end = await this.#change(talker, change);
    return { ...end, by: talker.userId, change, ms: performance.now() - startMs };
  }

  #anyChange(dice: Dice): GroupChange {
    const mover = this.movers[dice.int(this.movers.length)];
    const kind = dice.int(4);
    if (kind === 0 && mover !== undefined) return { kind: 'add', userId: mover.userId };
    if (kind === 1 && mover !== undefined) return { kind: 'remove', userId: mover.userId };
    if (kind === 2) return { kind: 'rekey' };
    this.#names += 1;
    return { kind: 'rename', name: `storm ${this.#names}` };
  }

  async #change(talker: Talker, change: GroupChange): Promise<ChangeEnd> {
    const { idHex: conversationHex } = this.room;
    return (await talker.process.ask({ do: 'change', conversationHex, change })) as ChangeEnd;
  }

  async #view(talker: Talker): Promise<GroupView | null> {
    const { idHex: conversationHex } = this.room;
    return (await talker.process.ask({ do: 'group', conversationHex })) as GroupView | null;
  }

  async #kill(): Promise<void> {
    await Promise.all(this.people.map(({ process }) => process.kill()));
    await Promise.all(this.nodes.map((node) => node.kill()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#kill();
    for (const node of this.nodes) {
      const lines = node.logLines.map((line) => `${line}\n`).join('');
      writeFileSync(join(this.#directory, `${node.domain}.log`), lines);
    }
    this.recorder[Symbol.dispose]();
  }
}

async function pause(meanMs: number, dice: Dice, signal: AbortSignal): Promise<void> {
  await sleep(dice.int(2 * meanMs), undefined, { signal }).catch(() => undefined);
}
