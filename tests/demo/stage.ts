/**
 * What both demos stand on: nodes and clients as processes of their own in one directory, a talking
 * group, what was received so far, and an end that leaves no process and no file behind, also on Ctrl-C.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ClientProcess } from '../cluster/client-process.ts';
import { percentile, type ClosedStore, type Delivery } from '../cluster/delivery-check.ts';
import { initCluster, type NodeProcess } from '../cluster/node-process.ts';

export interface Talk {
  /** Messages of each client. */
  readonly count: number;
  /** Between two of them (ms). */
  readonly everyMs: number;
}

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

export class Stage {
  readonly directory = mkdtempSync(join(tmpdir(), 'qpc-demo-'));
  readonly users: readonly string[];
  readonly #domains: readonly string[];
  readonly #settleMs: number;
  readonly #startedMs = performance.now();
  readonly #nodes: NodeProcess[] = [];
  readonly #clients: ClientProcess[] = [];
  #total = 0;
  #isEnding = false;

  /** `settleMs`: within this time everything must be everywhere. */
  constructor(domains: readonly string[], users: readonly string[], settleMs: number) {
    this.#domains = domains;
    this.users = users;
    this.#settleMs = settleMs;
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => {
        if (!this.#isEnding) void this.#cleanUp().then(() => process.exit(130));
      });
    }
  }

  /** In the order of the domains. */
  get nodes(): readonly NodeProcess[] {
    return this.#nodes;
  }

  /** In the order of the users. */
  get clients(): readonly ClientProcess[] {
    return this.#clients;
  }

  /** Messages that were sent so far, or are being sent. */
  get total(): number {
    return this.#total;
  }

  say(text: string): void {
    const seconds = (performance.now() - this.#startedMs) / 1000;
    console.log(`${seconds.toFixed(1).padStart(5)} s  ${text}`);
  }

  /** Runs it, ends every process by its id, and says how it went; sets the exit code. */
  async perform(run: () => Promise<boolean>, praise: string): Promise<void> {
    let isGood = false;
    try {
      isGood = await run();
    } catch (error) {
      // On Ctrl-C the processes end under the run's hands; the signal's handler has the last word.
      if (this.#isEnding) await new Promise(() => undefined);
      console.error(error);
      for (const { domain, logLines } of this.#nodes) {
        console.error(`-- ${domain}\n${logLines.slice(-20).join('\n')}`);
      }
    }
    await this.#cleanUp();
    this.say(isGood ? praise : 'FAILED');
    process.exitCode = isGood ? 0 : 1;
  }

  async #cleanUp(): Promise<void> {
    this.#isEnding = true;
    const processes = [...this.#clients, ...this.#nodes];
    await Promise.allSettled(processes.map((one) => one[Symbol.asyncDispose]()));
    rmSync(this.directory, { recursive: true, force: true });
  }

  async startNodes(): Promise<void> {
    this.#nodes.push(...(await initCluster(this.directory, this.#domains)));
    for (const node of this.#nodes) node.readyMs = this.#settleMs;
    await Promise.all(this.#nodes.map((node) => node.start()));
  }

  /** Each user registers at the node of their domain; `peers` opens swarms for them. */
  async startClients(peers: boolean): Promise<readonly ClosedStore[]> {
    const stores = this.users.map((userId): ClosedStore => ({
      userId,
      path: join(this.directory, `${userId}.db`),
      key: new Uint8Array(randomBytes(32)),
    }));
    await Promise.all(stores.map((store) => this.#startClient(store, peers)));
    return stores;
  }

  async #startClient({ userId, path, key }: ClosedStore, peers: boolean): Promise<void> {
    const node = this.#nodes.find(({ domain }) => userId.endsWith(`@${domain}`));
    if (node === undefined) throw new Error(`${userId} has no node`);
    const client = new ClientProcess(userId);
    // In the order of the users, whoever registers first.
    this.#clients[this.users.indexOf(userId)] = client;
    client.start();
    const storeKeyHex = Buffer.from(key).toString('hex');
    await client.ask({ do: 'open', storePath: path, storeKeyHex, peers });
    await client.ask({
      do: 'register',
      userId,
      password: randomBytes(12).toString('base64url'),
      nodeAddress: node.address,
    });
    await client.ask({ do: 'start' });
  }

  /** The first client makes a group of all; resolves when everybody is in it. */
  async makeGroup(name: string): Promise<string> {
    const [first, ...others] = this.#clients;
    if (first === undefined) throw new Error('need clients');
    const made = await first.ask({ do: 'create', name, members: this.users.slice(1) });
    const conversationHex = String(made);
    const deadlineMs = performance.now() + this.#settleMs;
    for (const client of others) {
      while (!((await client.ask({ do: 'conversations' })) as string[]).includes(conversationHex)) {
        if (performance.now() > deadlineMs) throw new Error(`${client.userId} did not join`);
        await pause(50);
      }
    }
    return conversationHex;
  }

  /** All clients talk at once. */
  async talk(conversationHex: string, phase: string, { count, everyMs }: Talk): Promise<void> {
    this.#total += count * this.#clients.length;
    const sends = this.#clients.map((client) => {
      const prefix = `${phase} ${client.userId}`;
      return client.ask({ do: 'send', conversationHex, prefix, count, everyMs });
    });
    await Promise.all(sends);
  }

  /** True when every client read all messages of the others; false when the time was over before. */
  async settled(): Promise<boolean> {
    const wanted = this.#total - this.#total / this.#clients.length;
    const deadlineMs = performance.now() + this.#settleMs;
    while (!this.#clients.every(({ received }) => received >= wanted)) {
      if (performance.now() > deadlineMs) return false;
      await pause(50);
    }
    return true;
  }

  progress(): string {
    const counts = this.#clients.map(({ userId, received }) => `${nameOf(userId)} ${received}`);
    return `received: ${counts.join(', ')}`;
  }

  /** Everything is acknowledged; then all end in good order, and their stores are closed. */
  async end(): Promise<void> {
    const timeoutMs = this.#settleMs;
    await Promise.all(this.#clients.map((client) => client.ask({ do: 'flush', timeoutMs })));
    await Promise.all(this.#clients.map((client) => client.close()));
    await Promise.all(this.#nodes.map((node) => node.stop()));
  }
}

const nameOf = (userId: string): string => userId.split('@')[0] ?? userId;

/** A row of a table on the terminal: the name, then cells that are `width` wide. */
export function printRow(
  name: string,
  cells: readonly (string | number)[],
  widths: { readonly name: number; readonly cell: number },
): void {
  const padded = cells.map((cell) => String(cell).padStart(widths.cell));
  console.log(`${name.padEnd(widths.name)}${padded.join('')}`);
}

export function printLatency(
  name: string,
  deliveries: readonly Pick<Delivery, 'latencyMs'>[],
): void {
  const sorted = deliveries.map(({ latencyMs }) => latencyMs).sort((a, b) => a - b);
  const cells = [`median ${percentile(sorted, 0.5)}`, `p99 ${percentile(sorted, 0.99)}`];
  console.log(`  ${name.padEnd(22)}${cells.join('   ')}   (${sorted.length} deliveries)`);
}
