/** One run: a seed and a mix in, what happened and what was wrong with it out. */
import {
  allShown,
  blockedHidden,
  bounded,
  fifo,
  intentsEnd,
  live,
  membersOnly,
  noDup,
  noGap,
  noLoss,
  oneKey,
  oneLog,
  shownOnce,
  type History,
  type Violation,
} from '../checkers/index.ts';
import { overtakenCount } from '../chaos/left-over.ts';
import type { SimClient } from './client.ts';
import { Cluster } from './cluster.ts';
import { beginFaults } from './faults.ts';
import { Holdings } from './holdings.ts';
import { losesDisks, type Mix } from './mixes.ts';
import { Outside } from './outside.ts';
import type { LogSink } from './process.ts';
import { Scheduler } from './scheduler.ts';
import { readRest, work, type WorkDone } from './workload.ts';
import type { World } from './world.ts';

export interface RunOptions {
  readonly world: World;
  readonly seed: number;
  readonly mix: Mix;
  /** Client operations. */
  readonly operations?: number;
  /**
   * Instead of the mix's. Without a night after lost disks nothing is said of messages that only those
   * held: invariants, doubles and what is readable are judged all the same.
   */
  readonly nights?: number;
  /**
   * Of the planned operations and faults only these take place (`RunResult.planned`), beside calls that
   * get lost and deaths at crash points. The others draw as before.
   */
  readonly only?: ReadonlySet<string>;
  readonly onLine?: (line: string) => void;
  readonly onLog?: LogSink;
}

export interface RunResult {
  readonly seed: number;
  readonly mix: string;
  /** Equal for equal seeds, byte by byte. */
  readonly hash: string;
  readonly violations: readonly Violation[];
  readonly faults: ReadonlyMap<string, number>;
  /** Commits that hubs accepted, and how often one lost its epoch to another. */
  readonly commits: { readonly accepted: number; readonly lost: number };
  readonly work: WorkDone;
  /** Names of the operations and planned faults that took place, in order. */
  readonly planned: readonly string[];
  readonly history: History;
  /** Events that the scheduler ran, and simulated time (ms). */
  readonly steps: number;
  readonly simulatedMs: number;
  /** From the last fault until nothing was left to do (ms). */
  readonly drainMs: number;
  /** What a drain still waited for when its time was over; empty in most runs. */
  readonly waitedFor: readonly string[];
  /** Full looks at the nodes' databases. */
  readonly looks: number;
  /** Messages that devices took in past nodes. */
  readonly pastNodes: { readonly direct: number; readonly relay: number };
}

const operationsDefault = 300;
/** Epochs whose keys a device keeps besides the one that it is in (client-lib/mls/suite.ts). */
const epochsKept = 8;
/** How often it is looked whether everything has drained, and for how long that must hold (ms). */
const drainLookMs = 2_000;
const calmMs = 6_000;
/** A night: so long clients are closed; a copy without a receipt is sent again after a day. */
const hourMs = 3_600_000;
const nightMs = 25 * hourMs;
/** After a start, and after a hole was seen: what is sent again has left by then (ms). */
const lookAroundMs = 4 * 60_000;
/** How often it is looked what everybody holds, and whether all databases fit to what was said (ms). */
const holdingsMs = 4_000;
const databasesMs = 20_000;
/** In which every application takes what is left for it (ms). */
const readRestMs = 2_000;
/** A run that works no faster than this hangs (simulated ms). */
const workMaxMs = 4 * 3600_000;

export async function runSeed(options: RunOptions): Promise<RunResult> {
  const { world, seed, mix, operations = operationsDefault, onLine, onLog, only } = options;
  const { nights = mix.nights } = options;
  const owing = { epochsKept, isSealedAnew: nights > 0 };
  const areLossesJudged = !losesDisks(mix) || nights > 0;
  const scheduler = new Scheduler();
  using outside = new Outside(scheduler, onLine === undefined);
  using cluster = new Cluster({
    world,
    mix,
    seed,
    scheduler,
    ...(onLine === undefined ? {} : { onLine }),
    ...(onLog === undefined ? {} : { onLog }),
    ...(only === undefined ? {} : { only }),
  });
  const { trace, ledger, proofs, violations } = cluster;
  cluster.start();
  beginFaults(cluster);
  const holdings = new Holdings(cluster);
  const lookOn = (everyMs: number, look: () => void): void => {
    scheduler.after(everyMs, () => {
      if (cluster.isHealed) return;
      look();
      lookOn(everyMs, look);
    });
  };
  lookOn(holdingsMs, () => holdings.look(false));
  lookOn(databasesMs, () => ledger.look(cluster.nodes.filter((node) => node.isUp)));
  let done: WorkDone | undefined;
  void work(cluster, operations).then((counts) => (done = counts));
  await scheduler.run(workMaxMs, () => done !== undefined);
  // A last while, so that the operations that began last have met faults too.
  await scheduler.run(scheduler.nowMs + 5_000);
  cluster.heal();
  let { drainMs, waitedFor } = await drain(cluster, mix);
  for (let night = 0; night < nights; night += 1) {
    // Holes are asked for after a minute, and other members answer a minute later.
    await scheduler.run(scheduler.nowMs + lookAroundMs);
    await sleep(cluster);
    await scheduler.run(scheduler.nowMs + lookAroundMs);
    const next = await drain(cluster, mix);
    drainMs = Math.max(drainMs, next.drainMs);
    waitedFor = [...waitedFor, ...next.waitedFor];
  }
  await readOut(cluster, mix);
  const up = cluster.nodes.filter((node) => node.isUp);
  if (up.length < cluster.nodes.length) cluster.find('live', 'a node is down');
  ledger.look(up);
  // Whatever was lost: what is there has to get where it should, and be taken.
  for (const node of up) {
    if (!ledger.isIdle(node)) cluster.find('I8', `${node.domain} still holds rows`);
  }
  for (const one of cluster.clients) {
    if (!one.isUp) {
      cluster.find('live', `${one.name} is down`);
      continue;
    }
    trace.tell({
      kind: 'rest',
      atMs: trace.nowMs,
      device: one.name,
      unsent: one.store.outbox.openCount(),
      parked: leftOver(one, cluster),
    });
  }
  holdings.look(true);
  if (outside.begun > 0)
    cluster.find('escaped', `${outside.begun} pieces of work left the scheduler`);
  for (const error of outside.uncaught) cluster.find('uncaught', error);
  if (done === undefined) cluster.find('live', 'the workload did not end');
  const { history } = trace;
  return {
    seed,
    mix: mix.name,
    hash: trace.digest(),
    violations: [
      ...violations,
      ...ledger.violations,
      ...proofs.violations,
      ...(areLossesJudged
        ? [...noLoss(history, { promised: 'sent', ...owing }), ...noGap(history, owing)]
        : []),
      ...noDup(history),
      ...shownOnce(history),
      ...allShown(history),
      ...fifo(history, { isRelayedInOrder: isRelayedInOrder(mix) }),
      ...oneLog(history),
      ...oneKey(history),
      ...membersOnly(history),
      ...intentsEnd(history),
      // A lost commit comes again with the night, and what follows it waits until then.
      ...(areLossesJudged
        ? live(history, mix.drainMaxMs + nights * (nightMs + mix.drainMaxMs))
        : []),
      ...blockedHidden(history),
      ...bounded(history),
      ...unexplained(history, mix),
    ],
    faults: trace.faults,
    commits: trace.commits,
    planned: cluster.planned,
    work: done ?? { counts: new Map(), operations: 0 },
    history,
    steps: scheduler.steps,
    simulatedMs: scheduler.nowMs,
    drainMs,
    waitedFor,
    looks: ledger.looks,
    pastNodes: cluster.swarms?.stored ?? { direct: 0, relay: 0 },
  };
}

/** Whether nothing lets a row that another node took pass an older one of its sender. */
function isRelayedInOrder(mix: Mix): boolean {
  const { channels, people, limits, ttlMs, swarm } = mix;
  const isPlain = channels + people === 0 && limits === '' && ttlMs === undefined;
  return isPlain && swarm === undefined && !losesDisks(mix);
}

/** Runs until nothing is on its way any more, and that lasted, or its time is over. */
async function drain(
  cluster: Cluster,
  { drainMaxMs }: Mix,
): Promise<Pick<RunResult, 'drainMs' | 'waitedFor'>> {
  const { scheduler } = cluster;
  const beganMs = scheduler.nowMs;
  let calmSinceMs: number | undefined;
  while (scheduler.nowMs < beganMs + drainMaxMs) {
    if (onItsWay(cluster).length > 0) calmSinceMs = undefined;
    else if (calmSinceMs === undefined) calmSinceMs = scheduler.nowMs;
    else if (scheduler.nowMs - calmSinceMs >= calmMs) break;
    await scheduler.run(scheduler.nowMs + drainLookMs);
  }
  const drainMs = (calmSinceMs ?? scheduler.nowMs) - beganMs;
  return { drainMs, waitedFor: calmSinceMs === undefined ? onItsWay(cluster) : [] };
}

/**
 * Applications read what is left, until nothing came meanwhile and nothing is on its way: a question for
 * what may be missing can begin at any moment, and its answer is no row left over.
 */
async function readOut(cluster: Cluster, mix: Mix): Promise<void> {
  const { scheduler, trace } = cluster;
  const stored = (): number => trace.history.filter(({ kind }) => kind === 'stored').length;
  const endMs = scheduler.nowMs + mix.drainMaxMs;
  for (;;) {
    const before = stored();
    cluster.background(readRest(cluster), 'reading the rest');
    await scheduler.run(scheduler.nowMs + readRestMs);
    const isOut = stored() === before && onItsWay(cluster).length === 0;
    if (isOut || scheduler.nowMs > endMs) return;
    await drain(cluster, mix);
  }
}

/**
 * Everybody's clients are closed for more than a day, and open again. Nodes that do nothing but greet
 * each other are most of what such a run costs: they are down from one hour in to one hour before the end.
 */
async function sleep(cluster: Cluster): Promise<void> {
  const { scheduler, clients, nodes } = cluster;
  for (const one of clients) cluster.background(one.close(), `${one.name} closes`);
  await scheduler.run(scheduler.nowMs + hourMs);
  for (const node of nodes) cluster.background(node.stop(), `${node.domain} stops`);
  await scheduler.run(scheduler.nowMs + nightMs - 2 * hourMs);
  for (const node of nodes) cluster.background(cluster.startNode(node), `${node.domain} starts`);
  await scheduler.run(scheduler.nowMs + hourMs);
  cluster.start();
}

/** Copies unsent, receipts due, rows unacked or in outboxes of nodes, intents open: who has which. */
function onItsWay(cluster: Cluster): readonly string[] {
  const { clients, nodes, ledger } = cluster;
  const ofClients = clients.flatMap((one) => {
    if (!one.isUp) return [`${one.name}: down`];
    const { outbox, receipts, groupLog } = one.store;
    const counts = {
      'copies unsent': outbox.openCount(),
      'rows parked': leftOver(one, cluster),
      'conversations with receipts due': receipts.conversations().length,
      'groups with open intents': groupLog.busyGroups().length,
    };
    return Object.entries(counts)
      .filter(([, count]) => count > 0)
      .map(([what, count]) => `${one.name}: ${count} ${what}`);
  });
  const ofNodes = nodes
    .filter((node) => node.running === undefined || !ledger.isIdle(node))
    .map(({ domain }) => `${domain}: rows`);
  return [...ofClients, ...ofNodes];
}

/**
 * Parked rows, but for those of epochs that the device was not in: a channel has posts from before somebody came, and
 * nothing tells their keys from coming ones. That nothing is missing, `no-loss` judges.
 */
function leftOver({ parkedRows, store }: SimClient, { clients }: Cluster): number {
  if (parkedRows === 0) return 0;
  const all = clients.filter((one) => one.isUp).map((one) => one.store);
  return parkedRows - overtakenCount(store, all);
}

/**
 * No fault of these mixes makes a row unreadable, and none is a reason to refuse a message. But where groups
 * change a copy can be so late that its epoch's keys are gone, and where messages live shortly they expire.
 * Who has left a group cannot seal a post anew that came back, and is told so. What that loses, `no-loss` judges. What an inbox that is full for strangers refuses waits, for longer than any
 * run.
 */
function unexplained(history: History, { groups, channels, movers, ttlMs }: Mix): Violation[] {
  return history.flatMap((line) => {
    if (line.kind === 'missing') {
      if (groups + channels + movers > 0 && line.reason === 'EPOCH_GONE') return [];
      if (ttlMs !== undefined && line.what === 'gap') return [];
      return [{ checker: 'readable', text: `${line.device}: ${line.what} ${line.reason}` }];
    }
    if (line.kind !== 'gaveUp') return [];
    const { device, recipient, innerId, reason } = line;
    if (ttlMs !== undefined && reason === 'expired TIMEOUT') return [];
    if (channels > 0 && (reason === 'LEFT' || reason === 'REMOVED')) return [];
    const text = `${device} was told that ${recipient} does not get ${innerId}: ${reason}`;
    return [{ checker: 'taken', text }];
  });
}
