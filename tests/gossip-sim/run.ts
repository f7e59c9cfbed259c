/**
 * One seed: honest nodes, maybe a liar and a node that gossips junk, through a while of failures, then
 * until everything that has to come true has, and what was wrong on the way.
 */
import { checkEvidence, isAgainst, nativeSuite } from '@quicprochat/kt-log';
import type { Log } from '@quicprochat/proto';
import { Scheduler } from '../sim/scheduler.ts';
import { identityOf } from './histories.ts';
import { JunkNode } from './junk.ts';
import { Liar } from './liar.ts';
import { SimLinks } from './links.ts';
import { Network } from './network.ts';
import { HonestNode } from './node.ts';
import { planOf, type Plan } from './plan.ts';
import { SimSwarms } from './swarm.ts';

/** After everything is connected again: two rounds of pulls, which come every ten minutes (ms). */
const healMaxMs = 25 * 60_000;
/** An honest run is looked at so long after it agreed (ms). */
const calmMs = 20_000;

export interface RunResult {
  readonly seed: number;
  /** Without a lie nothing may ever be found; with one that was told to two, everything has to be. */
  readonly kind: 'honest' | 'lie' | 'untold lie';
  readonly plan: Plan;
  readonly violations: readonly string[];
  /** From the end of all failures until every honest node had evidence, or all agreed (ms). */
  readonly healedMs: number | undefined;
  readonly simulatedMs: number;
  readonly counts: Readonly<Record<string, number>>;
  /** Kinds of evidence that nodes hold at the end. */
  readonly kinds: readonly string[];
}

export async function runSeed(
  seed: number,
  options?: { readonly isHonest: boolean },
): Promise<RunResult> {
  return new Run(planOf(seed, options)).run();
}

class Run {
  readonly #plan: Plan;
  readonly #scheduler = new Scheduler();
  readonly #violations = new Set<string>();
  readonly #linkNet: Network;
  readonly #swarmNet: Network;
  readonly #links: SimLinks;
  readonly #swarms: SimSwarms;
  readonly #nodes: readonly HonestNode[];
  readonly #liar: Liar | undefined;
  readonly #junk: JunkNode | undefined;
  readonly #done: Promise<unknown>[] = [];

  constructor(plan: Plan) {
    this.#plan = plan;
    const { dice, honest, weather } = plan;
    this.#linkNet = new Network(this.#scheduler, dice.branch(1), weather);
    this.#swarmNet = new Network(this.#scheduler, dice.branch(2), weather);
    this.#links = new SimLinks(this.#linkNet, dice.branch(3));
    this.#swarms = new SimSwarms(this.#swarmNet, (from, bytes) => this.#leaves(from, bytes));
    const all = [...honest, plan.liar?.domain, plan.junk].filter((one) => one !== undefined);
    const parts = (index: number) => ({
      scheduler: this.#scheduler,
      dice: dice.branch(10 + index),
      links: this.#links,
      swarms: this.#swarms,
      log: this.#log,
    });
    const others = (domain: string): string[] => all.filter((one) => one !== domain);
    this.#nodes = honest.map((domain, i) => new HonestNode(domain, others(domain), parts(i)));
    if (plan.liar !== undefined) {
      this.#liar = new Liar({ ...plan.liar, peers: honest }, parts(100));
    }
    if (plan.junk !== undefined) this.#junk = new JunkNode(plan.junk, honest, parts(200));
    this.#forbid();
  }

  /** Ways that this run does not have. */
  #forbid(): void {
    const { honest, carrier, isPair, junk } = this.#plan;
    for (const [i, a] of honest.entries()) {
      for (const b of honest.slice(0, i)) {
        if (carrier === 'swarm' || !isPair.link(a, b)) this.#linkNet.forbid(a, b);
        if (carrier === 'links' || !isPair.swarm(a, b)) this.#swarmNet.forbid(idOf(a), idOf(b));
      }
      if (carrier !== 'links') continue;
      for (const other of ['zz.example', junk ?? '']) {
        if (other !== '') this.#swarmNet.forbid(idOf(a), idOf(other));
      }
    }
  }

  readonly #log: Log = {
    debug: () => undefined,
    info: () => undefined,
    warn: (event, fields) => {
      if (event === 'p2p gossip' || event === 'p2p publish') this.#unexpected(event, fields);
    },
    error: (event, fields) => {
      const isFine = ['a key log is convicted', 'audit', 'evidence not taken'].includes(event);
      if (!isFine) this.#unexpected(event, fields);
    },
  };

  #unexpected(event: string, fields: object | undefined): void {
    // A peer that shows too much evidence is told so.
    const text = `${event} ${JSON.stringify(fields)}`;
    if (!text.includes('too much at once')) this.#violations.add(`unexpected: ${text}`);
  }

  async run(): Promise<RunResult> {
    const { dice, busyMs, appends, kills, cuts, partitions } = this.#plan;
    for (const node of this.#nodes) await this.#driven(node.start());
    await this.#driven(this.#liar?.start());
    await this.#driven(this.#junk?.start());
    const times = (count: number, work: () => void): void => {
      for (let i = 0; i < count; i += 1) this.#scheduler.after(dice.int(busyMs), work);
    };
    times(appends, () => this.#append());
    times(kills, () => this.#kill());
    times(cuts, () => this.#cut());
    times(partitions, () => this.#partition());
    await this.#scheduler.run(busyMs);
    this.#linkNet.heal();
    this.#swarmNet.heal();
    for (const node of this.#nodes) if (!node.isUp) await this.#driven(node.start());
    await this.#driven(this.#liar?.finish());
    const beganMs = this.#scheduler.nowMs;
    const healedMs = await this.#untilHealed(beganMs);
    await this.#judge(healedMs);
    await Promise.all(this.#done);
    return this.#result(healedMs);
  }

  /** Lets time pass until the work is done. */
  async #driven(work: Promise<unknown> | undefined): Promise<void> {
    let isDone = false;
    const done = work?.finally(() => (isDone = true));
    await this.#scheduler.run(this.#scheduler.nowMs);
    while (done !== undefined && !isDone && (await this.#scheduler.step()));
    await done;
  }

  #pick<T>(from: readonly T[]): T | undefined {
    return from[this.#plan.dice.int(Math.max(1, from.length))];
  }

  #append(): void {
    const writers = [...this.#nodes, this.#liar, this.#liar, this.#junk];
    this.#pick(writers.filter((one) => one !== undefined))?.append();
  }

  #kill(): void {
    const node = this.#pick(this.#nodes.filter(({ isUp }) => isUp));
    node?.kill();
    this.#scheduler.after(2_000 + this.#plan.dice.int(60_000), () => {
      if (node !== undefined && !node.isUp) this.#done.push(node.start());
    });
  }

  /** Two nodes lose each other: their connections at once, or their way for a while. */
  #cut(): void {
    const { dice } = this.#plan;
    const [a, b] = [this.#pick(this.#nodes)?.id.domain, this.#pick(this.#nodes)?.id.domain];
    if (a === undefined || b === undefined || a === b) return;
    if (dice.chance(0.4)) {
      this.#linkNet.drop(a, b);
      this.#swarmNet.drop(idOf(a), idOf(b));
    } else this.#separate([a], [b]);
  }

  #partition(): void {
    const { dice, honest } = this.#plan;
    const side = honest.filter(() => dice.chance(0.5));
    this.#separate(
      side,
      honest.filter((domain) => !side.includes(domain)),
    );
  }

  #separate(some: readonly string[], others: readonly string[]): void {
    for (const a of some) {
      for (const b of others) {
        this.#linkNet.cut(a, b);
        this.#swarmNet.cut(idOf(a), idOf(b));
      }
    }
  }

  /** Evidence leaves a node: it has to be on that node's disk by then. */
  #leaves(peerId: string, bytes: Uint8Array): void {
    const node = this.#nodes.find((one) => one.peerId === peerId);
    if (node === undefined) return;
    const isHeld = node
      .evidence()
      .then((held) => held.some((one) => Buffer.compare(one.bytes, bytes) === 0));
    this.#done.push(
      isHeld.then((is) => {
        if (!is)
          this.#violations.add(`${node.id.domain} published evidence that it had not stored`);
      }),
    );
  }

  async #untilHealed(beganMs: number): Promise<number | undefined> {
    const isLying = this.#liar !== undefined && (await this.#isTold());
    for (;;) {
      const elapsedMs = this.#scheduler.nowMs - beganMs;
      if (await this.#isHealed()) {
        if (!isLying) await this.#scheduler.run(this.#scheduler.nowMs + calmMs);
        return elapsedMs;
      }
      if (elapsedMs >= healMaxMs) return undefined;
      await this.#scheduler.run(this.#scheduler.nowMs + (elapsedMs < 10_000 ? 100 : 2_000));
    }
  }

  /** Honest logs are replayed wherever there is a link to them, and the liar is convicted if it lied. */
  async #isHealed(): Promise<boolean> {
    for (const node of this.#nodes) {
      if (this.#liar !== undefined && !(await node.isConvicting(this.#liar.id.origin)))
        return false;
      for (const other of this.#nodes) {
        if (node === other || !this.#hasLink(node, other)) continue;
        const followed = await node.followed(other.id.origin);
        if (followed?.size !== (await other.ownSize())) return false;
      }
    }
    return true;
  }

  #hasLink(a: HonestNode, b: HonestNode): boolean {
    const { carrier, isPair } = this.#plan;
    return carrier !== 'swarm' && isPair.link(a.id.domain, b.id.domain);
  }

  /** Whether what honest nodes hold of the liar's log is of both its faces, or spoiled. */
  async #isTold(): Promise<boolean> {
    const liar = this.#liar;
    if (liar === undefined) return false;
    const faces = new Set<number>();
    for (const node of this.#nodes) {
      if (await node.isConvicting(liar.id.origin)) return true;
      for (const { size, root } of await node.heads(liar.id.origin)) {
        const face = await liar.faceOf(size, root, 'root');
        if (face !== undefined) faces.add(face);
      }
      const followed = await node.followed(liar.id.origin);
      if (followed === undefined) continue;
      const face = await liar.faceOf(followed.size, followed.rfc6962Root, 'rfc6962Root');
      if (face !== undefined) faces.add(face);
    }
    return faces.size === 2;
  }

  async #judge(healedMs: number | undefined): Promise<void> {
    const isTold = await this.#isTold();
    for (const node of this.#nodes) {
      const { domain } = node.id;
      const held = await node.evidence();
      for (const { origin, bytes, kind } of held) {
        if (origin !== this.#liar?.id.origin) {
          this.#violations.add(`${domain} convicted ${origin} (${kind}), which is honest`);
          continue;
        }
        const { config, identity } = this.#liar.id;
        const keys = { origin, key: identity.key, config };
        if (!isAgainst(checkEvidence(nativeSuite, bytes), keys)) {
          this.#violations.add(`${domain} holds evidence that proves nothing`);
        }
      }
      for (const other of [...this.#nodes, ...(this.#junk === undefined ? [] : [this.#junk])]) {
        const status = await node.status(other.id.origin);
        if (status === 'forked' || status === 'invalid' || status === 'suspect') {
          this.#violations.add(`${domain} calls ${other.id.origin} ${status}`);
        }
      }
      if (isTold && this.#liar !== undefined) {
        if (!(await node.isConvicting(this.#liar.id.origin)) || held.length === 0) {
          this.#violations.add(`${domain} has no evidence of a lie that was told`);
        }
      }
    }
    if (healedMs === undefined && (isTold || this.#liar === undefined)) {
      this.#violations.add('not everything that has to be was there in time');
    }
    for (const [key, roots] of this.#liar?.cosigned ?? []) {
      if (roots.size > 1) this.#violations.add(`cosigned twice: ${key}`);
    }
  }

  async #result(healedMs: number | undefined): Promise<RunResult> {
    const kinds = new Set<string>();
    for (const node of this.#nodes) for (const { kind } of await node.evidence()) kinds.add(kind);
    const isTold = await this.#isTold();
    return {
      seed: this.#plan.seed,
      kind: this.#liar === undefined ? 'honest' : isTold ? 'lie' : 'untold lie',
      plan: this.#plan,
      violations: [...this.#violations],
      healedMs,
      simulatedMs: this.#scheduler.nowMs,
      counts: {
        nodes: this.#nodes.length,
        steps: this.#scheduler.steps,
        kills: this.#nodes.reduce((sum, { deaths }) => sum + deaths, 0),
        connections: this.#linkNet.counts.connections + this.#swarmNet.counts.connections,
        lost: this.#linkNet.counts.lost + this.#swarmNet.counts.lost,
        gossiped: this.#swarms.gossiped,
        junk: this.#junk?.sent ?? 0,
      },
      kinds: [...kinds],
    };
  }
}

const idOf = (domain: string): string => identityOf(domain).swarm.peerId;
