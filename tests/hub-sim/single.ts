/**
 * One run of a hub of one under faults from a seed: members submit what meets, ask again with the same bytes when an
 * answer got lost, the hub dies between any two steps, its disk is an older one and gets back what it lacks from a
 * member, as client-lib/groups/hubs/hub-repair.ts does, while others submit, also on what is not the newest entry any more.
 */
import { commitHash, hasReason, hex, parseEntry, type ParsedEntry } from '@quicprochat/proto';
import {
  fromBinary,
  GroupControlSchema,
  type SignedGroupEntry,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import type { SimRandom } from '../sim/process.ts';
import { creator, HubCluster } from './cluster.ts';
import type { HubStart, SimHub } from './hub.ts';
import type { HubMix, HubReport } from './run.ts';
import { welcomed } from './welcomes.ts';

/** In which a hub of one accepts. */
const term = 0;

export async function runSingle(
  [start]: readonly HubStart[],
  seed: number,
  mix: HubMix,
): Promise<HubReport> {
  if (start === undefined) throw new Error('no hub');
  using run = new SingleRun(start, seed, mix);
  return await run.go();
}

class SingleRun implements Disposable {
  readonly #seed: number;
  readonly #mix: HubMix;
  readonly #cluster: HubCluster;
  readonly #random: SimRandom;
  readonly #hub: SimHub;
  readonly #first: SignedGroupEntry;
  /** By the hash of the commit. */
  readonly #requests = new Map<string, SubmitCommitRequest>();
  readonly #acknowledged = new Set<string>();
  #isHealed = false;
  #isBehind = false;
  #deaths = 0;
  #submitted = 0;

  constructor(start: HubStart, seed: number, mix: HubMix) {
    this.#seed = seed;
    this.#mix = mix;
    this.#cluster = new HubCluster({
      ...{ starts: [start], seed, faults: { lost: 0, twice: 0 } },
      dies: (_hub, dice) => !this.#isHealed && dice.chance(mix.crashes),
      onDeath: (hub) => {
        this.#deaths += 1;
        const downMs = this.#isHealed ? 10 : this.#random.between(100, 5_000);
        this.#cluster.scheduler.after(downMs, () => this.#cluster.background(hub.start()));
      },
    });
    this.#random = this.#cluster.random;
    const [hub] = this.#cluster.hubs;
    if (hub === undefined) throw new Error('no hub');
    this.#hub = hub;
    this.#first = this.#cluster.group.sign(undefined);
  }

  async go(): Promise<HubReport> {
    const { scheduler, observer } = this.#cluster;
    this.#cluster.background(this.#hub.start());
    await scheduler.run(1_000);
    this.#plan(500, 4_000, () => this.#cluster.background(this.#create()));
    this.#plan(50, 500, () => this.#member());
    this.#plan(5_000, 30_000, () => this.#hub.kill());
    if (this.#mix.restores) {
      const backUpMs = this.#random.between(0, this.#mix.lengthMs / 2);
      scheduler.after(backUpMs, () => this.#hub.backUp());
      scheduler.after(this.#random.between(backUpMs, this.#mix.lengthMs), () => {
        this.#hub.restore();
        observer.forget(this.#hub);
        this.#isBehind = true;
      });
    }
    await scheduler.run(this.#mix.lengthMs);
    this.#isHealed = true;
    this.#cluster.background(this.#hub.start());
    await scheduler.run(scheduler.nowMs + 20_000);
    await this.#settle();
    return {
      seed: this.#seed,
      violations: observer.violations,
      entries: observer.accepted.length,
      submitted: this.#submitted,
      acknowledged: this.#acknowledged.size,
      deaths: this.#deaths,
      isSilent: false,
      counts: observer.counts,
    };
  }

  /** Entry 0; also again, as somebody does who has it and finds that the hub knows nothing. */
  async #create(): Promise<void> {
    const { life } = this.#hub;
    if (life === undefined) return;
    const offer = life.offers.entry(this.#first, term);
    // Who has it certified shows that.
    const wasCertified = this.#cluster.observer.accepted.length > 0;
    await life.store.createGroup({ ...offer, hubs: [this.#hub.domain], creator, wasCertified });
  }

  /** Two at once now and then, and one that nobody answered again. */
  #member(): void {
    const { accepted } = this.#cluster.observer;
    if (this.#isBehind && this.#random.chance(0.1)) this.#cluster.background(this.#giveBack());
    const parent = this.#random.chance(0.1) ? accepted.at(-2) : accepted.at(-1);
    if (parent === undefined) return;
    for (let count = this.#random.chance(0.3) ? 2 : 1; count > 0; count -= 1) {
      const known = [...this.#requests.values()];
      const isRepeat = known.length > 0 && this.#random.chance(0.2);
      const request = isRepeat ? this.#random.pick(known) : this.#newCommit(parent);
      this.#cluster.background(this.#submit(request));
    }
  }

  #newCommit(parent: ParsedEntry): SubmitCommitRequest {
    const request = this.#cluster.newCommit(parent);
    this.#requests.set(hex(commitHash(request.commit)), request);
    return request;
  }

  async #submit(request: SubmitCommitRequest, wasCertified = false): Promise<void> {
    const { life } = this.#hub;
    if (life === undefined) return;
    this.#submitted += 1;
    const { submit: _, ...commit } = life.offers.submitted(request);
    const offered = { ...commit, ...life.offers.entry(request.entry, term), wasCertified };
    let control;
    try {
      ({ control } = await life.store.submitCommit(offered));
    } catch (error) {
      // As the service does: from the first who asks on.
      if (hasReason(error, 'HUB_RESTORED')) {
        await life.store.holdGroup(this.#cluster.group.groupId);
      }
      throw error;
    }
    // The answer gets lost on its way now and then.
    if (this.#random.chance(this.#mix.lost)) return;
    const { entry } = fromBinary(GroupControlSchema, control);
    this.#acknowledged.add(hex(parseEntry(entry?.entry).entry.commitHash));
  }

  /** Oldest first; what the hub has, it knows by its hash. */
  async #giveBack(): Promise<void> {
    if (this.#hub.life === undefined) return;
    const { life } = this.#hub;
    await this.#create();
    for (const { entry } of this.#cluster.observer.accepted.filter(({ epoch }) => epoch > 0)) {
      const request = this.#requests.get(hex(entry.commitHash));
      if (request === undefined || this.#hub.life !== life) return;
      await this.#submit({ ...request, welcomes: [] }, true);
    }
    if (this.#hub.life === life) this.#isBehind = false;
  }

  async #settle(): Promise<void> {
    const { observer, scheduler } = this.#cluster;
    await this.#cluster.finish(this.#create());
    if (this.#isBehind) {
      // It has certified each of these.
      const back = this.#giveBack().catch((error: unknown) => {
        observer.violations.push(`not taken back: ${String(error)}`);
      });
      await this.#cluster.finish(back);
    }
    const before = observer.accepted.at(-1);
    if (before === undefined) return;
    const last = this.#newCommit(before);
    for (let tries = 0; tries < 4 && observer.accepted.at(-1) === before; tries += 1) {
      this.#cluster.background(this.#submit(last));
      await scheduler.run(scheduler.nowMs + 60_000);
    }
    if (observer.accepted.at(-1) === before) observer.violations.push('stuck: nothing is accepted');
    const known = new Set(observer.accepted.map(({ entry }) => hex(entry.commitHash)));
    for (const one of this.#acknowledged) {
      if (!known.has(one)) observer.violations.push('acknowledged: a commit is in no log');
    }
    const controls = await this.#cluster.finish(this.#cluster.readLog(this.#hub));
    observer.checkLog(this.#hub, controls);
    if (controls.length < observer.accepted.length) {
      observer.violations.push(`behind: ${controls.length} of ${observer.accepted.length} entries`);
    }
    observer.checkWelcomes(welcomed(this.#hub), this.#mix.restores);
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
