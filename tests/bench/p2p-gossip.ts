/**
 * Question: how long from a new head's publication at one node until the last of n nodes has judged it,
 * and from the first connection until a fork is proven at both? Nodes in one process on loopback, TCP,
 * all connected to all; rounds of both sizes in turn.
 */
import { neighbours } from '@quicprochat/nodes/gossip';
import { systemClock } from '@quicprochat/proto';
import {
  asPeer,
  connect,
  isConvictedAt,
  logKeys,
  openLog,
  startNode,
  type TestNode,
} from '../cluster/gossip-nodes.ts';
import { median, percentile, type BenchReport, type Round } from './measure.ts';
import { takeTurns } from './report.ts';

const rounds = 3;
const heads = 10;
/** Meshes and subscriptions settle by gossipsub's heartbeat (ms). */
const settleMs = 3_000;
const giveUpMs = 120_000;

export async function p2pGossip(): Promise<BenchReport> {
  // Timers of libraries keep no process alive, and the first log has nothing else.
  const alive = setInterval(() => undefined, 1_000);
  try {
    return await measure();
  } finally {
    clearInterval(alive);
  }
}

async function measure(): Promise<BenchReport> {
  const [three = [], ten = [], twenty = []] = await takeTurns(
    'publish to last',
    'ms',
    rounds,
    [3, 10, 20].map((count) => ({ name: `${count} nodes`, measure: () => publishToLast(count) })),
  );
  const [healed = []] = await takeTurns('fork to evidence', 'ms', rounds, [
    { name: '2 nodes', measure: forkToEvidence },
  ]);
  return {
    question:
      'p2p-gossip: ms from publication to the last node; a fork from connection to evidence',
    rows: [
      { name: 'last of 10, over 3', unit: 'ms', baseline: three, candidate: ten },
      { name: 'last of 20, over 3', unit: 'ms', baseline: three, candidate: twenty },
      { name: 'fork proven, over last of 3', unit: 'ms', baseline: three, candidate: healed },
    ],
  };
}

async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + giveUpMs;
  while (!(await what())) {
    if (performance.now() > endMs) throw new Error(`bench: not within ${giveUpMs} ms`);
    await systemClock.sleep(1);
  }
}

async function publishToLast(count: number): Promise<Round> {
  const made = logKeys();
  await using log = await openLog(made);
  await log.append(1);
  const nodes: TestNode[] = [];
  try {
    for (let i = 0; i < count; i++) nodes.push(await startNode(made));
    const [first, ...others] = nodes;
    if (first === undefined) throw new Error('bench: no nodes');
    await Promise.all(
      nodes.map((node) => {
        const peers = nodes.filter((one) => one !== node).map(asPeer);
        return node.swarm.setPeers(neighbours(node.key.peerId, peers));
      }),
    );
    // Nobody answers who did not choose it too: of those that chose each other all have to be up.
    await until(() => nodes.every(({ gossip }) => gossip.up.size >= Math.min(count - 1, 2)));
    await systemClock.sleep(settleMs);
    const times: number[] = [];
    for (let i = 0; i < heads; i++) {
      await log.append(1);
      await first.follower.pull(log.source);
      for (const { wanted } of nodes) wanted.length = 0;
      const startMs = performance.now();
      await first.gossip.publishHead();
      await until(() => others.every(({ wanted }) => wanted.length > 0));
      times.push(performance.now() - startMs);
    }
    return { value: median(times), notes: { maxMs: percentile(times, 1), count: times.length } };
  } finally {
    await Promise.all(nodes.map((node) => node[Symbol.asyncDispose]()));
  }
}

async function forkToEvidence(): Promise<Round> {
  const made = logKeys();
  await using one = await openLog(made);
  await using other = await openLog(made);
  await one.append(5);
  await other.append(4);
  await using anna = await startNode(made);
  await using bert = await startNode(made);
  await anna.follower.pull(one.source);
  await bert.follower.pull(other.source);
  const startMs = performance.now();
  await connect(anna, bert);
  await until(async () => (await isConvictedAt(anna)) && (await isConvictedAt(bert)));
  return { value: performance.now() - startMs, notes: {} };
}
