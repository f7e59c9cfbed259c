/**
 * Three production hubs on one scheduler, with the members of one group in one hand and an observer: for
 * random runs (run.ts) and for single stories (stories.test.ts).
 */
import { commitHash, QpcError, Status, type ParsedEntry } from '@quicprochat/proto';
import {
  create,
  SubmitCommitRequestSchema,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import { createNodeStore, openNodeStoreInThread } from '@quicprochat/nodes';
import { registerAccount } from '@quicprochat/nodes/store/log-batch';
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import { Disk, imageOf } from '../sim/disk.ts';
import { cheapenDatabases, rememberCrypto } from '../sim/memo.ts';
import { joined } from '../sim/outside.ts';
import { Process, SimRandom, type LogSink } from '../sim/process.ts';
import { Scheduler } from '../sim/scheduler.ts';
import { nodeConfig } from '../sim/world.ts';
import { SimHub, type HubStart } from './hub.ts';
import { Observer } from './observer.ts';
import { Wire, type WireFaults } from './wire.ts';

export const domains = ['red.example', 'green.example', 'blue.example'];
/** Device that makes the group, at every hub. */
export const creator: Uint8Array = new SimRandom('creator').bytes(32);

/** Files that each hub begins with: an empty store with one account. Makes hubs of this process cheaper, once. */
export async function makeStarts(): Promise<readonly HubStart[]> {
  rememberCrypto();
  cheapenDatabases();
  AbortSignal.any = joined;
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

export interface ClusterOptions {
  readonly starts: readonly HubStart[];
  readonly seed: number;
  readonly faults: WireFaults;
  /** Asked at each point where a hub can die. */
  readonly dies: (hub: SimHub, dice: SimRandom) => boolean;
  readonly onDeath: (hub: SimHub) => void;
  readonly onLog?: LogSink;
}

export class HubCluster implements Disposable {
  readonly scheduler: Scheduler = new Scheduler();
  readonly random: SimRandom;
  readonly hubs: readonly SimHub[];
  readonly wire: Wire;
  readonly observer: Observer;
  readonly group: TestCommitter = new TestCommitter();
  readonly #disk = new Disk();

  constructor({ starts, seed, faults, dies, onDeath, onLog }: ClusterOptions) {
    this.random = new SimRandom(seed, 'run');
    const keysOf = (domain: string): Uint8Array[] =>
      this.hubs.filter((hub) => hub.domain === domain).map(({ signing }) => signing.publicKey);
    this.observer = new Observer(
      starts.map(({ domain }) => domain),
      keysOf,
    );
    this.wire = new Wire({
      scheduler: this.scheduler,
      random: new SimRandom(seed, 'wire'),
      partyOf: (domain) => this.hubs.find((hub) => hub.domain === domain),
      faults,
      onSigned: this.observer.onSigned,
    });
    this.hubs = starts.map(
      (start) =>
        new SimHub(start, {
          seed,
          scheduler: this.scheduler,
          disk: this.#disk,
          wire: () => this.wire,
          keysOf,
          dies,
          onCommit: (hub, requests, outcome) => this.observer.onCommit(hub, requests, outcome),
          onDeath,
          onLog,
        }),
    );
  }

  /** Refusals are what members live with; anything else is a finding. */
  background(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      if (error instanceof QpcError && error.status !== Status.Internal) return;
      this.observer.violations.push(
        `surprise: ${error instanceof Error ? error.stack : String(error)}`,
      );
    });
  }

  /** Works again and again, after times between these (ms), until `isOver`. */
  repeat(
    { lowMs, highMs, random }: { lowMs: number; highMs: number; random: SimRandom },
    isOver: () => boolean,
    work: () => void,
  ): void {
    this.scheduler.after(random.between(lowMs, highMs), () => {
      if (isOver()) return;
      work();
      this.repeat({ lowMs, highMs, random }, isOver, work);
    });
  }

  newCommit(parent: ParsedEntry): SubmitCommitRequest {
    const commit = this.random.bytes(60);
    const entry = this.group.sign(parent, { commitHash: commitHash(commit) });
    const target = { rid: creator, domain: this.random.pick(domains) };
    const welcomes = [{ target, mid: this.random.bytes(16), welcome: this.random.bytes(20) }];
    const fields = { entry, commit, mid: this.random.bytes(16), welcomes };
    return create(SubmitCommitRequestSchema, fields);
  }

  /** Lets time pass until the work is done. Throws what it throws, and after `withinMs`. */
  async finish<T>(work: Promise<T>, withinMs = 60_000): Promise<T> {
    let isOver = false;
    const over = (): void => void (isOver = true);
    work.then(over, over);
    await this.scheduler.run(this.scheduler.nowMs + withinMs, () => isOver);
    if (!isOver) throw new Error(`not done in ${withinMs} ms`);
    return work;
  }

  /** All that a hub shows of the log. */
  async readLog(hub: SimHub): Promise<readonly Uint8Array[]> {
    const controls: Uint8Array[] = [];
    for (let after: Uint8Array = new Uint8Array(0); ;) {
      const page = await hub.life?.store.groupLog(this.group.groupId, after, 64);
      controls.push(...(page?.controls ?? []));
      const newest = this.observer.accepted[controls.length - 1];
      if (page?.hasMore !== true || newest === undefined) return controls;
      after = newest.hash;
    }
  }

  [Symbol.dispose](): void {
    for (const hub of this.hubs) hub.dispose();
    this.#disk[Symbol.dispose]();
  }
}
