/** The faults of a mix that come again and again, each in a loop of its own on simulated time. */
import type { Cluster } from './cluster.ts';
import { losesDisks, type Events } from './mixes.ts';
import type { SimNode } from './node.ts';

/** Does one fault; time is over when the loop goes on. */
type Deed = (cluster: Cluster) => void;

const deeds: { readonly [K in keyof Events]-?: Deed } = {
  killNode: ({ random, nodes }) => random.pick(nodes).kill('kill-node'),
  killClient: ({ random, clients }) => random.pick(clients).kill('kill-client'),
  cutNodes: (cluster) => {
    const [one, other] = pair(cluster);
    cut(cluster, 'cut-nodes', [
      [one, other],
      [other, one],
    ]);
  },
  cutNodesOneWay: (cluster) => cut(cluster, 'cut-nodes-one-way', [pair(cluster)]),
  cutClient: (cluster) => {
    const client = cluster.random.pick(cluster.clients);
    const node = cluster.nodeOf(client).domain;
    cut(cluster, 'cut-client', [
      [client.name, node],
      [node, client.name],
    ]);
  },
  isolateNode: (cluster) => {
    const node = cluster.random.pick(cluster.nodes);
    const others = [
      ...cluster.nodes.filter((other) => other !== node).map(({ domain }) => domain),
      ...cluster.clients.filter((client) => cluster.nodeOf(client) === node).map((c) => c.name),
    ];
    cut(
      cluster,
      'isolate-node',
      others.flatMap((other): [string, string][] => [
        [node.domain, other],
        [other, node.domain],
      ]),
    );
  },
  breakConnections: (cluster) => {
    const { random, nodes, clients, network, trace } = cluster;
    const isFederation = random.chance(0.5);
    const client = random.pick(clients);
    const [one, other] = isFederation
      ? pair(cluster)
      : [client.name, cluster.nodeOf(client).domain];
    const broken = network.breakConnections(one, other);
    if (nodes.length > 0 && broken > 0) trace.fault('break-connections', `${one} ${other}`);
  },
  stepClock: ({ random, nodes, clients, mix, trace }) => {
    const one = random.pick([...nodes, ...clients]);
    const byMs = Math.round(random.between(-mix.clockMs, mix.clockMs));
    // Never further off than the mix says: tokens and certificates have their own tests.
    const offsetMs = Math.max(-mix.clockMs, Math.min(mix.clockMs, one.clock.offsetMs + byMs));
    trace.fault('step-clock', 'domain' in one ? one.domain : one.name, String(byMs));
    one.clock.offsetMs = offsetMs;
  },
  restartNode: (cluster) => {
    const node = cluster.random.pick(cluster.nodes);
    if (node.running === undefined) return;
    cluster.trace.fault('restart-node', node.domain);
    cluster.background(
      node.stop().then(() => cluster.startNode(node)),
      `${node.domain} restarts`,
    );
  },
  slowDisk: ({ random, nodes, slowDisks, trace, scheduler }) => {
    const { domain } = random.pick(nodes);
    trace.fault('slow-disk', domain);
    slowDisks.add(domain);
    scheduler.after(random.between(1_000, 8_000), () => slowDisks.delete(domain));
  },
  fullDisk: (cluster) => {
    const node = cluster.random.pick(cluster.nodes);
    cluster.trace.fault('full-disk', node.domain);
    cluster.fillDisk(node);
  },
  slowReader: (cluster) => {
    const { random, clients, slowReaders, trace, scheduler } = cluster;
    const { name } = random.pick(clients);
    trace.fault('slow-reader', name);
    slowReaders.set(name, random.between(500, 8_000));
    scheduler.after(cluster.downMs(), () => slowReaders.delete(name));
  },
  restoreNode: (cluster) => {
    const node = cluster.random.pick(cluster.nodes);
    // Not while it is dead: then the next life is planned already.
    if (node.isUp && isOnlyForgetful(node, cluster)) cluster.restore(node);
  },
  restoreOneNode: (cluster) => {
    // Not two of three hubs: that is `restoreAllNodes`. And one that keeps no log alone: what such a hub
    // forgets it hears of with the next commit only.
    const [node] = cluster.nodes;
    if (node?.isUp === true) cluster.restore(node);
  },
  restoreAllNodes: (cluster) => {
    const { nodes, random, trace } = cluster;
    const groups = trace.history.filter((line) => line.kind === 'entry' && line.epoch === 0).length;
    const night = nights.get(cluster);
    if (night !== undefined && !isHeldByMembers(cluster)) return;
    if (night === groups && nodes.every(({ isUp }) => isUp)) {
      const spared = random.chance(0.5) ? random.pick(nodes) : undefined;
      for (const node of nodes) if (node !== spared) cluster.restore(node, 'newest');
      nights.delete(cluster);
      return;
    }
    if (nodes.some(({ isUp, isForgetful }) => !isUp || isForgetful)) return;
    for (const node of nodes) cluster.backUp(node);
    nights.set(cluster, groups);
  },
  darken: ({ nodes, trace }) => {
    trace.fault('dark', nodes.map(({ domain }) => domain).join(' '));
    for (const node of nodes) node.kill('kill-node');
  },
  breakSwarm: ({ random, clients, swarms, trace }) => {
    const { name } = random.pick(clients);
    const broken = swarms?.breakAll(name) ?? 0;
    if (broken > 0) trace.fault('break-swarm', name, String(broken));
  },
  restoreNodeApart: (cluster) => {
    const node = cluster.random.pick(cluster.nodes);
    if (!node.isUp || !isOnlyForgetful(node, cluster)) return;
    const others = cluster.nodes.filter((other) => other !== node);
    cut(
      cluster,
      'cut-restored',
      others.flatMap(({ domain }): [string, string][] => [
        [node.domain, domain],
        [domain, node.domain],
      ]),
    );
    cluster.restore(node);
  },
};

/** Two of three hubs that forgot need what members hold (`restoreAllNodes`): here disks are lost one after the other. */
function isOnlyForgetful(node: SimNode, { nodes }: Cluster): boolean {
  return nodes.every((other) => other === node || !other.isForgetful);
}

/** How many groups there were when all nodes were backed up at once: a younger one no backup knows. */
const nights = new WeakMap<Cluster, number>();

/** What no disk has any more members have to give back: so there is one that applied each entry that a hub accepted. */
function isHeldByMembers({ trace }: Cluster): boolean {
  const applied = new Set(
    trace.history.flatMap((line) => (line.kind === 'epoch' ? [line.hash] : [])),
  );
  return trace.history.every((line) => line.kind !== 'entry' || applied.has(line.hash));
}

/** Begins the loops; they end when the cluster heals. */
export function beginFaults(cluster: Cluster): void {
  for (const [name, meanMs] of Object.entries(cluster.mix.events)) {
    // Object.entries loses the keys' type; the mix was written with it.
    const deed = deeds[name as keyof Events];
    const times = cluster.randomOf('times', name);
    let count = 0;
    const next = (): void => {
      cluster.scheduler.after(times.between(0.3, 1.7) * meanMs, () => {
        if (cluster.isHealed) return;
        count += 1;
        const random = cluster.randomOf(name, count);
        if (cluster.takesPlace(`${name} ${count}`)) cluster.drawing(random, () => deed(cluster));
        next();
      });
    };
    next();
  }
  if (losesDisks(cluster.mix)) beginBackups(cluster);
}

function beginBackups(cluster: Cluster, random = cluster.randomOf('backups')): void {
  cluster.scheduler.after(random.between(2_000, 10_000), () => {
    if (cluster.isHealed) return;
    const node = random.pick(cluster.nodes);
    if (node.isUp) cluster.backUp(node);
    beginBackups(cluster, random);
  });
}

function pair({ random, nodes }: Cluster): [string, string] {
  const one = random.pick(nodes);
  const other = random.pick(nodes.filter((node) => node !== one));
  return [one.domain, other.domain];
}

function cut(cluster: Cluster, name: string, paths: readonly [string, string][]): void {
  const { network, swarms, trace, scheduler } = cluster;
  trace.fault(name, paths.map((path) => path.join('>')).join(' '));
  for (const [from, to] of paths) {
    network.cut(from, to);
    swarms?.cut(from, to);
  }
  scheduler.after(cluster.downMs(), () => {
    for (const [from, to] of paths) {
      network.heal(from, to);
      swarms?.heal(from, to);
    }
  });
}
