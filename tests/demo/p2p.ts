/**
 * `npm run demo:p2p`: three federated nodes and six clients as processes of their own, one group over all
 * of them. In the middle of the talk all three nodes are killed with SIGKILL, and nobody tells the
 * clients: they notice, and go on over libp2p with the addresses that they had told each other inside MLS.
 * Then the nodes return. Ends with tables that are computed from the closed stores, and exit code 1 if
 * anything was lost, doubled or out of order.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ClientProcess } from '../cluster/client-process.ts';
import { checkDelivery, percentile, type ClosedStore } from '../cluster/delivery-check.ts';
import { initCluster, type NodeProcess } from '../cluster/node-process.ts';
import { checkPaths, type PathVerdict } from './p2p-check.ts';

const domains = ['red.example', 'blue.example', 'green.example'];
const names = [
  ['anna', 'arne'],
  ['bert', 'beth'],
  ['carl', 'cora'],
];
const users = domains.flatMap((domain, at) => (names[at] ?? []).map((name) => `${name}@${domain}`));
/** Messages of each client, and the time between two of them (ms). */
const phases = {
  calm: { count: 20, everyMs: 250 },
  storm: { count: 10, everyMs: 250 },
  dark: { count: 40, everyMs: 500 },
  after: { count: 20, everyMs: 150 },
} as const;
/** Everything that was written must be everywhere within this time (ms). */
const settleMs = 60_000;

const directory = mkdtempSync(join(tmpdir(), 'qpc-demo-p2p-'));
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
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function run(): Promise<boolean> {
  say(`three nodes in ${directory}`);
  nodes.push(...(await initCluster(directory, domains)));
  for (const node of nodes) node.readyMs = settleMs;
  await Promise.all(nodes.map((node) => node.start()));
  const stores = users.map((userId): ClosedStore => ({
    userId,
    path: join(directory, `${userId}.db`),
    key: new Uint8Array(randomBytes(32)),
  }));
  await Promise.all(stores.map(startClient));
  say('six clients, two on each node: registered, keys published, swarms listening');
  const conversationHex = await makeGroup();
  say('one group over all three nodes; all six are members');

  let total = 0;
  const sendAll = async (phase: keyof typeof phases): Promise<void> => {
    const { count, everyMs } = phases[phase];
    total += count * clients.length;
    await Promise.all(
      clients.map((client) => {
        const prefix = `${phase} ${client.userId}`;
        return client.ask({ do: 'send', conversationHex, prefix, count, everyMs });
      }),
    );
  };
  await sendAll('calm');
  say(`${total} messages sent; ${progress()}`);

  const storm = sendAll('storm');
  await pause((phases.storm.count * phases.storm.everyMs) / 2);
  await Promise.all(nodes.map((node) => node.kill()));
  const darkFromMs = Date.now();
  say('all three nodes killed with SIGKILL in the middle of the talk; nobody tells the clients');
  await storm;
  await sendAll('dark');
  say(`${total} messages sent; ${progress()}`);
  const isBridged = await settled(total);
  say(`no node runs, and ${isBridged ? 'everybody has everything' : 'something is missing'}`);
  const darkUntilMs = Date.now();

  const after = sendAll('after');
  await Promise.all(nodes.map((node) => node.start()));
  say('the nodes are back');
  await after;
  say(`${total} messages sent in all; ${progress()}`);
  await settled(total);
  await Promise.all(clients.map((client) => client.ask({ do: 'flush', timeoutMs: settleMs })));
  say(`the clients have read everything; ${progress()}`);
  await Promise.all(clients.map((client) => client.close()));
  await Promise.all(nodes.map((node) => node.stop()));

  const verdict = checkDelivery(stores);
  const paths = checkPaths(stores, darkFromMs);
  printTable(verdict.clients, paths);
  printTimes(paths, { fromMs: darkFromMs, untilMs: darkUntilMs });
  const isComplete = verdict.clients.every(
    ({ sent, acknowledged, received }) => acknowledged === sent && sent + received === total,
  );
  const isOrdered = paths.every(({ disordered }) => disordered === 0);
  const isDirect = paths.every(({ received }) => received.direct > 0);
  return isBridged && verdict.isClean && isComplete && isOrdered && isDirect;
}

async function startClient(store: ClosedStore): Promise<void> {
  const node = nodes.find(({ domain }) => store.userId.endsWith(`@${domain}`));
  if (node === undefined) throw new Error(`${store.userId} has no node`);
  const client = new ClientProcess(store.userId);
  clients[users.indexOf(store.userId)] = client;
  client.start();
  const storeKeyHex = Buffer.from(store.key).toString('hex');
  await client.ask({ do: 'open', storePath: store.path, storeKeyHex, peers: true });
  await client.ask({
    do: 'register',
    userId: store.userId,
    password: randomBytes(12).toString('base64url'),
    nodeAddress: node.address,
  });
  await client.ask({ do: 'start' });
}

async function makeGroup(): Promise<string> {
  const [first, ...others] = clients;
  if (first === undefined) throw new Error('need clients');
  const made = await first.ask({ do: 'create', name: 'p2p', members: users.slice(1) });
  const conversationHex = String(made);
  const deadlineMs = performance.now() + settleMs;
  for (const client of others) {
    while (!((await client.ask({ do: 'conversations' })) as string[]).includes(conversationHex)) {
      if (performance.now() > deadlineMs) throw new Error(`${client.userId} did not join`);
      await pause(50);
    }
  }
  return conversationHex;
}

/** True when every client read all messages of the others; false when the time was over before. */
async function settled(total: number): Promise<boolean> {
  const wanted = total - total / clients.length;
  const deadlineMs = performance.now() + settleMs;
  while (!clients.every(({ received }) => received >= wanted)) {
    if (performance.now() > deadlineMs) return false;
    await pause(50);
  }
  return true;
}

function progress(): string {
  return `received: ${clients.map(({ userId, received }) => `${userId.split('@')[0]} ${received}`).join(', ')}`;
}

function printTable(
  clientsOf: ReturnType<typeof checkDelivery>['clients'],
  paths: readonly PathVerdict[],
): void {
  const row = (name: string, cells: readonly (string | number)[]): void =>
    console.log(`${name.padEnd(20)}${cells.map((cell) => String(cell).padStart(13)).join('')}`);
  const counts = ['sent', 'acknowledged', 'received', 'lost', 'doubled', 'undecryptable'] as const;
  console.log();
  row('client', [...counts, 'disordered']);
  for (const [at, client] of clientsOf.entries()) {
    const cells = [...counts.map((name) => client[name]), paths[at]?.disordered ?? 0];
    row(client.userId, cells);
  }
  console.log('\nBy which path the messages of others came, and copies of own ones left:');
  const came = ['node', 'direct', 'relay'] as const;
  const left = ['node', 'guest', 'direct', 'relay'] as const;
  row('client', [...came.map((name) => `via ${name}`), ...left.map((name) => `out ${name}`)]);
  for (const { userId, received, left: out } of paths) {
    row(userId, [...came.map((name) => received[name]), ...left.map((name) => out[name])]);
  }
}

function printTimes(
  paths: readonly PathVerdict[],
  dark: { readonly fromMs: number; readonly untilMs: number },
): void {
  const first = paths.map(({ firstPastNodesMs = Number.NaN }) => firstPastNodesMs - dark.fromMs);
  const list = first.map((ms) => (ms / 1000).toFixed(1)).join(', ');
  console.log(`\nNo node ran for ${((dark.untilMs - dark.fromMs) / 1000).toFixed(1)} s.`);
  console.log(`From the kill to the first message past the nodes, per client (s): ${list}`);
  const all = paths.flatMap(({ pastNodes }) => pastNodes);
  const afterMs = Math.max(...paths.map(({ firstPastNodesMs = 0 }) => firstPastNodesMs));
  console.log("From sealing to the recipient's disk, past the nodes (ms):");
  latencyLine('written in the dark', all);
  latencyLine(
    'once all had noticed',
    all.filter(({ sentMs }) => sentMs > afterMs),
  );
}

function latencyLine(name: string, deliveries: PathVerdict['pastNodes']): void {
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
    ? 'nothing lost, nothing doubled, everything in order; with no node at all the group went on'
    : 'FAILED',
);
process.exitCode = isGood ? 0 : 1;
