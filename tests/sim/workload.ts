/**
 * What clients do in a run: they write into conversations, read, restart, leave their network, look each
 * other up, make conversations. Each operation is a call of QpcClient, noted as a person would see it.
 */
import { hex, QpcError } from '@quicprochat/proto';
import type { QpcClient } from '@quicprochat/client-lib';
import type { Cluster } from './cluster.ts';
import type { SimClient } from './client.ts';
import { channelMode, groupActions, throughTheDoor } from './group-work.ts';
import type { Mix } from './mixes.ts';
import { peopleActions } from './people-work.ts';
import type { SimRandom } from './process.ts';

/** An operation that takes longer counts as unknown (ms); its work may go on. */
const patienceMs = 120_000;
const burstMessages = 6;
/** Messages that one read takes at most, and how long it waits for the first (ms). */
const readMessages = 12;
const readWaitMs = 200;

interface Action {
  readonly name: string;
  /** Part of all operations. */
  readonly weight: number;
  run(context: Context): Promise<void>;
}

interface Context {
  readonly cluster: Cluster;
  readonly one: SimClient;
  readonly client: QpcClient;
  /** Number of the operation. */
  readonly op: number;
  /** What this operation draws. */
  readonly random: SimRandom;
}

type Reader = Pick<Context, 'cluster' | 'one' | 'client'>;

const actions: readonly Action[] = [
  { name: 'send', weight: 44, run: (context) => send(context, 1) },
  { name: 'read', weight: 28, run: async (context) => void (await read(context)) },
  {
    name: 'restart',
    weight: 4,
    async run({ cluster, one }) {
      await one.close();
      await cluster.openClient(one);
    },
  },
  {
    name: 'offline',
    weight: 4,
    async run({ cluster, one, random }) {
      const { network, scheduler, mix } = cluster;
      const node = cluster.nodeOf(one).domain;
      network.cut(one.name, node);
      network.cut(node, one.name);
      scheduler.after(random.between(...mix.downMs), () => {
        network.heal(one.name, node);
        network.heal(node, one.name);
      });
    },
  },
  {
    name: 'create',
    weight: 0.6,
    async run({ cluster, one, client, op, random }) {
      // Its node would be the only hub, and forget the group.
      if (cluster.mix.events.restoreOneNode !== undefined) return;
      // An invitation that expired comes again after a day.
      if (cluster.mix.ttlMs !== undefined) return;
      const users = [...new Set(cluster.clients.map(({ parts }) => parts.userId))];
      const others = users.filter((userId) => userId !== one.parts.userId);
      const members = others.filter(() => random.chance(0.4));
      if (members.length === 0) members.push(random.pick(others));
      await client.createConversation({ name: `made by ${op}`, members });
    },
  },
  {
    name: 'add',
    weight: 0.4,
    async run({ cluster, one, client, random }) {
      if (cluster.mix.ttlMs !== undefined) return;
      const own = client.conversations().filter(({ creator }) => creator === one.parts.userId);
      if (own.length === 0) return;
      const { id } = random.pick(own);
      const members = await client.members(id);
      const users = [...new Set(cluster.clients.map(({ parts }) => parts.userId))];
      const others = users.filter((user) => user !== one.parts.userId && !members.includes(user));
      if (others.length > 0) await client.addMembers(id, [random.pick(others)]);
    },
  },
  {
    name: 'look up',
    weight: 2,
    async run({ cluster, client, random }) {
      await client.lookUp(random.pick(cluster.clients).parts.userId);
    },
  },
  {
    name: 'history',
    weight: 10,
    async run({ client }) {
      for (const { id } of client.conversations()) client.history(id, 20);
    },
  },
];
const weightOf = (list: readonly Action[]): number =>
  list.reduce((sum, { weight }) => sum + weight, 0);
const totalWeight = weightOf(actions);
const groupWeight = weightOf(groupActions);
const peopleWeight = weightOf(peopleActions);

async function send({ client, op, one, random }: Context, count: number): Promise<void> {
  const conversations = client.conversations().filter(({ ended }) => ended === undefined);
  if (conversations.length === 0) return;
  const { id } = random.pick(conversations);
  for (let n = 0; n < count && one.isUp; n += 1) await client.send(id, `message ${op} ${n}`);
}

/** Loops in which an application takes what is left for it: more than any run needs, or it is given the same again. */
const restLoops = 200;

/** Clients in a loop over messages: a program has one such loop. */
const reading = new WeakSet<QpcClient>();

/** What the application has not had yet, as far as it comes now. Resolves with how many there were. */
async function read({ cluster, one, client }: Reader): Promise<number> {
  if (reading.has(client)) return 0;
  reading.add(client);
  const { trace } = cluster;
  const { process, name: device } = one;
  const enough = new AbortController();
  const timer = process.runtime.clock.timer(readWaitMs, () => enough.abort());
  const innerIds: string[] = [];
  for await (const { id, senderUserId: sender } of client.messages({ signal: enough.signal })) {
    if (process.isDead) return 0;
    const innerId = hex(id);
    innerIds.push(innerId);
    trace.tell({ kind: 'shown', atMs: trace.nowMs, device, innerId, sender });
    if (innerIds.length === readMessages) break;
  }
  timer.cancel();
  reading.delete(client);
  // Of a client that ends first the last ones come again.
  if (!process.isDead && !one.isClosing && innerIds.length > 0) {
    trace.tell({ kind: 'had', atMs: trace.nowMs, device, innerIds });
  }
  return innerIds.length;
}

/** Every application takes what is left for it. */
export async function readRest(cluster: Cluster): Promise<void> {
  const reader = async (one: SimClient): Promise<void> => {
    const { client } = one;
    for (let loop = 0; loop < restLoops && (await read({ cluster, one, client })) > 0; loop += 1);
  };
  await Promise.all(cluster.clients.filter(({ isUp }) => isUp).map(reader));
}

function choose(random: SimRandom, mix: Mix, isMeeting: boolean): Action {
  if (isMeeting || random.chance(mix.groups)) {
    return pickByWeight(groupActions, random.share() * groupWeight);
  }
  // Mixes without these draw nothing for them.
  if (mix.channels > 0 && random.chance(mix.channels)) return channelMode;
  if (mix.movers > 0 && random.chance(mix.movers)) return throughTheDoor;
  if (mix.people > 0 && random.chance(mix.people)) {
    return pickByWeight(peopleActions, random.share() * peopleWeight);
  }
  const action = pickByWeight(actions, random.share() * totalWeight);
  return action.name === 'send' && random.chance(mix.bursts) ? burst : action;
}

function pickByWeight(list: readonly Action[], at: number): Action {
  let rest = at;
  for (const action of list) {
    rest -= action.weight;
    if (rest < 0) return action;
  }
  throw new Error('no action');
}
const burst: Action = {
  name: 'burst',
  weight: 0,
  run: (context) => send(context, burstMessages),
};

/** Counts of what was begun, by action. */
export interface WorkDone {
  readonly counts: ReadonlyMap<string, number>;
  readonly operations: number;
}

/** Begins operations at random times until there were `count`. Resolves when the last has begun. */
export async function work(cluster: Cluster, count: number): Promise<WorkDone> {
  const counts = new Map<string, number>();
  const times = cluster.randomOf('times of operations');
  let op = 0;
  let isMeeting = false;
  while (op < count) {
    if (!isMeeting) {
      await new Promise<void>((resolve) => {
        const waitMs = times.between(0.2, 1.8) * cluster.mix.thinkMs;
        cluster.scheduler.after(waitMs, resolve);
      });
    }
    const isWithOthers: boolean = isMeeting;
    isMeeting = false;
    const alive = cluster.clients.filter(({ isUp }) => isUp);
    if (alive.length === 0) continue;
    op += 1;
    const random = cluster.randomOf('operation', op);
    const one = random.pick(alive);
    const action = choose(random, cluster.mix, isWithOthers);
    isMeeting = groupActions.includes(action) && random.chance(cluster.mix.meets);
    if (!cluster.takesPlace(`operation ${op}`)) continue;
    counts.set(action.name, (counts.get(action.name) ?? 0) + 1);
    cluster.background(
      operate({ cluster, one, client: one.client, op, random }, action),
      `${one.name} ${action.name} ${op}`,
    );
  }
  return { counts, operations: op };
}

/** One operation, with its lines in the history. Rejects with what is no error of ours. */
async function operate(context: Context, action: Action): Promise<void> {
  const { cluster, one, op } = context;
  const { trace } = cluster;
  const { process } = one;
  const tell = (kind: 'ok' | 'fail' | 'unknown', reason?: string): void => {
    if (isTold) return;
    isTold = true;
    trace.tell({ kind, atMs: trace.nowMs, op, ...(reason === undefined ? {} : { reason }) });
  };
  let isTold = false;
  trace.tell({ kind: 'invoke', atMs: trace.nowMs, op, device: one.name, action: action.name });
  const timer = process.runtime.clock.timer(patienceMs, () => tell('unknown', 'late'));
  try {
    await action.run(context);
    if (!process.isDead || action.name === 'restart') tell('ok');
  } catch (error) {
    if (process.isDead && action.name !== 'restart') return;
    if (!(error instanceof QpcError)) throw error;
    tell('fail', error.reason);
  } finally {
    timer.cancel();
  }
}
