/**
 * Question: how long from the death of nodes until a message written then is on its recipient's disk, past
 * them? Baseline: a message through two living nodes, of the same clients. Once the own node alone is
 * killed, once both are: then it goes from device to device, over libp2p-quic on loopback.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { ClientProcess } from '../cluster/client-process.ts';
import { initCluster, type NodeProcess } from '../cluster/node-process.ts';
import type { BenchReport, Comparison, Round } from './measure.ts';
import { takeTurns } from './report.ts';
import type { Scratch } from './scratch.ts';

const rounds = 3;
const patienceMs = 60_000;

/** Two clients of two nodes, in one conversation, who know where the other one is. */
class Pair {
  readonly nodes: readonly NodeProcess[];
  readonly #anna: ClientProcess;
  readonly #bert: ClientProcess;
  readonly #conversationHex: string;
  #count = 0;

  private constructor(
    nodes: readonly NodeProcess[],
    [anna, bert]: readonly [ClientProcess, ClientProcess],
    conversationHex: string,
  ) {
    this.nodes = nodes;
    this.#anna = anna;
    this.#bert = bert;
    this.#conversationHex = conversationHex;
  }

  static async make(scratch: Scratch, anna: ClientProcess, bert: ClientProcess): Promise<Pair> {
    const nodes = await initCluster(scratch.directory, ['red.example', 'blue.example']);
    scratch.own(nodes);
    await Promise.all(nodes.map((node) => node.start()));
    for (const client of [anna, bert]) await startClient(scratch, client, nodes);
    const request = { do: 'create', name: 'bench', members: [bert.userId] } as const;
    const pair = new Pair(nodes, [anna, bert], String(await anna.ask(request)));
    await pair.#until(async () => ((await bert.ask({ do: 'conversations' })) as []).length > 0);
    await pair.say();
    // Who wrote nothing tells nobody where it is.
    const conversationHex = pair.#conversationHex;
    await bert.ask({ do: 'say', conversationHex, text: 'hello' });
    await pair.#until(async () => anna.received > 0);
    return pair;
  }

  /** From writing a text to its recipient's disk (ms). */
  async say(): Promise<number> {
    this.#count += 1;
    const text = `text ${this.#count}`;
    const startMs = performance.now();
    const arrived = Promise.withResolvers<void>();
    this.#bert.onProgress = (progress) => {
      if ('received' in progress && progress.text === text) arrived.resolve();
    };
    const timer = setTimeout(() => arrived.reject(new Error('nothing came')), patienceMs);
    try {
      await this.#anna.ask({ do: 'say', conversationHex: this.#conversationHex, text });
      await arrived.promise;
    } finally {
      clearTimeout(timer);
    }
    return performance.now() - startMs;
  }

  /** The same at the moment in which these nodes die; then they come back. */
  async sayAtDeathOf(dying: readonly NodeProcess[]): Promise<Round> {
    await Promise.all(dying.map((node) => node.kill()));
    const value = await this.say();
    await Promise.all(dying.map((node) => node.start()));
    // Through the nodes again, before the next round begins.
    for (const client of [this.#anna, this.#bert]) {
      await client.ask({ do: 'online', timeoutMs: patienceMs });
      await client.ask({ do: 'flush', timeoutMs: patienceMs });
    }
    await this.say();
    return { value, notes: {} };
  }

  async #until(what: () => Promise<boolean>): Promise<void> {
    const deadlineMs = performance.now() + patienceMs;
    while (!(await what())) {
      if (performance.now() > deadlineMs) throw new Error('the clients do not get together');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

async function startClient(
  { directory }: Scratch,
  client: ClientProcess,
  nodes: readonly NodeProcess[],
): Promise<void> {
  const { userId } = client;
  const node = nodes.find(({ domain }) => userId.endsWith(`@${domain}`));
  if (node === undefined) throw new Error(`${userId} has no node`);
  client.start();
  const storeKeyHex = randomBytes(32).toString('hex');
  const storePath = join(directory, `${userId}.db`);
  await client.ask({ do: 'open', storePath, storeKeyHex, peers: true });
  const password = randomBytes(12).toString('base64url');
  await client.ask({ do: 'register', userId, password, nodeAddress: node.address });
  await client.ask({ do: 'start' });
}

export async function fallback(scratch: Scratch): Promise<BenchReport> {
  const unit = 'ms';
  await using anna = new ClientProcess('anna@red.example');
  await using bert = new ClientProcess('bert@blue.example');
  const pair = await Pair.make(scratch, anna, bert);
  const [red] = pair.nodes;
  const [baseline = [], own = [], both = []] = await takeTurns('writing to disk', unit, rounds, [
    { name: 'through nodes', measure: async () => ({ value: await pair.say(), notes: {} }) },
    {
      name: 'own node killed',
      measure: () => pair.sayAtDeathOf(red === undefined ? [] : [red]),
    },
    { name: 'both nodes killed', measure: () => pair.sayAtDeathOf(pair.nodes) },
  ]);
  const rows: Comparison[] = [
    { name: 'own node killed, as a guest over through nodes', unit, baseline, candidate: own },
    { name: 'both killed, direct over through nodes', unit, baseline, candidate: both },
  ];
  return {
    question:
      'fallback: ms from the death of nodes, and a message written then, to its recipient (less is better)',
    rows,
  };
}
