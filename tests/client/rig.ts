/**
 * Test support: real nodes and real clients in one process, on a memory network. Clients have
 * their stores on disk and can be closed and opened again; every wait is for an event.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  QpcClient,
  type ClientEvent,
  type OpenOptions,
  type ReceivedMessage,
} from '@quicprochat/client-lib';
import {
  systemClock,
  systemRandom,
  type Clock,
  type Log,
  type LogFields,
} from '@quicprochat/proto';
import { memoryNetwork, type MemoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, testRuntime } from '../cluster/local-node.ts';

const password = new TextEncoder().encode('correct horse battery');
/** A wait that takes longer failed (ms). */
const patienceMs = 20_000;

/** Fails when the promise takes longer than any run should. */
export async function inTime<T>(work: Promise<T>, what: string): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = systemClock.timer(patienceMs, () => late.reject(new Error(`waited for ${what}`)));
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    timer.cancel();
  }
}

/** Something that happens over and over, and can be waited for. */
class Happenings<T> {
  readonly #all: T[] = [];
  readonly #waiting = new Set<() => void>();

  add(one: T): void {
    this.#all.push(one);
    for (const wake of this.#waiting) wake();
  }
  /** The first one from `from` on that matches, whenever it happens. */
  async first(matches: (one: T) => boolean, what: string, from = 0): Promise<T> {
    const found = Promise.withResolvers<T>();
    const look = (): void => {
      const one = this.#all.slice(from).find(matches);
      if (one !== undefined) found.resolve(one);
    };
    this.#waiting.add(look);
    look();
    try {
      return await inTime(found.promise, what);
    } finally {
      this.#waiting.delete(look);
    }
  }
  get count(): number {
    return this.#all.length;
  }
  all(): readonly T[] {
    return this.#all;
  }
}

/** A client of one user; its store stays between `close` and `open`. */
export class RigClient {
  readonly userId: string;
  readonly node: LocalNode;
  readonly storePath: string;
  readonly storeKey = systemRandom.bytes(32);
  readonly clock: Clock;
  readonly events = new Happenings<ClientEvent>();
  readonly logged = new Happenings<{ readonly event: string; readonly fields: LogFields }>();
  #client: QpcClient | undefined;

  constructor(userId: string, node: LocalNode, directory: string, clock: Clock = systemClock) {
    this.clock = clock;
    this.userId = userId;
    this.node = node;
    this.storePath = join(directory, `${userId}.db`);
  }

  get client(): QpcClient {
    if (this.#client === undefined) throw new Error(`${this.userId} is closed`);
    return this.#client;
  }

  /** `options`: what the client has beside the usual. */
  async open(options: Partial<OpenOptions> = {}): Promise<void> {
    const add = (event: string, fields: LogFields = {}): void => this.logged.add({ event, fields });
    const log: Log = { debug: add, info: add, warn: add, error: add };
    const client = await QpcClient.open({
      storePath: this.storePath,
      storeKey: this.storeKey,
      runtime: { ...testRuntime, clock: this.clock, log },
      transport: this.node.network.transport(this.userId),
      ...options,
    });
    this.#client = client;
    const events = client.events();
    void (async () => {
      for await (const event of events) this.events.add(event);
    })();
  }

  async register(): Promise<void> {
    const { userId, node } = this;
    await this.client.register({ userId, password, nodeAddress: node.address });
  }
  async login(): Promise<void> {
    await this.client.login({ userId: this.userId, password });
  }
  async start(): Promise<void> {
    this.client.start();
    await inTime(this.client.online(), `${this.userId} to be online`);
  }

  async close(): Promise<void> {
    await this.#client?.close();
    this.#client = undefined;
  }

  /** The next `count` messages of the client's iterator. */
  async read(count: number): Promise<readonly ReceivedMessage[]> {
    const messages: ReceivedMessage[] = [];
    const reading = (async () => {
      for await (const message of this.client.messages()) {
        messages.push(message);
        if (messages.length === count) return messages;
      }
      return messages;
    })();
    return inTime(reading, `${this.userId} to read ${count} messages`);
  }
  async texts(count: number): Promise<readonly string[]> {
    return (await this.read(count)).map(({ text }) => text);
  }

  /** Resolves when this client is a member of a conversation. */
  async joined(): Promise<void> {
    await this.events.first(({ type }) => type === 'joined', `${this.userId} to join`);
  }
}

/** Nodes red and blue, federated and running, and clients that end with the rig. */
export class Rig implements AsyncDisposable {
  readonly network: MemoryNetwork;
  readonly red: LocalNode;
  readonly blue: LocalNode;
  readonly directory = mkdtempSync(join(tmpdir(), 'qpc-clients-'));
  readonly #clients: RigClient[] = [];

  private constructor(network: MemoryNetwork, red: LocalNode, blue: LocalNode) {
    this.network = network;
    this.red = red;
    this.blue = blue;
  }

  /** `config`: what nodes have beside the usual, the same or each its own; `clock`: the time they live in. */
  static async make(
    config: string | readonly [red: string, blue: string] = '',
    clock: Clock = systemClock,
  ): Promise<Rig> {
    const [ofRed, ofBlue] = typeof config === 'string' ? [config, config] : config;
    const network = memoryNetwork(testRuntime);
    const runtime = { ...testRuntime, clock };
    const red = await LocalNode.create(network, 'red.example', ofRed, runtime);
    const blue = await LocalNode.create(network, 'blue.example', ofBlue, runtime);
    await red.start([blue]);
    await blue.start([red]);
    return new Rig(network, red, blue);
  }

  /** A registered client that is online. */
  async client(
    userId: string,
    clock?: Clock,
    options: Partial<OpenOptions> = {},
  ): Promise<RigClient> {
    const node = userId.endsWith(this.red.domain) ? this.red : this.blue;
    const client = new RigClient(userId, node, this.directory, clock);
    this.#clients.push(client);
    await client.open(options);
    await client.register();
    await client.start();
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) await client.close();
    await this.red[Symbol.asyncDispose]();
    await this.blue[Symbol.asyncDispose]();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
