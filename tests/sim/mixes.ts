/**
 * Fault mixes: what goes wrong in a run, how often, and what clients do meanwhile. In each of them at
 * least one call in twenty loses its reply after the work was done: that finds most.
 */
import { noCallFaults, type CallFaults } from './network.ts';
import { noSwarmFaults, type SwarmMix } from './swarm-mix.ts';

/** A fault that comes again and again; the mean time between two of them (ms). */
export interface Events {
  readonly killNode?: number;
  readonly killClient?: number;
  /** Full partition of two nodes. */
  readonly cutNodes?: number;
  /** Only one direction between two nodes. */
  readonly cutNodesOneWay?: number;
  /** A client loses its node for a while. */
  readonly cutClient?: number;
  /** One node alone. */
  readonly isolateNode?: number;
  /** All connections between two hosts break, and may be made again at once. */
  readonly breakConnections?: number;
  /** The wall clock of a process jumps. */
  readonly stepClock?: number;
  /** An orderly restart of a node. */
  readonly restartNode?: number;
  /** A store that takes long for each commit, for a while. */
  readonly slowDisk?: number;
  /** A disk takes no new rows, for a while. */
  readonly fullDisk?: number;
  /** A client takes what comes only seconds later, for a while. */
  readonly slowReader?: number;
  /** A node dies and goes on with a backup of its disk. */
  readonly restoreNode?: number;
  /** The same, and it is always the first node. */
  readonly restoreOneNode?: number;
  /** All nodes are backed up, and the next time all, or all but one, die and go on with that backup. */
  readonly restoreAllNodes?: number;
  /** The same, and for a while no other node hears of it: it takes new rows before it is told. */
  readonly restoreNodeApart?: number;
  /** All nodes die at once; each comes back by itself. */
  readonly darken?: number;
  /** A device loses its connections to other devices and to relays, and may make them again at once. */
  readonly breakSwarm?: number;
}

export interface Mix {
  readonly name: string;
  /** For the report and the docs. */
  readonly what: string;
  readonly calls: CallFaults;
  readonly events: Events;
  /** Time of one network message: fixed part per pair of hosts up to this, and a tail (ms). */
  readonly delayMs: number;
  readonly tailMs: number;
  /** Chance to die each time that a crash point is passed. */
  readonly crashes: Readonly<Record<string, number>>;
  /** How long a dead or cut off process stays so (ms). */
  readonly downMs: readonly [number, number];
  /** The same for clients that died, where it is another time. */
  readonly clientDownMs?: readonly [number, number];
  /** Largest error of a process's wall clock (ms) and of its rate. */
  readonly clockMs: number;
  readonly clockDrift: number;
  /** Mean time between two client operations (ms). */
  readonly thinkMs: number;
  /** Share of changes of groups among all operations. */
  readonly groups: number;
  /** Share of these that another one follows at once: commits that meet. */
  readonly meets: number;
  /** Share of changes between channel and direct mode among all operations. */
  readonly channels: number;
  /** Share of removals and invitations by who made a conversation, among all operations. */
  readonly movers: number;
  /** Share of blocks, their ends and typing among all operations. */
  readonly people: number;
  /** Share of the lives of a client in which it seals its senders. */
  readonly sealed: number;
  /** Messages of clients live so long at nodes (ms), drawn for each; undefined: 30 days. */
  readonly ttlMs?: readonly [number, number];
  /** Limits of all nodes, as lines of their configuration. */
  readonly limits: string;
  /** Share of bursts among the sends. */
  readonly bursts: number;
  /** Largest piece of a write that travels as one (bytes). */
  readonly chunkBytes: number;
  /**
   * Times that everybody's clients are closed for more than a day once all is calm: what only a lost disk
   * held is sent again after a day, and after three.
   */
  readonly nights: number;
  /** I8: everything has drained so long after the last fault (ms). */
  readonly drainMaxMs: number;
  /** Devices deliver to each other while nodes are away. */
  readonly swarm?: SwarmMix;
}

const base: Omit<Mix, 'name' | 'what'> = {
  calls: { ...noCallFaults, replyLost: 0.05, breaks: 0.2 },
  events: {},
  delayMs: 40,
  tailMs: 20,
  crashes: {},
  downMs: [100, 5_000],
  clockMs: 0,
  clockDrift: 0,
  thinkMs: 250,
  groups: 0,
  meets: 0.6,
  channels: 0,
  movers: 0,
  people: 0,
  sealed: 0,
  limits: '',
  bursts: 0.05,
  chunkBytes: Number.POSITIVE_INFINITY,
  nights: 0,
  drainMaxMs: 30 * 60_000,
};

function mix(
  name: string,
  what: string,
  parts: Partial<Omit<Mix, 'name' | 'what' | 'calls'>> & {
    readonly calls?: Partial<CallFaults>;
  } = {},
): Mix {
  const { calls, ...others } = parts;
  return { ...base, ...others, calls: { ...base.calls, ...calls }, name, what };
}

/** Whether a node may lose what it had said OK to: clients bring that back, a night later. */
export function losesDisks({ events }: Mix): boolean {
  const { restoreNode, restoreOneNode, restoreAllNodes, restoreNodeApart } = events;
  const all = [restoreNode, restoreOneNode, restoreAllNodes, restoreNodeApart];
  return all.some((meanMs) => meanMs !== undefined);
}

const plain: readonly Mix[] = [
  mix('replies', 'replies lost after the work was done, nothing else'),
  mix('requests', 'requests and replies lost, requests twice', {
    calls: { requestLost: 0.05, replyLost: 0.08, duplicate: 0.1 },
  }),
  mix('late', 'answers late, some beyond their deadline', {
    calls: { late: 0.05, lateMs: 60_000 },
    tailMs: 400,
  }),
  mix('slow-network', 'half a second from host to host, with a long tail', {
    delayMs: 500,
    tailMs: 2_000,
  }),
  mix('fast', 'no delay to speak of: everything meets', { delayMs: 1, tailMs: 0, thinkMs: 20 }),
  mix('pieces', 'every write arrives in pieces of 700 bytes', { chunkBytes: 700, tailMs: 100 }),
  mix('connections', 'connections break', {
    events: { breakConnections: 1_500 },
    calls: { breaks: 1, dialLost: 0.1 },
  }),
  mix('node-kills', 'nodes are killed at any time', { events: { killNode: 6_000 } }),
  mix('node-crash-points', 'nodes die around their commits', {
    crashes: {
      'node:before-commit': 0.004,
      'node:after-commit-before-reply': 0.006,
      'node:after-reply': 0.004,
      'node:after-checkpoint': 0.002,
    },
  }),
  mix('client-kills', 'clients are killed at any time', { events: { killClient: 3_000 } }),
  mix('client-crash-points', 'clients die around their commits', {
    crashes: { 'client:before-commit': 0.01, 'client:after-commit': 0.02 },
    downMs: [50, 3_000],
  }),
  mix('crash-points', 'nodes and clients die around their commits', {
    crashes: {
      'node:before-commit': 0.002,
      'node:after-commit-before-reply': 0.003,
      'node:after-reply': 0.002,
      'node:after-checkpoint': 0.001,
      'client:before-commit': 0.005,
      'client:after-commit': 0.01,
    },
  }),
  mix('partition', 'two nodes do not hear each other for a while', {
    events: { cutNodes: 8_000 },
    downMs: [1_000, 60_000],
  }),
  mix('one-way', 'one direction between two nodes is dead', {
    events: { cutNodesOneWay: 6_000 },
    downMs: [1_000, 45_000],
  }),
  mix('isolation', 'one node has lost all others and its clients', {
    events: { isolateNode: 12_000 },
    downMs: [2_000, 60_000],
  }),
  mix('mobile', 'clients lose their node again and again', {
    events: { cutClient: 1_500 },
    downMs: [200, 40_000],
  }),
  mix('clocks', 'wall clocks minutes apart, drifting and jumping', {
    events: { stepClock: 5_000 },
    clockMs: 120_000,
    clockDrift: 0.01,
  }),
  mix('slow-disk', 'commits that take a second', { events: { slowDisk: 6_000 } }),
  mix('restarts', 'orderly restarts of nodes', { events: { restartNode: 5_000 } }),
  mix('bursts', 'many messages at once, over slow lines', {
    bursts: 0.5,
    delayMs: 150,
    tailMs: 300,
    thinkMs: 600,
  }),
  mix('flapping', 'links between nodes that come and go quickly', {
    events: { cutNodesOneWay: 1_500, breakConnections: 2_000 },
    downMs: [50, 3_000],
  }),
  mix('lost-disks', 'nodes go on with a backup of their disk', {
    events: { restoreNode: 15_000 },
    nights: 1,
  }),
  mix('lost-disks-and-kills', 'nodes go on with a backup, nodes and clients are killed', {
    events: { restoreNode: 25_000, killNode: 12_000, killClient: 8_000 },
    nights: 1,
  }),
  mix('everything', 'a little of all of it', {
    calls: { requestLost: 0.02, duplicate: 0.02, late: 0.02, lateMs: 20_000, dialLost: 0.03 },
    events: {
      killNode: 25_000,
      killClient: 15_000,
      cutNodes: 25_000,
      cutNodesOneWay: 25_000,
      cutClient: 10_000,
      breakConnections: 10_000,
      stepClock: 30_000,
      slowDisk: 30_000,
    },
    crashes: {
      'node:before-commit': 0.0005,
      'node:after-commit-before-reply': 0.001,
      'node:after-reply': 0.0005,
      'client:before-commit': 0.001,
      'client:after-commit': 0.003,
    },
    downMs: [100, 20_000],
    clockMs: 30_000,
    clockDrift: 0.001,
    tailMs: 200,
  }),
  mix('storm', 'a lot of all of it', {
    calls: { requestLost: 0.05, replyLost: 0.1, duplicate: 0.05, dialLost: 0.1, breaks: 0.5 },
    events: { killNode: 9_000, killClient: 5_000, cutNodes: 9_000, cutClient: 4_000 },
    crashes: {
      'node:after-commit-before-reply': 0.003,
      'client:after-commit': 0.01,
    },
    downMs: [100, 8_000],
    tailMs: 500,
  }),
  mix('full-disk', 'a node whose disk is full takes no rows for a while, and dies meanwhile', {
    events: { fullDisk: 8_000, killNode: 15_000 },
    downMs: [1_000, 30_000],
  }),
  mix('slow-readers', 'clients that take what comes seconds later, and die meanwhile', {
    events: { slowReader: 3_000, killClient: 12_000 },
    downMs: [500, 20_000],
    bursts: 0.2,
  }),
  mix('groups', 'everybody changes groups while they talk', { groups: 0.06 }),
  mix('groups-fast', 'changes of groups that meet', {
    groups: 0.06,
    meets: 0.8,
    thinkMs: 200,
    delayMs: 150,
  }),
  mix('groups-crash-points', 'changes of groups; nodes and clients die around their commits', {
    groups: 0.06,
    crashes: {
      'node:before-commit': 0.002,
      'node:after-commit-before-reply': 0.003,
      'node:after-reply': 0.002,
      'node:after-checkpoint': 0.001,
      'client:before-commit': 0.005,
      'client:after-commit': 0.01,
    },
  }),
  mix('groups-kills', 'changes of groups; nodes and clients are killed, calls get lost', {
    groups: 0.06,
    calls: { requestLost: 0.03, replyLost: 0.08, duplicate: 0.03 },
    events: { killNode: 9_000, killClient: 5_000 },
    downMs: [100, 20_000],
  }),
  mix('groups-partition', 'changes of groups; nodes lose each other, hubs take over', {
    groups: 0.06,
    events: { cutNodes: 10_000, cutNodesOneWay: 12_000, isolateNode: 15_000 },
    downMs: [5_000, 70_000],
    thinkMs: 600,
  }),
  mix('groups-lost-disk', 'changes of groups; one node goes on with a backup of its disk', {
    groups: 0.06,
    events: { restoreOneNode: 20_000, cutNodes: 20_000, killClient: 10_000 },
    nights: 1,
  }),
  mix('groups-lost-disks', 'changes of groups; two or all nodes go on with backups of one night', {
    groups: 0.06,
    events: { restoreAllNodes: 8_000, cutNodes: 25_000 },
    nights: 1,
  }),
  mix('movers', 'people are taken out and put in again and again; nodes and clients are killed', {
    groups: 0.02,
    movers: 0.2,
    events: { killNode: 9_000, killClient: 8_000, cutNodes: 20_000 },
    downMs: [100, 20_000],
  }),
  mix('channels', 'conversations get a channel and lose it while all talk', { channels: 0.05 }),
  mix('channels-kills', 'the same; nodes and clients are killed and lose each other', {
    channels: 0.05,
    events: { killNode: 9_000, killClient: 6_000, cutNodes: 12_000, cutClient: 8_000 },
    downMs: [200, 20_000],
  }),
  mix('channels-crash-points', 'the same; nodes and clients die around their commits', {
    channels: 0.05,
    crashes: {
      'node:before-commit': 0.002,
      'node:after-commit-before-reply': 0.003,
      'node:after-reply': 0.002,
      'client:before-commit': 0.005,
      'client:after-commit': 0.01,
    },
  }),
  mix('channels-groups', 'the same; everybody changes groups as well', {
    channels: 0.04,
    groups: 0.04,
  }),
  mix('blocked', 'people block each other and take it back, and type', { people: 0.15 }),
  mix('blocked-full', 'the same; inboxes take four rows of strangers, and clients are away', {
    people: 0.15,
    limits: '[limits]\ninbox_stranger_rows = 4',
    events: { cutClient: 4_000, killClient: 8_000 },
    downMs: [500, 30_000],
  }),
  mix(
    'sealed',
    'senders are sealed in two of three lives; clients and nodes die, connections break',
    {
      sealed: 0.67,
      events: { killClient: 8_000, killNode: 12_000, breakConnections: 5_000, cutClient: 10_000 },
      downMs: [200, 15_000],
    },
  ),
  mix(
    'sealed-blocked',
    'the same; people block each other, and inboxes take eight rows of strangers',
    {
      sealed: 0.8,
      people: 0.15,
      limits: '[limits]\ninbox_stranger_rows = 8',
      events: { killClient: 8_000, killNode: 15_000, breakConnections: 8_000, cutClient: 8_000 },
      downMs: [200, 20_000],
    },
  ),
  mix('short-lived', 'messages live for a minute; nodes lose each other, clients their node', {
    ttlMs: [20_000, 120_000],
    events: { cutNodes: 10_000, cutClient: 2_000, killClient: 20_000 },
    downMs: [5_000, 150_000],
    thinkMs: 500,
  }),
  mix('lost-disks-apart', 'nodes go on with a backup and hear nothing of the others at first', {
    events: { restoreNodeApart: 18_000, killClient: 8_000 },
    downMs: [2_000, 20_000],
    nights: 1,
  }),
  mix('dark', 'all nodes are down for a while, and devices deliver to each other', {
    events: { darken: 90_000 },
    downMs: [20_000, 70_000],
    thinkMs: 1_200,
    swarm: { hidden: 0, relays: false, faults: noSwarmFaults },
  }),
  mix(
    'dark-and-broken',
    'the same over connections that break; clients die, some cannot be dialed',
    {
      events: { darken: 90_000, killClient: 20_000, breakSwarm: 15_000 },
      downMs: [10_000, 60_000],
      thinkMs: 1_200,
      swarm: {
        hidden: 0.3,
        relays: false,
        faults: { dialLost: 0.1, closedAtOnce: 0.05, breaks: 0.02, silent: 0.01, relayDrops: 0 },
      },
    },
  ),
  mix('dark-crash-points', 'all nodes are down for a while, and clients die around their commits', {
    events: { darken: 60_000 },
    crashes: { 'client:before-commit': 0.002, 'client:after-commit': 0.004 },
    downMs: [20_000, 70_000],
    // Who is dead for as long as nodes are delivers to nobody meanwhile.
    clientDownMs: [100, 2_000],
    thinkMs: 1_200,
    swarm: { hidden: 0, relays: false, faults: { ...noSwarmFaults, breaks: 0.01 } },
  }),
  mix(
    'relays',
    'nodes are down one by one, and relays of the others carry; half cannot be dialed',
    {
      events: { killNode: 25_000, isolateNode: 60_000, breakSwarm: 20_000 },
      downMs: [15_000, 60_000],
      thinkMs: 1_200,
      swarm: {
        hidden: 0.5,
        relays: true,
        faults: {
          dialLost: 0.05,
          closedAtOnce: 0.05,
          breaks: 0.01,
          silent: 0.005,
          relayDrops: 0.1,
        },
      },
    },
  ),
  mix('dark-groups', 'all nodes are down for a while, and everybody changes groups', {
    groups: 0.06,
    events: { darken: 90_000 },
    downMs: [20_000, 60_000],
    thinkMs: 1_200,
    swarm: { hidden: 0.2, relays: true, faults: { ...noSwarmFaults, breaks: 0.01 } },
  }),
];

/** How much more often a fault comes there, as those runs are short. */
const hurry = 3;

/** People who change their groups all the time, under the same faults: for runs of some 60 operations. */
const committers = plain
  .filter(({ name }) => name.startsWith('groups'))
  .map((one) => ({
    ...one,
    name: one.name.replace('groups', 'committers'),
    what: `as ${one.name}; half of what people do are changes, and faults come sooner`,
    groups: 0.5,
    meets: 0.8,
    events: scaled(one.events, 1 / hurry),
    crashes: scaled(one.crashes, hurry),
  }));

function scaled<Row extends object>(row: Row, by: number): Row {
  const entries = Object.entries(row).map(([name, value]) => [name, Number(value) * by]);
  // The same names, and numbers again.
  return Object.fromEntries(entries) as Row;
}

export const mixes: readonly Mix[] = [...plain, ...committers];

/** Throws for a name that is none. */
export function mixNamed(name: string): Mix {
  const found = mixes.find((one) => one.name === name);
  if (found === undefined) {
    throw new Error(`no mix ${name}; there are ${mixes.map((one) => one.name).join(', ')}`);
  }
  return found;
}

/** The mix of a seed: the one of that name; one of those that begin so, as `groups*`; or one of all for long runs. */
export function mixOfSeed(seed: number, name?: string): Mix {
  if (name?.endsWith('*') === false) return mixNamed(name);
  const beginning = name?.slice(0, -1);
  const chosen =
    beginning === undefined ? plain : mixes.filter((one) => one.name.startsWith(beginning));
  const found = chosen[seed % chosen.length];
  if (found === undefined) throw new Error(`no mix begins with ${beginning}`);
  return found;
}
