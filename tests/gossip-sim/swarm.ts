/**
 * The swarm of a simulation: NodeSwarm as libp2p gives it. Gossip floods from peer to peer as long as
 * each accepts it, pulls have answers, and a swarm that ends is back with other connections.
 */
import { TransportError } from '@quicprochat/proto';
import { gossipTopics, type GossipTopic, type NodeSwarmEvents } from '@quicprochat/p2p';
import type { StartSwarm } from '@quicprochat/nodes/gossip';
import type { Connection, Network } from './network.ts';

type NodeSwarm = Awaited<ReturnType<StartSwarm>>;
type SwarmPeer = Parameters<NodeSwarm['setPeers']>[0][number];
type PullAnswer = Awaited<ReturnType<NodeSwarm['pull']>>;

interface Member {
  readonly peers: ReadonlySet<string>;
  /** Of these who is dialed. */
  readonly dialed: ReadonlySet<string>;
  readonly connections: ReadonlyMap<string, Connection>;
  readonly events: NodeSwarmEvents;
  hear(topic: GossipTopic, id: string, from: string, bytes: Uint8Array): void;
}

/** Where everybody is. */
export const anywhere = '/ip4/192.0.2.1/tcp/5002';

/** All swarms of a run. */
export class SimSwarms {
  readonly #network: Network;
  readonly #members = new Map<string, Member>();
  /** What is looked at whenever evidence leaves a node. */
  readonly #onEvidence: (from: string, bytes: Uint8Array) => void;
  #messages = 0;
  gossiped = 0;

  constructor(network: Network, onEvidence: (from: string, bytes: Uint8Array) => void) {
    this.#network = network;
    this.#onEvidence = onEvidence;
  }

  /** A swarm of a node's life; connections are to whom both sides list. */
  start(peerId: string, events: NodeSwarmEvents): SimSwarm {
    const swarm = new SimSwarm(peerId, events, this.#network, this);
    this.#members.set(peerId, swarm);
    this.#network.join(peerId, swarm);
    return swarm;
  }

  leave(peerId: string): void {
    this.#members.delete(peerId);
    this.#network.leave(peerId);
  }

  member(peerId: string): Member | undefined {
    return this.#members.get(peerId);
  }

  nextId(): string {
    this.#messages += 1;
    return String(this.#messages);
  }

  evidenceLeaves(from: string, bytes: Uint8Array): void {
    this.#onEvidence(from, bytes);
  }
}

export class SimSwarm implements NodeSwarm, Member {
  readonly peerId: string;
  readonly events: NodeSwarmEvents;
  readonly peers = new Set<string>();
  readonly dialed = new Set<string>();
  readonly connections = new Map<string, Connection>();
  readonly #network: Network;
  readonly #swarms: SimSwarms;
  readonly #known = new Set<string>();
  readonly #told = new Set<string>();

  constructor(peerId: string, events: NodeSwarmEvents, network: Network, swarms: SimSwarms) {
    this.peerId = peerId;
    this.events = events;
    this.#network = network;
    this.#swarms = swarms;
  }

  // Side of the network.
  onUp(other: string, connection: Connection): void {
    const wasTold = this.#told.has(other);
    this.connections.set(other, connection);
    this.#look(other);
    // The end of the connection before was not noticed.
    if (wasTold) this.events.onPeer(other, true);
    // The other side may have listed this one first.
    const member = this.#swarms.member(other);
    if (member instanceof SimSwarm) member.#look(this.peerId);
  }

  onDown(other: string, connection: Connection): void {
    if (this.connections.get(other) !== connection) return;
    this.connections.delete(other);
    this.#look(other);
  }

  #look(other: string): void {
    const isUp = this.connections.has(other) && this.#hasWay(other);
    if (isUp === this.#told.has(other)) return;
    if (isUp) this.#told.add(other);
    else this.#told.delete(other);
    this.events.onPeer(other, isUp);
  }

  async setPeers(peers: readonly SwarmPeer[]): Promise<void> {
    const before = [...this.peers];
    this.peers.clear();
    this.dialed.clear();
    for (const { peerId, addresses } of peers) {
      if (peerId === this.peerId) continue;
      this.peers.add(peerId);
      if (addresses.length > 0) this.dialed.add(peerId);
    }
    for (const other of new Set([...before, ...this.peers])) {
      this.#look(other);
      const member = this.#swarms.member(other);
      if (member instanceof SimSwarm) member.#look(this.peerId);
    }
  }

  /** Whether one of the two dials the other, which is a peer of this one. */
  #hasWay(other: string): boolean {
    const isDialing = this.#swarms.member(other)?.dialed.has(this.peerId) === true;
    return this.peers.has(other) && (isDialing || this.dialed.has(other));
  }

  async publish(topic: GossipTopic, bytes: Uint8Array): Promise<number> {
    if (bytes.length > gossipTopics[topic]) throw new Error('above the bound of the topic');
    if (topic === 'qpc/kt-evidence/1') this.#swarms.evidenceLeaves(this.peerId, bytes);
    const id = this.#swarms.nextId();
    this.#known.add(id);
    return this.#pass(topic, id, bytes, undefined);
  }

  /** To one peer and no other: what no honest node does. */
  whisper(other: string, topic: GossipTopic, bytes: Uint8Array): void {
    const connection = this.connections.get(other);
    const id = this.#swarms.nextId();
    if (connection === undefined) return;
    this.#network.carry(connection, () => {
      this.#swarms.member(other)?.hear(topic, id, this.peerId, bytes);
    });
  }

  hear(topic: GossipTopic, id: string, from: string, bytes: Uint8Array): void {
    if (!this.#hasWay(from) || this.#known.has(id)) return;
    this.#known.add(id);
    this.#swarms.gossiped += 1;
    void this.events.onGossip(topic, from, bytes).then((verdict) => {
      if (verdict === 'accept') this.#pass(topic, id, bytes, from);
    });
  }

  #pass(topic: GossipTopic, id: string, bytes: Uint8Array, from: string | undefined): number {
    let count = 0;
    for (const [other, connection] of this.connections) {
      if (other === from || !this.#hasWay(other)) continue;
      count += 1;
      this.#network.carry(connection, () => {
        this.#swarms.member(other)?.hear(topic, id, this.peerId, bytes);
      });
    }
    return count;
  }

  async pull(other: string, methodId: number, payload: Uint8Array): Promise<PullAnswer> {
    const connection = this.connections.get(other);
    if (connection === undefined) throw new TransportError('unreachable', 'not connected');
    return this.#network.call(connection, async () => {
      const member = this.#swarms.member(other);
      if (member === undefined) return new Promise<never>(() => undefined);
      if (!member.peers.has(this.peerId)) throw new TransportError('closed', 'pulls are for peers');
      return member.events.onPull(this.peerId, methodId, payload);
    });
  }

  async addresses(): Promise<readonly string[]> {
    return [];
  }
  async stats(): Promise<Awaited<ReturnType<NodeSwarm['stats']>>> {
    return { connections: this.connections.size, peersUp: 0, reservations: 0, rssBytes: 0 };
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.#swarms.leave(this.peerId);
  }
}
