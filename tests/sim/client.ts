/**
 * A client of the simulation: QpcClient of production with a process, a faulty transport and a watched
 * store. It dies and comes back with what its file held.
 */
import { QpcClient, type ClientEvent } from '@quicprochat/client-lib';
import { openStore, type ClientStore } from '@quicprochat/client-lib/store';
import { watchedStore, type ClientCrashPoint, type OwnMessages } from './client-store.ts';
import { imageOf, removeFiles, type FileImage } from './disk.ts';
import { FaultyTransport } from './network.ts';
import type { Surroundings } from './node.ts';
import { Process, SimRandom, type ClockError } from './process.ts';

export interface ClientParts {
  /** `alice/1`: the name in traces and histories, and that of its host. */
  readonly name: string;
  readonly userId: string;
  /** Domain of its node. */
  readonly home: string;
  readonly storeKey: Uint8Array;
}

interface Life {
  readonly process: Process;
  readonly path: string;
  readonly store: ClientStore;
  readonly client: QpcClient;
}

export class SimClient {
  readonly parts: ClientParts;
  readonly clock: ClockError;
  readonly ownMessages: OwnMessages = new Map();
  readonly #around: Surroundings;
  readonly #nameOf: (deviceIdOrRidHex: string) => string;
  #image: FileImage;
  #lives = 0;
  #life: Life | undefined;
  #opening: Promise<QpcClient> | undefined;
  #isClosing = false;
  readonly #dead: Life[] = [];
  onDeath: (point: string) => void = () => {};
  onEvent: (event: ClientEvent) => void = () => {};

  constructor(
    parts: ClientParts,
    image: FileImage,
    around: Surroundings,
    options: {
      readonly clock?: ClockError;
      readonly nameOf?: (deviceIdOrRidHex: string) => string;
    } = {},
  ) {
    this.parts = parts;
    this.#image = image;
    this.#around = around;
    this.clock = options.clock ?? { offsetMs: 0, rate: 1 };
    this.#nameOf = options.nameOf ?? ((id) => id);
  }

  get name(): string {
    return this.parts.name;
  }
  get isUp(): boolean {
    return this.#life !== undefined;
  }
  /** It ends in order, or has: what it gives to its application may not be written down as had. */
  get isClosing(): boolean {
    return this.#isClosing || this.#life === undefined;
  }
  /** Throws while it is down. */
  get client(): QpcClient {
    return this.#alive().client;
  }
  get store(): ClientStore {
    return this.#alive().store;
  }
  get process(): Process {
    return this.#alive().process;
  }
  /** Its database. Throws while it is down. */
  get path(): string {
    return this.#alive().path;
  }
  /** Rows that wait for what may still come. Throws while it is down. */
  get parkedRows(): number {
    return this.store.inbox.parkedSize('all').rows;
  }
  image(): FileImage {
    return this.#life === undefined ? this.#image : imageOf(this.#life.path);
  }

  /** Begins a life; not online yet. Who asks while one begins gets the same. */
  open(): Promise<QpcClient> {
    if (this.#life !== undefined) return Promise.resolve(this.#life.client);
    this.#opening ??= this.#open().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #open(): Promise<QpcClient> {
    const { name, userId, storeKey } = this.parts;
    const { seed, scheduler, network, disk, trace, onLog, callFaults, onAnswer } = this.#around;
    this.#lives += 1;
    const process = new Process(name, scheduler, {
      random: new SimRandom(seed, name, this.#lives),
      clock: this.clock,
      ...(onLog === undefined ? {} : { onLog }),
    });
    const transport = new FaultyTransport({
      network,
      process,
      host: name,
      random: new SimRandom(seed, name, this.#lives, 'calls'),
      trace,
      faults: () => callFaults(name),
      ...(onAnswer && { onAnswer }),
    });
    const storeRandom = new SimRandom(seed, name, this.#lives, 'store');
    const sealing = new SimRandom(seed, name, this.#lives, 'sealed');
    const path = disk.place(name.replace('/', '-'), this.#image);
    let store: ClientStore | undefined;
    const client = await QpcClient.open({
      storePath: path,
      storeKey,
      runtime: process.runtime,
      transport,
      fallback: this.#around.swarms?.fallbackOf(name, process),
      sealedSender: sealing.chance(this.#around.sealed ?? 0),
      openStore: (file, key) => {
        store = watchedStore({
          inner: openStore(file, key),
          process,
          dies: (point) => this.#dies(point, storeRandom),
          tell: (line) => trace.tell(line),
          nowMs: () => scheduler.nowMs,
          label: (what, bytes) => trace.label(what, bytes),
          device: name,
          user: userId,
          nameOf: this.#nameOf,
          ownMessages: this.ownMessages,
        });
        return store;
      },
    });
    if (store === undefined) throw new Error('the client opened no store');
    this.#life = { process, path, store, client };
    this.#isClosing = false;
    trace.note(name, 'opens', String(this.#lives));
    // What the application of the life before had not confirmed may come again from here on.
    trace.tell({ kind: 'fault', atMs: trace.nowMs, name: 'start', target: name });
    void this.#follow(client, process);
    return client;
  }

  /** An orderly end. */
  async close(): Promise<void> {
    const life = this.#life;
    if (life === undefined) return;
    this.#isClosing = true;
    await life.client.close();
    if (life.process.isDead) return;
    this.#image = imageOf(life.path);
    life.process.die();
    this.#life = undefined;
    removeFiles(life.path);
    this.#around.trace.note(this.name, 'closed', String(this.#lives));
  }

  kill(point: string): void {
    const life = this.#life;
    if (life === undefined) return;
    this.#image = imageOf(life.path);
    this.#life = undefined;
    this.#dead.push(life);
    life.process.die();
    this.#around.network.crash(this.name);
    this.#around.trace.fault(point, this.name);
    this.onDeath(point);
  }

  /** Frees the files of all lives; nothing may run any more. */
  dispose(): void {
    if (this.#life !== undefined) this.#dead.push(this.#life);
    this.#life = undefined;
    for (const { process, store } of this.#dead) {
      process.die();
      store.close();
    }
  }

  #dies(point: ClientCrashPoint, random: SimRandom): boolean {
    if (this.#life === undefined) return true;
    if (!random.chance(this.#around.crashShare(point))) return false;
    this.kill(`crash:${point}`);
    return true;
  }

  async #follow(client: QpcClient, process: Process): Promise<void> {
    for await (const event of client.events()) {
      if (process.isDead) return;
      this.onEvent(event);
    }
  }

  #alive(): Life {
    if (this.#life === undefined) throw new Error(`${this.name} is down`);
    return this.#life;
  }
}
