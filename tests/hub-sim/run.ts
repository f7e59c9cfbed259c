/**
 * One run of three hubs under faults from a seed: members submit anywhere, ask for takeovers, hubs die
 * between any two steps, links break, a disk is an older one. Afterwards everything heals, and all
 * must agree and go on.
 */
import { commitHash, type ParsedEntry } from '@quicprochat/proto';
import {
  create,
  GroupTakeoverRequestSchema,
  type SignedGroupEntry,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import { SimRandom } from '../sim/process.ts';
import { creator, domains, HubCluster } from './cluster.ts';
import type { HubStart, SimHub } from './hub.ts';
import type { Observer } from './observer.ts';
import { welcomed } from './welcomes.ts';

/** How much goes wrong in a run. */
export interface HubMix {
  /** Simulated time with faults (ms). */
  readonly lengthMs: number;
  /** Share of commits to disk at whose points a hub dies. */
  readonly crashes: number;
  readonly lost: number;
  readonly twice: number;
  /** Whether one disk becomes an older one. */
  readonly restores: boolean;
}

export interface HubReport {
  readonly seed: number;
  readonly violations: readonly string[];
  /** Accepted entries, entry 0 among them. */
  readonly entries: number;
  readonly submitted: number;
  readonly acknowledged: number;
  readonly deaths: number;
  /** No disk has an entry that counts: the only ones that did were lost. It ends there. */
  readonly isSilent: boolean;
  readonly counts: Observer['counts'];
}

export async function runHubs(
  starts: readonly HubStart[],
  seed: number,
  mix: HubMix,
): Promise<HubReport> {
  using run = new HubRun(starts, seed, mix);
  return await run.go();
}

/**
 * Wishes once all has healed, 15 s apart. Each hub is asked to take over with every sixth: so the one that remembers may show
 * both others after 90 s that they forgot, the next wish has them wait two minutes for members, they ask again a
 * minute after a question that was void, and three commits come in then.
 */
const settleTries = 30;

class HubRun implements Disposable {
  readonly #seed: number;
  readonly #mix: HubMix;
  readonly #cluster: HubCluster;
  readonly #random: SimRandom;
  readonly #faults: { lost: number; twice: number };
  readonly #observer: Observer;
  readonly #requests: SubmitCommitRequest[] = [];
  readonly #acknowledged = new Set<string>();
  #entry: SignedGroupEntry | undefined;
  #first: ParsedEntry | undefined;
  #isHealed = false;
  #isSilent = false;
  #deaths = 0;

  constructor(starts: readonly HubStart[], seed: number, mix: HubMix) {
    this.#seed = seed;
    this.#mix = mix;
    this.#faults = { lost: mix.lost, twice: mix.twice };
    this.#cluster = new HubCluster({
      ...{ starts, seed, faults: this.#faults },
      dies: (_hub, dice) => !this.#isHealed && dice.chance(mix.crashes),
      onDeath: (hub) => {
        this.#deaths += 1;
        const downMs = this.#isHealed ? 10 : this.#random.between(100, 15_000);
        this.#cluster.scheduler.after(downMs, () => this.#cluster.background(hub.start()));
      },
    });
    this.#random = this.#cluster.random;
    this.#observer = this.#cluster.observer;
  }

  async go(): Promise<HubReport> {
    for (const hub of this.#cluster.hubs) this.#cluster.background(hub.start());
    await this.#cluster.scheduler.run(1_000);
    this.#createGroup();
    this.#plan(200, 2_000, () => this.#member());
    this.#plan(2_000, 12_000, () => this.#breakLink());
    this.#plan(5_000, 30_000, () => this.#random.pick(this.#cluster.hubs).kill());
    if (this.#mix.restores) {
      const backUpMs = this.#random.between(0, this.#mix.lengthMs / 2);
      const picked = this.#random.pick(this.#cluster.hubs);
      // The first hub's disk is older than the group, and its creator begins it there once more.
      const [leader = picked] = this.#cluster.hubs;
      const lies = new SimRandom(this.#seed, 'creator').chance(0.3);
      const hub = lies ? leader : picked;
      if (!lies) this.#cluster.scheduler.after(backUpMs, () => hub.backUp());
      const restoreMs = this.#random.between(backUpMs, this.#mix.lengthMs);
      const [away, later] = this.#random.chance(0.5) ? this.#othersOf(hub) : [];
      // What counts with the word of the one that forgets, another one has not heard, and then meets it alone.
      if (away !== undefined)
        this.#cluster.scheduler.after(restoreMs - 6_000, () => this.#isolate(away));
      this.#cluster.scheduler.after(restoreMs, () => {
        hub.restore();
        this.#observer.forget(hub);
        if (lies) this.#beginAnew(leader);
        if (later === undefined) return;
        this.#cluster.wire.healAll();
        this.#isolate(later);
        this.#cluster.scheduler.after(15_000, () => this.#cluster.wire.healAll());
      });
    }
    await this.#cluster.scheduler.run(this.#mix.lengthMs);
    this.#heal();
    await this.#settle();
    return {
      seed: this.#seed,
      violations: this.#observer.violations,
      entries: this.#observer.accepted.length,
      submitted: this.#requests.length,
      acknowledged: this.#acknowledged.size,
      deaths: this.#deaths,
      isSilent: this.#isSilent,
      counts: this.#observer.counts,
    };
  }

  /** Its client tries until it has an answer. */
  #createGroup(): void {
    const entry = this.#cluster.group.sign(undefined);
    this.#entry = entry;
    const [leader] = this.#cluster.hubs;
    const attempt = async (): Promise<void> => {
      const set = leader?.life?.set;
      if (set === undefined) return;
      await set.create(entry, domains, creator);
      this.#first = this.#observer.accepted[0];
    };
    const repeat = (): void => {
      if (this.#first !== undefined) return;
      this.#cluster.background(attempt());
      this.#cluster.scheduler.after(6_000, repeat);
    };
    repeat();
  }

  #beginAnew(leader: SimHub): void {
    if (this.#isHealed) return;
    const attempt = async (): Promise<void> => {
      await leader.life?.set.create(this.#entry, domains, creator);
    };
    this.#cluster.background(attempt());
    this.#cluster.scheduler.after(3_000, () => this.#beginAnew(leader));
  }

  #member(): void {
    const { accepted } = this.#observer;
    const hub = this.#random.pick(this.#cluster.hubs);
    const set = hub.life?.set;
    const parent = this.#random.chance(0.9) ? accepted.at(-1) : accepted.at(-2);
    if (set === undefined || parent === undefined) return;
    const isRepeat = this.#requests.length > 0 && this.#random.chance(0.2);
    const request = isRepeat ? this.#random.pick(this.#requests) : this.#newCommit(parent);
    if (this.#random.chance(0.15)) {
      const submit = this.#random.chance(0.5) ? { submit: request } : {};
      const takeover = create(GroupTakeoverRequestSchema, {
        group: this.#cluster.group.groupId,
        ...submit,
      });
      this.#cluster.background(set.takeover(takeover, { fromHub: false }));
      return;
    }
    this.#cluster.background(this.#submit(hub, request));
  }

  #newCommit(parent: ParsedEntry): SubmitCommitRequest {
    const request = this.#cluster.newCommit(parent);
    this.#requests.push(request);
    return request;
  }

  async #submit(hub: SimHub, request: SubmitCommitRequest): Promise<void> {
    const entry = await hub.life?.set.submit(request, { fromHub: false });
    if (entry !== undefined) this.#acknowledged.add(hexOf(commitHash(request.commit)));
  }

  #breakLink(): void {
    const [from, to] = [this.#random.pick(domains), this.#random.pick(domains)];
    this.#cluster.wire.cut(from, to);
    if (this.#random.chance(0.7)) this.#cluster.wire.cut(to, from);
    this.#cluster.scheduler.after(this.#random.between(500, 20_000), () =>
      this.#cluster.wire.healAll(),
    );
  }

  #othersOf(hub: SimHub): readonly string[] {
    const others = domains.filter((domain) => domain !== hub.domain);
    return this.#random.chance(0.5) ? others : others.toReversed();
  }

  #isolate(domain: string): void {
    if (this.#isHealed) return;
    for (const other of domains) {
      this.#cluster.wire.cut(domain, other);
      this.#cluster.wire.cut(other, domain);
    }
  }

  #heal(): void {
    this.#isHealed = true;
    this.#faults.lost = 0;
    this.#cluster.wire.healAll();
    for (const hub of this.#cluster.hubs) this.#cluster.background(hub.start());
  }

  /** Everything works again: within bounded time a commit goes through, and all show the same. */
  async #settle(): Promise<void> {
    const { accepted, violations } = this.#observer;
    const before = accepted.length;
    for (let tries = 0; tries < settleTries && accepted.length < before + 3; tries += 1) {
      await this.#cluster.scheduler.run(this.#cluster.scheduler.nowMs + 15_000);
      for (const hub of this.#cluster.hubs) this.#cluster.background(hub.start());
      const parent = accepted.at(-1);
      if (parent === undefined) continue;
      const hub = this.#cluster.hubs[tries % this.#cluster.hubs.length];
      const request = this.#newCommit(parent);
      const group = this.#cluster.group.groupId;
      const takeover = create(GroupTakeoverRequestSchema, { group, submit: request });
      if (hub?.life === undefined) continue;
      this.#cluster.background(
        tries % 2 === 0
          ? this.#submit(hub, request)
          : hub.life.set.takeover(takeover, { fromHub: false }),
      );
    }
    await this.#cluster.scheduler.run(this.#cluster.scheduler.nowMs + 60_000);
    this.#isSilent = this.#mix.restores && !(await this.#isOnDisk());
    if (this.#isSilent) return;
    if (accepted.length < before + 3) violations.push('stuck: nothing is accepted any more');
    const known = new Set(accepted.map(({ entry }) => hexOf(entry.commitHash)));
    for (const one of this.#acknowledged) {
      if (!known.has(one)) violations.push('acknowledged: a commit is in no log');
    }
    for (const hub of this.#cluster.hubs) await this.#look(hub);
    const welcomes = this.#cluster.hubs.flatMap((hub) => [...welcomed(hub)]);
    this.#observer.checkWelcomes(new Set(welcomes), this.#mix.restores);
  }

  /** Whether any hub has an entry that counts. One is enough, all being there: it shows both others, and they recover. */
  async #isOnDisk(): Promise<boolean> {
    for (const { life } of this.#cluster.hubs) {
      if (life === undefined) continue;
      const state = await this.#cluster.finish(life.store.hubState(this.#cluster.group.groupId));
      if (state !== undefined && state.position > 0) return true;
    }
    return false;
  }

  async #look(hub: SimHub): Promise<void> {
    const controls = await this.#cluster.finish(this.#cluster.readLog(hub)).catch(() => []);
    this.#observer.checkLog(hub, controls);
    const { accepted, violations } = this.#observer;
    if (controls.length < accepted.length - 1) {
      violations.push(`behind: ${hub.domain} has ${controls.length} of ${accepted.length} entries`);
    }
  }

  #plan(lowMs: number, highMs: number, work: () => void): void {
    const random = this.#random;
    this.#cluster.repeat({ lowMs, highMs, random }, () => this.#isHealed, work);
  }

  [Symbol.dispose](): void {
    this.#isHealed = true;
    this.#cluster[Symbol.dispose]();
  }
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
