/**
 * `npm run demo:p2p`: three federated nodes and six clients as processes of their own, one group over all
 * of them. In the middle of the talk all three nodes are killed with SIGKILL, and nobody tells the
 * clients: they notice, and go on over libp2p with the addresses that they had told each other inside MLS.
 * Then the nodes return. Ends with tables that are computed from the closed stores, and exit code 1 if
 * anything was lost, doubled or out of order.
 */
import { checkDelivery } from '../cluster/delivery-check.ts';
import { checkPaths, type PathVerdict } from './p2p-check.ts';
import { pause, printLatency, printRow, Stage } from './stage.ts';

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

const stage = new Stage(domains, users, settleMs);
const say = (text: string): void => stage.say(text);

async function run(): Promise<boolean> {
  say(`three nodes in ${stage.directory}`);
  await stage.startNodes();
  const stores = await stage.startClients(true);
  say('six clients, two on each node: registered, keys published, swarms listening');
  const conversationHex = await stage.makeGroup('p2p');
  say('one group over all three nodes; all six are members');

  const talk = (phase: keyof typeof phases): Promise<void> =>
    stage.talk(conversationHex, phase, phases[phase]);
  await talk('calm');
  say(`${stage.total} messages sent; ${stage.progress()}`);

  const storm = talk('storm');
  await pause((phases.storm.count * phases.storm.everyMs) / 2);
  await Promise.all(stage.nodes.map((node) => node.kill()));
  const darkFromMs = Date.now();
  say('all three nodes killed with SIGKILL in the middle of the talk; nobody tells the clients');
  await storm;
  await talk('dark');
  say(`${stage.total} messages sent; ${stage.progress()}`);
  const isBridged = await stage.settled();
  say(`no node runs, and ${isBridged ? 'everybody has everything' : 'something is missing'}`);
  const darkUntilMs = Date.now();

  const after = talk('after');
  await Promise.all(stage.nodes.map((node) => node.start()));
  say('the nodes are back');
  await after;
  say(`${stage.total} messages sent in all; ${stage.progress()}`);
  await stage.settled();
  say(`the clients have read what came; ${stage.progress()}`);
  await stage.end();

  const verdict = checkDelivery(stores);
  const paths = checkPaths(stores, darkFromMs);
  printTable(verdict.clients, paths);
  printTimes(paths, { fromMs: darkFromMs, untilMs: darkUntilMs });
  const isComplete = verdict.clients.every(
    ({ sent, acknowledged, received }) => acknowledged === sent && sent + received === stage.total,
  );
  const isOrdered = paths.every(({ disordered }) => disordered === 0);
  const isDirect = paths.every(({ received }) => received.direct > 0);
  return isBridged && verdict.isClean && isComplete && isOrdered && isDirect;
}

function printTable(
  clientsOf: ReturnType<typeof checkDelivery>['clients'],
  paths: readonly PathVerdict[],
): void {
  const row = (name: string, cells: readonly (string | number)[]): void =>
    printRow(name, cells, { name: 20, cell: 13 });
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
  printLatency('written in the dark', all);
  printLatency(
    'once all had noticed',
    all.filter(({ sentMs }) => sentMs > afterMs),
  );
}

await stage.perform(
  run,
  'nothing lost, nothing doubled, everything in order; with no node at all the group went on',
);
