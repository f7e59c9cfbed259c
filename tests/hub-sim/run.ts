/**
 * One run of three hubs under faults from a seed: members submit anywhere, ask for takeovers, hubs die
 * between any two steps, links break, a disk is an older one. Afterwards everything heals, and all
 * must agree and go on.
 */
import { commitHash, QpcError, Status, type ParsedEntry } from '@quicprochat/proto';
import {
  create,
  GroupTakeoverRequestSchema,
  SubmitCommitRequestSchema,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import { createNodeStore, openNodeStoreInThread } from '@quicprochat/nodes';
import { registerAccount } from '@quicprochat/nodes/store/log-batch';
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import { Disk, imageOf } from '../sim/disk.ts';
import { Process, SimRandom } from '../sim/process.ts';
import { Scheduler } from '../sim/scheduler.ts';
import { nodeConfig } from '../sim/world.ts';
import { SimHub, type HubStart } from './hub.ts';
import { Observer } from './observer.ts';
import { Wire } from './wire.ts';

const domains = ['red.example', 'green.example', 'blue.example'];
const creator = new SimRandom('creator').bytes(32);

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
  readonly counts: Observer['counts'];
}

/** Files that each hub begins with: an empty store with one account. */
export async function makeStarts(): Promise<readonly HubStart[]> {
  using disk = new Disk();
  const scheduler = new Scheduler();
  const starts: HubStart[] = [];
  for (const domain of domains) {
    const random = new SimRandom('hubs', domain);
    const { runtime } = new Process(domain, scheduler, { random });
    const key = random.bytes(32);
    const path = disk.place(domain, new Map());
    await createNodeStore({ path, key, runtime });
    const limits = nodeConfig(domain).store;
    const store = openNodeStoreInThread({ path, key, limits, runtime });
    await registerAccount(store, {
      userId: 'maker',
      setupId: 1,
      opaqueRecord: random.bytes(192),
      manifest: { manifest: random.bytes(100), signature: random.bytes(64) },
      manifestSeq: 0,
      device: { deviceId: 'laptop', identityPub: creator, transportSpki: random.bytes(32) },
      sessionExpiresMs: 2 ** 41,
    });
    await store[Symbol.asyncDispose]();
    starts.push({ domain, key, image: imageOf(path) });
  }
  return starts;
}

export async function runHubs(
  starts: readonly HubStart[],
  seed: number,
  mix: HubMix,
): Promise<HubReport> {
  using run = new HubRun(starts, seed, mix);
  return await run.go();
}

class HubRun implements Disposable {
  readonly #seed: number;
  readonly #mix: HubMix;
  readonly #scheduler = new Scheduler();
  readonly #random: SimRandom;
  readonly #disk = new Disk();
  readonly #hubs: readonly SimHub[];
  readonly #wire: Wire;
  readonly #faults: { lost: number; twice: number };
  readonly #observer: Observer;
  readonly #group = new TestCommitter();
  readonly #requests: SubmitCommitRequest[] = [];
  readonly #acknowledged = new Set<string>();
  #first: ParsedEntry | undefined;
  #isHealed = false;
  #deaths = 0;

  constructor(starts: readonly HubStart[], seed: number, mix: HubMix) {
    this.#seed = seed;
    this.#mix = mix;
    this.#random = new SimRandom(seed, 'run');
    this.#faults = { lost: mix.lost, twice: mix.twice };
    const keysOf = (domain: string): Uint8Array[] =>
      this.#hubs.filter((hub) => hub.domain === domain).map(({ signing }) => signing.publicKey);
    this.#observer = new Observer(domains, keysOf);
    this.#wire = new Wire({
      scheduler: this.#scheduler,
      random: new SimRandom(seed, 'wire'),
      partyOf: (domain) => this.#hubs.find((hub) => hub.domain === domain),
      faults: this.#faults,
      onSigned: this.#observer.onSigned,
    });
    this.#hubs = starts.map(
      (start) =>
        new SimHub(start, {
          seed,
          scheduler: this.#scheduler,
          disk: this.#disk,
          wire: () => this.#wire,
          keysOf,
          crashShare: () => (this.#isHealed ? 0 : mix.crashes),
          onCommit: (hub, requests, outcome) => this.#observer.onCommit(hub, requests, outcome),
          onDeath: (hub) => {
            this.#deaths += 1;
            const downMs = this.#isHealed ? 10 : this.#random.between(100, 15_000);
            this.#scheduler.after(downMs, () => this.#background(hub.start()));
          },
        }),
    );
  }

  async go(): Promise<HubReport> {
    for (const hub of this.#hubs) this.#background(hub.start());
    await this.#scheduler.run(1_000);
    this.#createGroup();
    this.#plan(200, 2_000, () => this.#member());
    this.#plan(2_000, 12_000, () => this.#breakLink());
    this.#plan(5_000, 30_000, () => this.#random.pick(this.#hubs).kill());
    if (this.#mix.restores) {
      const backUpMs = this.#random.between(0, this.#mix.lengthMs / 2);
      const hub = this.#random.pick(this.#hubs);
      this.#scheduler.after(backUpMs, () => hub.backUp());
      this.#scheduler.after(this.#random.between(backUpMs, this.#mix.lengthMs), () => {
        hub.restore();
        this.#observer.forget(hub);
      });
    }
    await this.#scheduler.run(this.#mix.lengthMs);
    this.#heal();
    await this.#settle();
    return {
      seed: this.#seed,
      violations: this.#observer.violations,
      entries: this.#observer.accepted.length,
      submitted: this.#requests.length,
      acknowledged: this.#acknowledged.size,
      deaths: this.#deaths,
      counts: this.#observer.counts,
    };
  }

  /** Its client tries until it has an answer. */
  #createGroup(): void {
    const entry = this.#group.sign(undefined);
    const [leader] = this.#hubs;
    const attempt = async (): Promise<void> => {
      const set = leader?.life?.set;
      if (set === undefined) return;
      await set.create(entry, domains, creator);
      this.#first = this.#observer.accepted[0];
    };
    const repeat = (): void => {
      if (this.#first !== undefined) return;
      this.#background(attempt());
      this.#scheduler.after(6_000, repeat);
    };
    repeat();
  }

  #member(): void {
    const { accepted } = this.#observer;
    const hub = this.#random.pick(this.#hubs);
    const set = hub.life?.set;
    const parent = this.#random.chance(0.9) ? accepted.at(-1) : accepted.at(-2);
    if (set === undefined || parent === undefined) return;
    const isRepeat = this.#requests.length > 0 && this.#random.chance(0.2);
    const request = isRepeat ? this.#random.pick(this.#requests) : this.#newCommit(parent);
    if (this.#random.chance(0.15)) {
      const submit = this.#random.chance(0.5) ? { submit: request } : {};
      const takeover = create(GroupTakeoverRequestSchema, {
        group: this.#group.groupId,
        ...submit,
      });
      this.#background(set.takeover(takeover, { fromHub: false }));
      return;
    }
    this.#background(this.#submit(hub, request));
  }

  #newCommit(parent: ParsedEntry): SubmitCommitRequest {
    const commit = this.#random.bytes(60);
    const entry = this.#group.sign(parent, { commitHash: commitHash(commit) });
    const target = { rid: creator, domain: this.#random.pick(domains) };
    const welcomes = [{ target, mid: this.#random.bytes(16), welcome: this.#random.bytes(20) }];
    const fields = { entry, commit, mid: this.#random.bytes(16), welcomes };
    const request = create(SubmitCommitRequestSchema, fields);
    this.#requests.push(request);
    return request;
  }

  async #submit(hub: SimHub, request: SubmitCommitRequest): Promise<void> {
    const entry = await hub.life?.set.submit(request, { fromHub: false });
    if (entry !== undefined) this.#acknowledged.add(hexOf(commitHash(request.commit)));
  }

  #breakLink(): void {
    const [from, to] = [this.#random.pick(domains), this.#random.pick(domains)];
    this.#wire.cut(from, to);
    if (this.#random.chance(0.7)) this.#wire.cut(to, from);
    this.#scheduler.after(this.#random.between(500, 20_000), () => this.#wire.healAll());
  }

  #heal(): void {
    this.#isHealed = true;
    this.#faults.lost = 0;
    this.#wire.healAll();
    for (const hub of this.#hubs) this.#background(hub.start());
  }

  /** Everything works again: within bounded time a commit goes through, and all show the same. */
  async #settle(): Promise<void> {
    const { accepted, violations } = this.#observer;
    const before = accepted.length;
    for (let tries = 0; tries < 20 && accepted.length < before + 3; tries += 1) {
      await this.#scheduler.run(this.#scheduler.nowMs + 15_000);
      for (const hub of this.#hubs) this.#background(hub.start());
      const parent = accepted.at(-1);
      if (parent === undefined) continue;
      const hub = this.#hubs[tries % this.#hubs.length];
      const request = this.#newCommit(parent);
      const group = this.#group.groupId;
      const takeover = create(GroupTakeoverRequestSchema, { group, submit: request });
      if (hub?.life === undefined) continue;
      this.#background(
        tries % 2 === 0
          ? this.#submit(hub, request)
          : hub.life.set.takeover(takeover, { fromHub: false }),
      );
    }
    if (accepted.length < before + 3) violations.push('stuck: nothing is accepted any more');
    await this.#scheduler.run(this.#scheduler.nowMs + 60_000);
    const known = new Set(accepted.map(({ entry }) => hexOf(entry.commitHash)));
    for (const one of this.#acknowledged) {
      if (!known.has(one)) violations.push('acknowledged: a commit is in no log');
    }
    for (const hub of this.#hubs) await this.#look(hub);
  }

  async #look(hub: SimHub): Promise<void> {
    const store = hub.life?.store;
    if (store === undefined) throw new Error(`${hub.domain} is down`);
    const reading = this.#readAll(hub);
    let controls: readonly Uint8Array[] | undefined;
    void reading.then((read) => (controls = read));
    await this.#scheduler.run(this.#scheduler.nowMs + 5_000);
    if (controls === undefined) throw new Error(`${hub.domain} does not answer`);
    this.#observer.checkLog(hub, controls);
    const { accepted, violations } = this.#observer;
    if (controls.length < accepted.length - 1) {
      violations.push(`behind: ${hub.domain} has ${controls.length} of ${accepted.length} entries`);
    }
  }

  async #readAll(hub: SimHub): Promise<readonly Uint8Array[]> {
    const controls: Uint8Array[] = [];
    for (let after: Uint8Array = new Uint8Array(0); ;) {
      const page = await hub.life?.store.groupLog(this.#group.groupId, after, 64);
      controls.push(...(page?.controls ?? []));
      const newest = this.#observer.accepted[controls.length - 1];
      if (page?.hasMore !== true || newest === undefined) return controls;
      after = newest.hash;
    }
  }

  #plan(lowMs: number, highMs: number, work: () => void): void {
    this.#scheduler.after(this.#random.between(lowMs, highMs), () => {
      if (this.#isHealed) return;
      work();
      this.#plan(lowMs, highMs, work);
    });
  }

  /** Refusals are what members live with; anything else is a finding. */
  #background(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      if (error instanceof QpcError && error.status !== Status.Internal) return;
      this.#observer.violations.push(
        `surprise: ${error instanceof Error ? error.stack : String(error)}`,
      );
    });
  }

  [Symbol.dispose](): void {
    this.#isHealed = true;
    for (const hub of this.#hubs) hub.dispose();
    this.#disk[Symbol.dispose]();
  }
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
