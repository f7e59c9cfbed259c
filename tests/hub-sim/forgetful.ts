/**
 * One run of three hubs of which two and more lose their disks, from a seed: at once, one after the other, or in the middle of
 * a recovery, with backups or new disks, while members commit and give back what they hold, one of them comes back late,
 * somebody lies, hubs die, are cut off, and messages come minutes late. Afterwards all must agree and go on.
 */
import { entryHash, hex } from '@quicprochat/proto';
import { fromBinary, GroupControlSchema } from '@quicprochat/proto/messages';
import { SimRandom } from '../sim/process.ts';
import { creator, domains, HubCluster } from './cluster.ts';
import type { HubStart, SimHub } from './hub.ts';
import { Member } from './member.ts';
import type { HubMix, HubReport } from './run.ts';
import type { WireFaults } from './wire.ts';

/** Disks that are lost in a run. */
const lossesMax = 4;
/** After the last fault: time for one hub after the other, each with the time for its members (ms). */
const settleMs = 30 * 60_000;

export async function runForgetful(
  starts: readonly HubStart[],
  seed: number,
  mix: HubMix,
): Promise<HubReport> {
  using run = new ForgetfulRun(starts, seed, mix);
  return await run.go();
}

class ForgetfulRun implements Disposable {
  readonly #seed: number;
  readonly #mix: HubMix;
  readonly #cluster: HubCluster;
  /** Of what is planned, so that it is no other plan when a hub draws once more. */
  readonly #random: SimRandom;
  readonly #faults: WireFaults;
  readonly #members: readonly Member[];
  /** Is not there while disks are lost. */
  readonly #late: Member;
  #isAway = false;
  #isFaulty = false;
  #isOver = false;
  /** All three disks knew nothing of the group at once. */
  #isGone = false;
  #deaths = 0;

  constructor(starts: readonly HubStart[], seed: number, mix: HubMix) {
    this.#seed = seed;
    this.#random = new SimRandom(seed, 'forgetful');
    this.#mix = mix;
    this.#faults = { lost: 0, twice: mix.twice, late: 0 };
    // Hubs die at each step of a recovery, and get through it all the same.
    const crashes = mix.crashes / 2;
    this.#cluster = new HubCluster({
      ...{ starts, seed, faults: this.#faults },
      dies: (_hub, dice) => this.#isFaulty && dice.chance(crashes),
      onDeath: (hub) => {
        this.#deaths += 1;
        const downMs = this.#isFaulty ? this.#random.between(100, 15_000) : 10;
        this.#cluster.scheduler.after(downMs, () => this.#cluster.background(hub.start()));
      },
    });
    this.#late = new Member(this.#cluster);
    this.#members = [new Member(this.#cluster), new Member(this.#cluster), this.#late];
  }

  async go(): Promise<HubReport> {
    const { hubs, scheduler, observer } = this.#cluster;
    for (const hub of hubs) this.#cluster.background(hub.start());
    await scheduler.run(1_000);
    await this.#begin();
    this.#isFaulty = true;
    this.#faults.lost = this.#mix.lost;
    this.#faults.late = this.#random.pick([0, 0.05]);
    this.#plan(
      300,
      3_000,
      () => this.#act(),
      () => this.#isOver,
    );
    this.#plan(
      500,
      3_000,
      () => this.#give(),
      () => this.#isOver,
    );
    this.#plan(10_000, 60_000, () => this.#pick().backUp());
    this.#plan(20_000, 90_000, () => this.#pick().kill());
    const isSecret = new SimRandom(this.#seed, 'secret').chance(0.25);
    const endMs = isSecret ? this.#planSecret() : this.#planLosses();
    await scheduler.run(endMs);
    this.#isFaulty = false;
    this.#faults.lost = 0;
    this.#cluster.wire.healAll();
    await this.#settle();
    return {
      seed: this.#seed,
      violations: observer.violations,
      entries: observer.accepted.length,
      submitted: this.#members.reduce((sum, { submitted }) => sum + submitted, 0),
      acknowledged: this.#members.reduce((sum, { acknowledged }) => sum + acknowledged, 0),
      deaths: this.#deaths,
      isSilent: this.#isGone,
      counts: observer.counts,
    };
  }

  /** Disks are lost when all three have the group: how it begins is what other runs are for. */
  async #begin(): Promise<void> {
    const { hubs, scheduler, observer, group } = this.#cluster;
    const entry = group.sign(undefined);
    const { life } = hubs[0] ?? {};
    this.#cluster.background(life?.set.create(entry, domains, creator) ?? Promise.resolve());
    await scheduler.run(scheduler.nowMs + 5_000);
    if (observer.acceptedBy.size < hubs.length) throw new Error('the group does not begin');
  }

  /** Returns when the last fault is over. */
  #planLosses(): number {
    const { scheduler, wire } = this.#cluster;
    const random = this.#random;
    const firstMs = scheduler.nowMs + random.between(20_000, 120_000);
    const count = 2 + Math.floor(random.between(0, lossesMax - 1));
    const apartMs = random.pick([100, 3_000, 60_000, 250_000]);
    const times = [0, ...Array.from({ length: count - 1 }, () => random.between(0, apartMs))];
    for (const ms of times) {
      const afterMs = firstMs + ms - scheduler.nowMs;
      // With a commit that may count, and nobody knows yet.
      scheduler.after(afterMs - random.between(0, 150), () => this.#commit());
      scheduler.after(afterMs, () => this.#lose());
    }
    const lastMs = firstMs + Math.max(...times);
    // Whoever was not there when disks went comes back at any time.
    const awayMs = firstMs - random.between(0, 60_000) - scheduler.nowMs;
    scheduler.after(Math.max(0, awayMs), () => (this.#isAway = true));
    const backMs = random.between(firstMs, lastMs + 250_000) - scheduler.nowMs;
    scheduler.after(backMs, () => this.#comeBack());
    if (random.chance(0.5)) {
      const fromMs = firstMs + random.between(-10_000, 10_000) - scheduler.nowMs;
      scheduler.after(fromMs, () => {
        this.#isolate(random.pick(domains));
        scheduler.after(random.between(20_000, 250_000), () => wire.healAll());
      });
    }
    return lastMs + 260_000;
  }

  /**
   * Two disks go with an entry that the third hub and all members but one never heard of, and that one comes back while they
   * recover. Returns when the last fault is over.
   */
  #planSecret(): number {
    const { scheduler, wire, hubs, observer } = this.#cluster;
    const random = this.#random;
    const third = this.#pick();
    const others = hubs.filter((hub) => hub !== third);
    const firstMs = scheduler.nowMs + random.between(20_000, 60_000);
    const lose = (): void => {
      if (this.#isAway) return;
      this.#isAway = true;
      for (const hub of others) scheduler.after(random.between(0, 200), () => this.#lose(hub));
    };
    const act = async (): Promise<void> => {
      this.#isolate(third.domain);
      await this.#late.read(random.pick(others));
      await this.#late.commit(random.pick(others), true).finally(lose);
    };
    scheduler.after(firstMs - scheduler.nowMs, () => this.#cluster.background(act()));
    // The hub that it asked may be dead.
    scheduler.after(firstMs + 12_000 - scheduler.nowMs, lose);
    const healMs = firstMs + random.between(20_000, 150_000) - scheduler.nowMs;
    scheduler.after(healMs, () => wire.healAll());
    observer.onWord = (domain) => {
      const hub = hubs.find((one) => one.domain === domain);
      if (hub === undefined || !this.#isAway) return;
      // It gave its word and hears nothing more for a while, in which the others go on.
      scheduler.after(random.between(20, 200), () => this.#isolate(domain));
      scheduler.after(random.between(5_000, 30_000), () => wire.healAll());
      const back = (): void => this.#cluster.background(this.#late.giveBack(hub, true));
      scheduler.after(random.between(0, 20_000), back);
    };
    const endMs = firstMs + 400_000;
    scheduler.after(endMs - scheduler.nowMs, () => this.#comeBack());
    return endMs;
  }

  #lose(hub = this.#pick()): void {
    const { observer, hubs, group } = this.#cluster;
    hub.restore(this.#random.chance(0.2));
    observer.forget(hub);
    const disks = hubs.map((one) => diskOf(one, group.groupId));
    this.#isGone ||= disks.every(({ accepted }) => accepted.size === 0);
    const before = observer.counts.letGo;
    observer.letGo(
      (hash, term) =>
        this.#present().some((member) => member.has(hash)) ||
        disks.some(
          ({ accepted, prepared, adopted }) =>
            accepted.has(hash) || (prepared === hash && adopted >= term),
        ),
    );
    // A backup that has what is superseded contradicts the others for good, and is not what this is about.
    if (observer.counts.letGo > before) for (const one of hubs) one.renewBackup();
  }

  #present(): readonly Member[] {
    return this.#members.filter((member) => member !== this.#late || !this.#isAway);
  }

  #comeBack(): void {
    for (const hub of this.#cluster.hubs)
      this.#cluster.background(this.#late.giveBack(hub, this.#random.chance(0.5)));
    this.#cluster.scheduler.after(5_000, () => (this.#isAway = false));
  }

  #act(): void {
    if (this.#random.chance(0.6)) return this.#commit();
    const member = this.#random.pick(this.#present());
    this.#cluster.background(member.read(this.#pick()));
  }

  #commit(): void {
    const member = this.#random.pick(this.#present());
    this.#cluster.background(member.commit(this.#pick()));
  }

  #give(): void {
    const member = this.#random.pick(this.#present());
    const hub = this.#pick();
    const lies = this.#random.chance(0.05);
    this.#cluster.background(lies ? member.forge(hub) : member.giveBack(hub));
  }

  #isolate(domain: string): void {
    for (const other of domains) {
      this.#cluster.wire.cut(domain, other);
      this.#cluster.wire.cut(other, domain);
    }
  }

  /** Within bounded time three commits go through, and all have a say and one log. */
  async #settle(): Promise<void> {
    const { scheduler, observer, hubs, group } = this.#cluster;
    const { accepted, violations } = observer;
    const limitMs = scheduler.nowMs + settleMs;
    const before = accepted.length;
    const done = async (): Promise<boolean> => {
      for (const { life } of hubs) {
        const state = await this.#cluster.finish(
          life?.store.hubState(group.groupId) ?? Promise.resolve(undefined),
        );
        if (state?.isLearner !== false) return false;
      }
      return accepted.length >= before + 3;
    };
    while (!this.#isGone && scheduler.nowMs < limitMs && !(await done()))
      await scheduler.run(scheduler.nowMs + 10_000);
    if (this.#isGone) return;
    const isDone = await done();
    this.#isOver = true;
    await scheduler.run(scheduler.nowMs + 60_000);
    if (!isDone) violations.push('stuck: not all three have a say, or nothing is accepted');
    for (const hub of hubs) {
      const controls = await this.#cluster.finish(this.#cluster.readLog(hub)).catch(() => []);
      observer.checkLog(hub, controls, true);
      const { entry } = fromBinary(GroupControlSchema, controls.at(-1) ?? new Uint8Array(0));
      const end = hex(entryHash(entry?.entry?.entry ?? new Uint8Array(0)));
      if (!accepted.slice(-2).some(({ hash }) => hex(hash) === end))
        violations.push(`behind: ${hub.domain} has ${controls.length} of ${accepted.length}`);
    }
  }

  #pick(): SimHub {
    return this.#random.pick(this.#cluster.hubs);
  }

  #plan(lowMs: number, highMs: number, work: () => void, isOver = () => !this.#isFaulty): void {
    this.#cluster.repeat({ lowMs, highMs, random: this.#random }, isOver, work);
  }

  [Symbol.dispose](): void {
    this.#isFaulty = false;
    this.#cluster[Symbol.dispose]();
  }
}

interface OnDisk {
  readonly accepted: ReadonlySet<string>;
  readonly prepared: string | undefined;
  readonly adopted: number;
}

function diskOf(hub: SimHub, group: Uint8Array): OnDisk {
  return hub.onDisk((db) => {
    const row = db
      .prepare<[Uint8Array], { readonly id: number; readonly adopted: number }>(
        'SELECT id, adopted FROM hub_group WHERE group_id = ?',
      )
      .get(group);
    const { id = -1, adopted = 0 } = row ?? {};
    const hashes = db
      .prepare<[number], Uint8Array>('SELECT hash FROM hub_entry WHERE hub_group = ?')
      .pluck()
      .all(id);
    const prepared = db
      .prepare<[number], Uint8Array>('SELECT hash FROM hub_prepared WHERE hub_group = ?')
      .pluck()
      .get(id);
    return {
      accepted: new Set(hashes.map(hex)),
      prepared: prepared && hex(prepared),
      adopted,
    };
  });
}
