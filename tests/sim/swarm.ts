/**
 * The swarm of a run: devices that deliver to each other while nodes are away. DeviceSwarm, the ladder and
 * all that stands on them are those of production, and so is what nodes say of who may have a place at their
 * relay; hosts and connections are simulated: with delays and losses, ports that are others after
 * some restarts, and devices that nobody can dial.
 */
import { TransportError } from '@quicprochat/proto';
import type { NodeSwarm, NodeSwarmEvents, NodeSwarmOptions } from '@quicprochat/p2p';
import { DeviceSwarm } from '@quicprochat/p2p/simulation';
import type { FallbackOptions } from '@quicprochat/client-lib';
import type { Process, SimRandom } from './process.ts';
import type { Scheduler } from './scheduler.ts';
import { SimHost } from './swarm-host.ts';
import { noSwarmFaults, type SwarmFaults, type SwarmMix } from './swarm-mix.ts';
import { Wire, type WireEnd, type WireHost, type WireNet } from './swarm-wire.ts';
import type { Trace } from './trace.ts';

const relayPort = 5002;
/** Chance that a device which starts finds its port taken. */
const portTaken = 0.2;
/** A side takes a silent connection for ended after this time (ms). */
const silence = { low: 5_000, high: 15_000 } as const;

export interface SimSwarmsParts {
  readonly mix: SwarmMix;
  readonly scheduler: Scheduler;
  readonly random: SimRandom;
  readonly trace: Trace;
  /** Names of all hosts, nodes and devices. */
  readonly hosts: readonly string[];
  readonly delayMs: (from: string, to: string) => number;
  readonly isHealed: () => boolean;
}

const relayOf = (index: number): string => `198.51.100.${index + 1}`;
/**
 * What the configuration of a node says of its relay; by the place of the node among the hosts. The node
 * itself is advertised by its name, which swarms do not dial.
 */
export function relaysToml(index: number): string {
  const endpoint = `${relayOf(index)}:${relayPort}`;
  return `[p2p]\nlisten = "${endpoint}"\nadvertise = ["${endpoint}"]`;
}

const wayOf = (from: string, to: string): string => `${from}>${to}`;

export class SimSwarms {
  /** Messages that devices took in past nodes, by their path; repeats are not counted. */
  readonly stored = { direct: 0, relay: 0 };
  readonly #parts: SimSwarmsParts;
  readonly #net: WireNet;
  readonly #hidden: ReadonlySet<string>;
  readonly #byAddress = new Map<string, SimHost>();
  readonly #byPeerId = new Map<string, SimHost>();
  readonly #cuts = new Set<string>();
  readonly #ports = new Map<string, number>();
  #lastPort = 30_000;

  constructor(parts: SimSwarmsParts) {
    this.#parts = parts;
    const { scheduler, random, mix, hosts } = parts;
    this.#hidden = new Set(hosts.filter((name) => name.includes('/') && random.chance(mix.hidden)));
    const nameOf = (host: WireHost): string => (host instanceof SimHost ? host.name : '');
    this.#net = {
      after: (ms, work) => scheduler.after(ms, work),
      delayMs: (from, to) => parts.delayMs(nameOf(from), nameOf(to)),
      isCut: (from, to) => this.#cuts.has(wayOf(nameOf(from), nameOf(to))),
      fate: (wire) => this.#fate(wire),
      silenceMs: () => random.between(silence.low, silence.high),
    };
  }

  /** What a client is opened with. */
  fallbackOf(name: string, process: Process): FallbackOptions {
    const reach = ['public', 'private'] as const;
    return {
      peers: {
        reach,
        start: async (duties) => {
          const host = this.#join(name, process, duties.key.peerId, [this.#placeOf(name)]);
          const options = { ...duties, listen: [], relayOnly: false, reach };
          return DeviceSwarm.on(host, {
            ...options,
            onDelivery: async (delivery) => {
              const outcome = await duties.onDelivery(delivery);
              if (outcome === 'stored' && !process.isDead) {
                this.stored[delivery.via] += 1;
                this.#parts.trace.note(name, 'taken in', delivery.via);
              }
              return outcome;
            },
          });
        },
      },
    };
  }

  /** A node's swarm: its relay. What nodes say to each other about key logs is tests/gossip-sim's. */
  startNode(
    name: string,
    process: Process,
    { key, relays }: NodeSwarmOptions,
    events: NodeSwarmEvents,
  ): Promise<NodeSwarm> {
    const ip = `/ip4/${relayOf(this.#indexOf(name))}`;
    const host = this.#join(
      name,
      process,
      key.peerId,
      // As a node listens; devices that are told both take the second one.
      [`${ip}/udp/${relayPort}/quic-v1`, `${ip}/tcp/${relayPort}`],
      relays ? (peer) => events.mayReserve(peer) : undefined,
    );
    return Promise.resolve({
      setPeers: () => Promise.resolve(),
      publish: () => Promise.resolve(0),
      pull: () => Promise.reject(new TransportError('unreachable', 'not connected')),
      addresses: () => Promise.resolve(host.addresses()),
      stats: () => Promise.resolve({ ...host.counts(), peersUp: 0, rssBytes: 0 }),
      [Symbol.asyncDispose]: () => host.stop(),
    });
  }

  /** Nothing gets from one host to another until it is healed, over connections of the swarm too. */
  cut(from: string, to: string): void {
    this.#cuts.add(wayOf(from, to));
  }
  heal(from: string, to: string): void {
    this.#cuts.delete(wayOf(from, to));
  }

  left(host: SimHost): void {
    for (const address of host.addresses()) {
      if (this.#byAddress.get(address) === host) this.#byAddress.delete(address);
    }
    if (this.#byPeerId.get(host.peerId) === host) this.#byPeerId.delete(host.peerId);
  }

  /** All connections of a device break. How many there were. */
  breakAll(name: string): number {
    const host = [...this.#byPeerId.values()].find((one) => one.name === name);
    return host?.breakAll() ?? 0;
  }

  dial(from: SimHost, address: string, signal: AbortSignal): Promise<WireEnd> {
    const dialed = Promise.withResolvers<WireEnd>();
    const onAbort = (): void => dialed.reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    void dialed.promise
      .finally(() => signal.removeEventListener('abort', onAbort))
      .catch(() => undefined);
    const { random, trace } = this.#parts;
    if (random.chance(this.#faults.dialLost)) {
      trace.fault('swarm-dial-lost', from.name);
      return dialed.promise;
    }
    const [direct = '', circuit] = address.split('/p2p-circuit/p2p/');
    const [place = '', peerId = ''] = direct.split('/p2p/');
    const path =
      circuit === undefined
        ? [from, this.#byAddress.get(place)]
        : [from, this.#byPeerId.get(peerId), this.#byPeerId.get(circuit)];
    const answerMs = this.#roundTripMs(path);
    const fail = (failure: ConstructorParameters<typeof TransportError>[0], text: string): void => {
      this.#net.after(answerMs, () => dialed.reject(new TransportError(failure, text)));
    };
    if (path.includes(undefined)) {
      // A port at which nobody is any more is said to be closed, or nothing is said at all.
      if (random.chance(0.5)) fail('unreachable', 'nobody is there');
      return dialed.promise;
    }
    const hosts = path.filter((host) => host !== undefined);
    if (this.#isCut(hosts)) return dialed.promise;
    this.#net.after(answerMs, () => {
      if (signal.aborted || !from.isUp || hosts.some((host) => !host.isUp)) return;
      const wanted = circuit ?? peerId;
      if (hosts.at(-1)?.peerId !== wanted)
        return dialed.reject(new TransportError('refusedIdentity', 'another peer is there'));
      const legs = hosts.length === 2 ? [] : this.#legs(hosts);
      if (legs === undefined)
        return dialed.reject(new TransportError('unreachable', 'no place at the relay'));
      dialed.resolve(this.#connect(hosts, legs));
    });
    return dialed.promise;
  }

  reserve(end: WireEnd, answered: (isGiven: boolean) => void): void {
    const { wire, far } = end;
    wire.carry(end, () => {
      if (!(far instanceof SimHost)) return;
      void far.takesGuest(end.other).then((isGiven) => {
        wire.carry(end.other, () => answered(isGiven));
      });
    });
  }

  /** Whether nothing gets along a path, there or back. */
  #isCut(hosts: readonly SimHost[]): boolean {
    return hosts.some((host, at) => {
      const next = hosts[at + 1];
      if (next === undefined) return false;
      return this.#net.isCut(host, next) || this.#net.isCut(next, host);
    });
  }

  /** The connections from a dialer to a relay, and from there to who has a place. */
  #legs([from, relay, to]: readonly SimHost[]): Wire[] | undefined {
    if (from === undefined || relay === undefined || to === undefined) return undefined;
    const [first] = from.connections(relay.peerId).filter(({ isRelayed }) => !isRelayed);
    const second = relay.placeOf(to.peerId);
    return first === undefined || second === undefined ? undefined : [first.wire, second.wire];
  }

  #connect(hosts: readonly SimHost[], legs: readonly Wire[]): WireEnd {
    const { scheduler, random, trace } = this.#parts;
    const wire = new Wire(this.#net, () => scheduler.nowMs, hosts, legs);
    const [near, far] = wire.ends;
    near.host.onWireUp(near);
    far.host.onWireUp(far);
    const kind = wire.isRelayed ? 'relayed' : 'direct';
    trace.note(hosts[0]?.name ?? '', 'connects', `${hosts.at(-1)?.name} ${kind}`);
    if (random.chance(this.#faults.closedAtOnce)) {
      trace.fault('swarm-closed-at-once', hosts[0]?.name ?? '');
      void far.close();
    } else if (wire.isRelayed && random.chance(this.#faults.relayDrops)) {
      trace.fault('swarm-relay-drops', hosts[1]?.name ?? '');
      wire.fallSilent();
    }
    return near;
  }

  #fate(wire: Wire): ReturnType<WireNet['fate']> {
    const { random, trace } = this.#parts;
    const { breaks, silent } = this.#faults;
    const [{ host }] = wire.ends;
    const name = host instanceof SimHost ? host.name : '';
    const share = random.share();
    if (share < breaks) {
      trace.fault('swarm-breaks', name);
      return share < breaks / 2 ? 'breaks before' : 'breaks after';
    }
    if (share >= breaks + silent) return 'arrives';
    trace.fault('swarm-silent', name);
    return 'silent';
  }

  get #faults(): SwarmFaults {
    return this.#parts.isHealed() ? noSwarmFaults : this.#parts.mix.faults;
  }

  /** To the last host that is there, and back. */
  #roundTripMs(path: readonly (SimHost | undefined)[]): number {
    const { delayMs } = this.#parts;
    let sumMs = 1;
    for (let at = 1; at < path.length; at += 1) {
      const [from, to] = [path[at - 1], path[at]];
      if (from !== undefined && to !== undefined) sumMs += 2 * delayMs(from.name, to.name);
    }
    return sumMs;
  }

  #join(
    name: string,
    process: Process,
    peerId: string,
    addresses: readonly string[],
    mayReserve?: (peerId: string) => Promise<boolean>,
  ): SimHost {
    const parts = { name, process, peerId, addresses, swarms: this };
    const host = new SimHost({ ...parts, ...(mayReserve === undefined ? {} : { mayReserve }) });
    this.#byPeerId.set(peerId, host);
    if (!this.#hidden.has(name)) {
      for (const address of addresses) this.#byAddress.set(address, host);
    }
    process.onDeath(() => host.died());
    return host;
  }

  /** Of a device: another port in each life, and nowhere that others can dial where it is hidden. */
  #placeOf(name: string): string {
    let port = this.#ports.get(name);
    // A device takes the port that it had, unless somebody else has that now.
    if (port === undefined || this.#parts.random.chance(portTaken)) port = this.#lastPort += 1;
    this.#ports.set(name, port);
    const net = this.#hidden.has(name) ? '10.0.0' : '203.0.113';
    return `/ip4/${net}.${this.#indexOf(name) + 1}/udp/${port}/quic-v1`;
  }

  #indexOf(name: string): number {
    return this.#parts.hosts.indexOf(name);
  }
}
