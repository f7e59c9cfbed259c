/**
 * One hub of a simulated set: the classes of production over a store that can crash, in lives that
 * begin with what the files hold, or with an older copy of them.
 */
import { signingKeyFromSeed, type SigningKey } from '@quicprochat/proto';
import { fromBinary, GroupControlSchema } from '@quicprochat/proto/messages';
import { CommitOffers, ForkAlarm, HubSet } from '@quicprochat/nodes/hubs';
import {
  openForReading,
  StoreClient,
  type BatchOutcome,
  type OperationRequest,
} from '@quicprochat/nodes/store/simulation';
import { imageOf, removeFiles, type Disk, type FileImage } from '../sim/disk.ts';
import { SimChannel } from '../sim/node-store.ts';
import { Process, SimRandom, type LogSink } from '../sim/process.ts';
import type { Scheduler } from '../sim/scheduler.ts';
import { nodeConfig } from '../sim/world.ts';
import type { Party, Wire } from './wire.ts';

/** What every hub of a run begins with. */
export interface HubStart {
  readonly domain: string;
  readonly key: Uint8Array;
  readonly image: FileImage;
}

export interface HubAround {
  readonly seed: number;
  readonly scheduler: Scheduler;
  readonly disk: Disk;
  readonly wire: () => Wire;
  readonly keysOf: (domain: string) => readonly Uint8Array[];
  readonly dies: (hub: SimHub, dice: SimRandom) => boolean;
  readonly onCommit: (
    hub: SimHub,
    requests: readonly OperationRequest[],
    outcome: BatchOutcome,
  ) => void;
  readonly onDeath: (hub: SimHub) => void;
  readonly onLog?: LogSink | undefined;
}

interface Life {
  readonly process: Process;
  readonly path: string;
  readonly channel: SimChannel;
  readonly store: StoreClient;
  readonly set: HubSet;
  readonly offers: CommitOffers;
}

export class SimHub implements Party {
  readonly domain: string;
  readonly signing: SigningKey;
  readonly #start: HubStart;
  readonly #around: HubAround;
  readonly #dead: Life[] = [];
  #image: FileImage;
  #backup: FileImage;
  #lives = 0;
  #life: Life | undefined;

  constructor(start: HubStart, around: HubAround) {
    this.domain = start.domain;
    this.#start = start;
    this.#around = around;
    this.#image = start.image;
    this.#backup = start.image;
    this.signing = signingKeyFromSeed(new SimRandom('hub', start.domain).bytes(32));
  }

  get life(): Life | undefined {
    return this.#life;
  }
  /** Of its files. */
  get key(): Uint8Array {
    return this.#start.key;
  }

  async start(): Promise<void> {
    if (this.#life !== undefined) return;
    const { seed, scheduler, disk, wire, keysOf, dies, onCommit, onLog } = this.#around;
    const { domain, key } = this.#start;
    this.#lives += 1;
    const random = new SimRandom(seed, domain, this.#lives);
    const process = new Process(domain, scheduler, { random, ...(onLog && { onLog }) });
    const path = disk.place(domain, this.#image);
    const dice = new SimRandom(seed, domain, this.#lives, 'store');
    const channel = new SimChannel({
      ...{ path, key, scheduler, process, random: dice },
      limits: nodeConfig(domain).store,
      commitMs: () => dice.between(0.2, 3),
      dies: () => {
        if (!dies(this, dice)) return false;
        this.kill();
        return true;
      },
      onCommit: (requests, outcome) => onCommit(this, requests, outcome),
      onReply: () => {},
    });
    const store = new StoreClient(channel);
    const offers = new CommitOffers({ domain, signing: this.signing, knows: () => true });
    const { runtime } = process;
    const peers = wire().peersOf(domain, process);
    const { clock, log } = runtime;
    const forks = new ForkAlarm({ store, keysOf, clock, log, peers });
    const set = new HubSet({
      ...{ domain, store, offers, keysOf, runtime, peers, forks },
      notify: () => {},
    });
    this.#life = { process, path, channel, store, set, offers };
    await set.resume();
  }

  /** SIGKILL: what was written stays. */
  kill(): void {
    const life = this.#life;
    if (life === undefined) return;
    this.#image = imageOf(life.path);
    this.#life = undefined;
    this.#dead.push(life);
    life.process.die();
    this.#around.onDeath(this);
  }

  backUp(): void {
    if (this.#life !== undefined) this.#backup = imageOf(this.#life.path);
  }

  /** From now on no older copy comes back. */
  renewBackup(): void {
    this.#backup = this.#life === undefined ? this.#image : imageOf(this.#life.path);
  }

  /** Reads what is on its disk, also of one that is down. */
  onDisk<T>(read: (db: ReturnType<typeof openForReading>) => T): T {
    const { disk } = this.#around;
    const path = this.#life?.path ?? disk.place(`${this.domain}-read`, this.#image);
    const db = openForReading(path, this.key);
    try {
      return read(db);
    } finally {
      db.close();
      if (path !== this.#life?.path) removeFiles(path);
    }
  }

  /** It dies, and comes back with an older copy of its disk, or with a new one. */
  restore(isNew = false): void {
    this.kill();
    if (isNew) {
      this.#image = this.#start.image;
      return;
    }
    const older = new Map(this.#backup);
    // The counter beside the database stays, as when somebody copies the database back.
    const counter = this.#image.get('-commits');
    if (counter !== undefined) older.set('-commits', counter);
    this.#image = older;
  }

  async groupLog(request: Parameters<Party['groupLog']>[0]): ReturnType<Party['groupLog']> {
    const life = this.#life;
    if (life === undefined) throw new Error(`${this.domain} is down`);
    const { group, after, maxEntries } = request;
    const page = await life.store.groupLog(group, after, maxEntries || 64);
    return {
      entries: page.controls.map((control) => fromBinary(GroupControlSchema, control)),
      position: BigInt(page.position),
      hasMore: page.hasMore,
      ...(page.prepared && { prepared: page.prepared }),
    };
  }

  dispose(): void {
    this.kill();
    for (const { process, channel, path } of this.#dead) {
      process.die();
      channel.abandon();
      removeFiles(path);
    }
  }
}
