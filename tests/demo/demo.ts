/**
 * `npm run demo`: two federated nodes and four clients as processes of their own, one group over
 * both nodes, node blue killed with SIGKILL in the middle of the traffic and started again. Keys
 * are verified in the nodes' key logs, which an auditor then follows; last, blue swaps a key. Ends
 * with a table that is computed from the closed stores, and exit code 1 if anything is wrong.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { ClientProcess, type ContactView, type Refusal } from '../cluster/client-process.ts';
import {
  checkDelivery,
  percentile,
  type ClosedStore,
  type Delivery,
  type Verdict,
} from '../cluster/delivery-check.ts';
import { initCluster, type NodeProcess } from '../cluster/node-process.ts';

const auditorMain = fileURLToPath(new URL('../../kt-log/main.ts', import.meta.url));
const domains = ['red.example', 'blue.example'];
const users = ['alice@red.example', 'carol@red.example', 'bob@blue.example', 'dave@blue.example'];
/** Messages of each client: before, while node blue is killed, while it is dead, when it returns. */
const perPhase = { calm: 20, storm: 20, dead: 35, after: 35 };
const everyMs = 60;
/** After blue is back, everything must be everywhere within this time (ms). */
const settleMs = 30_000;

const directory = mkdtempSync(join(tmpdir(), 'qpc-demo-'));
const nodes: NodeProcess[] = [];
const clients: ClientProcess[] = [];

let isEnding = false;
/** Ends every process by its id and removes the directory; also on Ctrl-C. */
async function cleanUp(): Promise<void> {
  isEnding = true;
  await Promise.allSettled([...clients, ...nodes].map((one) => one[Symbol.asyncDispose]()));
  rmSync(directory, { recursive: true, force: true });
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    if (!isEnding) void cleanUp().then(() => process.exit(130));
  });
}

const startedMs = performance.now();
function say(text: string): void {
  console.log(`${((performance.now() - startedMs) / 1000).toFixed(1).padStart(5)} s  ${text}`);
}

async function run(): Promise<boolean> {
  say(`two nodes in ${directory}`);
  nodes.push(...(await initCluster(directory, domains)));
  const [red, blue] = nodes;
  if (red === undefined || blue === undefined) throw new Error('need two nodes');
  await Promise.all([red.start(), blue.start()]);
  say(`red  ${red.address} (pid ${red.pid})`);
  say(`blue ${blue.address} (pid ${blue.pid})`);

  const stores = users.map((userId): ClosedStore => ({
    userId,
    path: join(directory, `${userId}.db`),
    key: new Uint8Array(randomBytes(32)),
  }));
  await Promise.all(
    stores.map((store) => startClient(store, store.userId.endsWith(red.domain) ? red : blue)),
  );
  say('alice and carol live on red, bob and dave on blue: registered with OPAQUE, keys published');

  const [alice] = clients;
  if (alice === undefined) throw new Error('need clients');
  const conversationHex = String(
    await alice.ask({ do: 'create', name: 'demo', members: users.slice(1) }),
  );
  await Promise.all(clients.slice(1).map((client) => joined(client, conversationHex)));
  say('alice made a group over both nodes; all four are members');

  let total = 0;
  const sendAll = async (phase: string, count: number): Promise<void> => {
    total += count * clients.length;
    const sends = clients.map((client) => {
      const prefix = `${phase} ${client.userId}`;
      return client.ask({ do: 'send', conversationHex, prefix, count, everyMs });
    });
    await Promise.all(sends);
  };
  await sendAll('calm', perPhase.calm);
  say(`${total} messages sent; ${progress()}`);

  const storm = sendAll('storm', perPhase.storm);
  await new Promise((resolve) => setTimeout(resolve, (perPhase.storm * everyMs) / 2));
  await blue.kill();
  const deadFromMs = Date.now();
  say('node blue killed with SIGKILL in the middle of the traffic');
  await storm;
  await sendAll('dead', perPhase.dead);
  const deadUntilMs = Date.now();
  say(
    `${total} messages sent, the last ${perPhase.dead * clients.length} by all four while blue is dead; ${progress()}`,
  );

  const after = sendAll('after', perPhase.after);
  await blue.start();
  say(`node blue is back (pid ${blue.pid})`);
  await after;
  say(`${total} messages sent in all; ${progress()}`);

  await settled(total);
  await Promise.all(clients.map((client) => client.ask({ do: 'flush', timeoutMs: settleMs })));
  say(`the clients have read everything; ${progress()}`);
  const isVerified = await showKeys(alice);
  const isAudited = await audit(blue);
  const isRefused = await attack(blue, alice);
  await Promise.all(clients.map((client) => client.close()));
  await Promise.all(nodes.map((node) => node.stop()));
  const verdict = checkDelivery(stores);
  printTable(verdict, { fromMs: deadFromMs, untilMs: deadUntilMs });
  const isComplete = verdict.clients.every(
    ({ sent, acknowledged, received }) => acknowledged === sent && sent + received === total,
  );
  return verdict.isClean && isComplete && isVerified && isAudited && isRefused;
}

/** How alice knows the keys of the others; true when auditors cosigned what she saw. */
async function showKeys(alice: ClientProcess): Promise<boolean> {
  const deadlineMs = performance.now() + settleMs;
  for (;;) {
    const views: [string, ContactView | null][] = [];
    for (const userId of users.slice(1)) {
      views.push([userId, (await alice.ask({ do: 'contact', userId })) as ContactView | null]);
    }
    const isWitnessed = views.every(([, view]) => view?.verification === 'witnessed');
    if (!isWitnessed && performance.now() < deadlineMs) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      continue;
    }
    for (const [userId, view] of views) {
      say(
        view === null
          ? `alice knows no keys of ${userId}`
          : `alice has ${userId}: version ${view.version}, ${view.verification}, proved in a log of ${view.treeSize} entries`,
      );
    }
    return isWitnessed;
  }
}

/** An auditor without an account follows blue's log from its first entry. */
async function audit(node: NodeProcess): Promise<boolean> {
  say(`qpc-audit follow ${node.address.replace(/#.*/u, '#..')} --once`);
  const args = ['follow', node.address, '--once', '--state', join(directory, 'auditor')];
  const child = spawn(process.execPath, [auditorMain, ...args, '--out', directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  for await (const line of createInterface({ input: child.stdout }))
    console.log(`         ${line}`);
  if (child.exitCode === null) await once(child, 'exit');
  return child.exitCode === 0;
}

/** Blue's operator swaps dave's keys for some of his own; alice asks for them. */
async function attack(blue: NodeProcess, alice: ClientProcess): Promise<boolean> {
  const victim = 'dave@blue.example';
  await blue.stop();
  await blue.startLying(victim);
  say(`node blue is back with a lie: it swaps the keys of ${victim}`);
  const request = { do: 'createRefused', name: 'trap', members: [victim] } as const;
  const refusal = (await alice.ask(request)) as Refusal | null;
  await blue.stop();
  await blue.start();
  if (refusal === null) {
    say('alice believed it');
    return false;
  }
  say(`alice refuses: ${refusal.reason}`);
  console.log(`         ${refusal.message}`);
  return refusal.reason === 'NOT_IN_LOG';
}

async function startClient(store: ClosedStore, node: NodeProcess): Promise<void> {
  const client = new ClientProcess(store.userId);
  // In the order of `users`, whoever registers first.
  clients[users.indexOf(store.userId)] = client;
  client.start();
  await client.ask({
    do: 'open',
    storePath: store.path,
    storeKeyHex: Buffer.from(store.key).toString('hex'),
  });
  await client.ask({
    do: 'register',
    userId: store.userId,
    password: randomBytes(12).toString('base64url'),
    nodeAddress: node.address,
  });
  await client.ask({ do: 'start' });
}

async function joined(client: ClientProcess, conversationHex: string): Promise<void> {
  const deadlineMs = performance.now() + settleMs;
  while (performance.now() < deadlineMs) {
    const known = (await client.ask({ do: 'conversations' })) as string[];
    if (known.includes(conversationHex)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${client.userId} did not join in ${settleMs} ms`);
}

/** Resolves when every client read all messages of the others, or the time is over. */
async function settled(total: number): Promise<void> {
  const wanted = total - total / clients.length;
  const done = Promise.withResolvers<void>();
  const look = (): void => {
    if (clients.every(({ received }) => received >= wanted)) done.resolve();
  };
  for (const client of clients) client.onProgress = look;
  look();
  const timer = setTimeout(() => {
    say(`not everything arrived in ${settleMs / 1000} s`);
    done.resolve();
  }, settleMs);
  await done.promise;
  clearTimeout(timer);
}

function progress(): string {
  return `received: ${clients.map(({ userId, received }) => `${userId.split('@')[0]} ${received}`).join(', ')}`;
}

function printTable(verdict: Verdict, outage: { fromMs: number; untilMs: number }): void {
  const columns = [
    'sent',
    'acknowledged',
    'received',
    'lost',
    'doubled',
    'undecryptable',
    'refused',
  ] as const;
  const row = (name: string, cells: readonly (string | number)[]): void =>
    console.log(`${name.padEnd(18)}${cells.map((cell) => String(cell).padStart(15)).join('')}`);
  console.log();
  row('client', columns);
  for (const client of verdict.clients)
    row(
      client.userId,
      columns.map((name) => client[name]),
    );
  const sum = (name: (typeof columns)[number]): number =>
    verdict.clients.reduce((total, client) => total + client[name], 0);
  row('all', columns.map(sum));

  const { deliveries } = verdict;
  const inOutage = ({ sentMs }: { readonly sentMs: number }): boolean =>
    sentMs >= outage.fromMs && sentMs <= outage.untilMs;
  const outageMessages = new Set(deliveries.filter(inOutage).map(({ messageId }) => messageId));
  console.log(`\n${outageMessages.size} messages were sealed while node blue was dead.`);
  console.log("Latency from sealing to the recipient's disk (ms):");
  latencyLine(
    'sent before the kill',
    deliveries.filter(({ sentMs }) => sentMs < outage.fromMs),
  );
  latencyLine('all, outage included', deliveries);
}

function latencyLine(name: string, deliveries: readonly Delivery[]): void {
  const sorted = deliveries.map(({ latencyMs }) => latencyMs).sort((a, b) => a - b);
  const cells = [`median ${percentile(sorted, 0.5)}`, `p99 ${percentile(sorted, 0.99)}`];
  console.log(`  ${name.padEnd(22)}${cells.join('   ')}   (${sorted.length} deliveries)`);
}

let isGood = false;
try {
  isGood = await run();
} catch (error) {
  // On Ctrl-C the processes end under the run's hands; the signal's handler has the last word.
  if (isEnding) await new Promise(() => undefined);
  console.error(error);
  for (const node of nodes) {
    console.error(`-- ${node.domain}\n${node.logLines.slice(-20).join('\n')}`);
  }
}
await cleanUp();
say(
  isGood
    ? 'nothing lost, nothing doubled, everything decrypted; keys verified, the swap refused'
    : 'FAILED',
);
process.exitCode = isGood ? 0 : 1;
