/**
 * `npm run demo`: two federated nodes and four clients as processes of their own, one group over
 * both nodes, node blue killed with SIGKILL in the middle of the traffic and started again. Keys
 * are verified in the nodes' key logs, which an auditor then follows; last, blue swaps a key. Ends
 * with a table that is computed from the closed stores, and exit code 1 if anything is wrong.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ClientProcess, ContactView, Refusal } from '../cluster/client-process.ts';
import { checkDelivery, type Verdict } from '../cluster/delivery-check.ts';
import type { NodeProcess } from '../cluster/node-process.ts';
import { pause, printLatency, printRow, Stage } from './stage.ts';

const auditorMain = fileURLToPath(new URL('../../kt-log/main.ts', import.meta.url));
const domains = ['red.example', 'blue.example'];
const users = ['alice@red.example', 'carol@red.example', 'bob@blue.example', 'dave@blue.example'];
/** Messages of each client: before, while node blue is killed, while it is dead, when it returns. */
const perPhase = { calm: 20, storm: 20, dead: 35, after: 35 };
const everyMs = 60;
/** After blue is back, everything must be everywhere within this time (ms). */
const settleMs = 30_000;
const stage = new Stage(domains, users, settleMs);
const say = (text: string): void => stage.say(text);

async function run(): Promise<boolean> {
  say(`two nodes in ${stage.directory}`);
  await stage.startNodes();
  const [red, blue] = stage.nodes;
  if (red === undefined || blue === undefined) throw new Error('need two nodes');
  say(`red  ${red.address} (pid ${red.pid})`);
  say(`blue ${blue.address} (pid ${blue.pid})`);
  const stores = await stage.startClients(false);
  say('alice and carol live on red, bob and dave on blue: registered with OPAQUE, keys published');
  const [alice] = stage.clients;
  if (alice === undefined) throw new Error('need clients');
  const conversationHex = await stage.makeGroup('demo');
  say('alice made a group over both nodes; all four are members');

  const talk = (phase: keyof typeof perPhase): Promise<void> =>
    stage.talk(conversationHex, phase, { count: perPhase[phase], everyMs });
  await talk('calm');
  say(`${stage.total} messages sent; ${stage.progress()}`);

  const storm = talk('storm');
  await pause((perPhase.storm * everyMs) / 2);
  await blue.kill();
  const deadFromMs = Date.now();
  say('node blue killed with SIGKILL in the middle of the traffic');
  await storm;
  await talk('dead');
  const deadUntilMs = Date.now();
  const inDark = perPhase.dead * users.length;
  say(
    `${stage.total} messages sent, the last ${inDark} by all four while blue is dead; ${stage.progress()}`,
  );

  const after = talk('after');
  await blue.start();
  say(`node blue is back (pid ${blue.pid})`);
  await after;
  say(`${stage.total} messages sent in all; ${stage.progress()}`);

  if (!(await stage.settled())) say(`not everything arrived in ${settleMs / 1000} s`);
  say(`the clients have read what came; ${stage.progress()}`);
  const isVerified = await showKeys(alice);
  const isAudited = await audit(blue);
  const isRefused = await attack(blue, alice);
  await stage.end();
  const verdict = checkDelivery(stores);
  printTable(verdict, { fromMs: deadFromMs, untilMs: deadUntilMs });
  const isComplete = verdict.clients.every(
    ({ sent, acknowledged, received }) => acknowledged === sent && sent + received === stage.total,
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
      await pause(200);
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
  const args = ['follow', node.address, '--once', '--state', join(stage.directory, 'auditor')];
  const child = spawn(process.execPath, [auditorMain, ...args, '--out', stage.directory], {
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
    printRow(name, cells, { name: 18, cell: 15 });
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
  printLatency(
    'sent before the kill',
    deliveries.filter(({ sentMs }) => sentMs < outage.fromMs),
  );
  printLatency('all, outage included', deliveries);
}

await stage.perform(
  run,
  'nothing lost, nothing doubled, everything decrypted; keys verified, the swap refused',
);
