/**
 * A node in the swarm: connections to its peers that come back for ever, gossip and pulls between
 * them, and relaying for the devices that may.
 */
import { maxEvidenceBytes, TransportError, type Runtime } from '@quicprochat/proto';
import { FrameCaller } from './frame-call.ts';
import { serveFrames } from './frame-serve.ts';
import type { Host, HostConnection } from './host.ts';
import { KeepUp } from './keep-up.ts';
import { Gossip } from './libp2p-gossip.ts';
import { createHost } from './libp2p-host.ts';
import { relayServerDefaults } from './libp2p-relay-server.ts';
import type { PeerIdText } from './peer-id.ts';
import {
  gossipTopics,
  type GossipTopic,
  type NodeSwarm,
  type NodeSwarmEvents,
  type NodeSwarmOptions,
  type PullAnswer,
  type SwarmPeer,
  type SwarmStats,
} from './swarm-of-node.ts';

export const pullProtocol = '/qpc/kt-heads/1';

export const nodeSwarmLimits = {
  pullStreams: 4,
  /** A question, or evidence that is shown (bytes); answers are bounded by frame-call.ts. */
  pullRequestBytes: maxEvidenceBytes + 16 * 1024,
  pullMs: 20_000,
  /** Of two that dial each other, the one with the greater peer id waits so long for the other (ms). */
  dialAfterMs: 1_000,
} as const;

interface PeerState {
  readonly peer: SwarmPeer;
  readonly keep: KeepUp;
  caller: { readonly connection: HostConnection; readonly frames: FrameCaller } | undefined;
}

/** Starts a node's swarm in this process. Throws TransportError `unreachable` when it cannot bind. */
export async function startNodeSwarm(
  options: NodeSwarmOptions,
  events: NodeSwarmEvents,
): Promise<NodeSwarm> {
  const peers = new Map<PeerIdText, PeerState>();
  const gossip = new Gossip({
    topics: gossipTopics,
    isPeer: (peerId) => peers.has(peerId),
    judge: (topic, from, bytes) => events.onGossip(topic as GossipTopic, from, bytes),
  });
  const host = await createHost({
    key: options.key,
    runtime: options.runtime,
    listen: options.listen,
    gossip,
    ...(options.relays
      ? {
          relayServer: {
            ...relayServerDefaults,
            ...options.relayLimits,
            mayReserve: (peerId) => events.mayReserve(peerId),
          },
        }
      : {}),
  });
  const swarm = new LocalNodeSwarm(host, gossip, peers, options.runtime, events);
  await host.handle(pullProtocol, nodeSwarmLimits.pullStreams, (stream, connection) => {
    if (!peers.has(connection.peerId)) {
      stream.abort('pulls are for peers');
      return;
    }
    serveFrames(
      stream,
      ({ methodId, payload }) => events.onPull(connection.peerId, methodId, payload),
      { maxRequestBytes: () => nodeSwarmLimits.pullRequestBytes, runtime: options.runtime },
    );
  });
  return swarm;
}

class LocalNodeSwarm implements NodeSwarm {
  readonly #host: Host;
  readonly #gossip: Gossip;
  readonly #peers: Map<PeerIdText, PeerState>;
  readonly #runtime: Runtime;
  readonly #events: NodeSwarmEvents;

  constructor(
    host: Host,
    gossip: Gossip,
    peers: Map<PeerIdText, PeerState>,
    runtime: Runtime,
    events: NodeSwarmEvents,
  ) {
    this.#host = host;
    this.#gossip = gossip;
    this.#peers = peers;
    this.#runtime = runtime;
    this.#events = events;
    host.onDisconnect((peerId) => peers.get(peerId)?.keep.look());
    host.onConnect((peerId) => this.#connected(peerId));
  }

  /**
   * A peer that lost its connection without a word comes back over another one while the old one still
   * looks open here: it is up as before, and yet was away.
   */
  #connected(peerId: PeerIdText): void {
    const keep = this.#peers.get(peerId)?.keep;
    if (keep?.isUp === true) this.#events.onPeer(peerId, true);
    else keep?.wake();
  }

  async setPeers(wanted: readonly SwarmPeer[]): Promise<void> {
    const ended: HostConnection[] = [];
    const next = new Map(wanted.map((peer) => [peer.peerId, peer]));
    for (const [peerId, { peer, keep }] of this.#peers) {
      const isSame = JSON.stringify(next.get(peerId)) === JSON.stringify(peer);
      if (isSame) next.delete(peerId);
      else this.#remove(peerId, keep, next.has(peerId) ? [] : ended);
    }
    for (const peer of next.values()) {
      if (peer.peerId === this.#host.peerId) continue;
      // Gossip looks at who is a peer when a connection comes up: it has to come anew.
      const early = this.#host.connections(peer.peerId);
      await Promise.all(early.map((connection) => connection.close()));
      this.#host.keep(peer.peerId, true);
      this.#peers.set(peer.peerId, { peer, keep: this.#keep(peer), caller: undefined });
    }
    await Promise.all(ended.map((connection) => connection.close()));
  }

  #remove(peerId: PeerIdText, keep: KeepUp, ended: HostConnection[]): void {
    keep.close();
    this.#peers.delete(peerId);
    this.#host.keep(peerId, false);
    ended.push(...this.#host.connections(peerId));
  }

  #keep(peer: SwarmPeer): KeepUp {
    const { peerId, addresses } = peer;
    const isUp = (): boolean => this.#host.connections(peerId).length > 0;
    let wasUp = false;
    return new KeepUp({
      runtime: this.#runtime,
      isUp,
      connect: async (signal) => {
        if (this.#host.peerId > peerId) {
          await this.#runtime.clock.sleep(nodeSwarmLimits.dialAfterMs, signal);
        }
        let failure: unknown = new TransportError('unreachable', 'the peer has no address');
        for (const address of addresses) {
          // It may have connected meanwhile.
          if (isUp()) return;
          try {
            await this.#host.dial(`${address}/p2p/${peerId}`, signal);
            return;
          } catch (error) {
            failure = error;
            signal.throwIfAborted();
          }
        }
        if (!isUp()) throw failure;
      },
      onChange: (isNowUp) => {
        if (isNowUp === wasUp) return;
        wasUp = isNowUp;
        this.#events.onPeer(peerId, isNowUp);
      },
    });
  }

  publish(topic: GossipTopic, bytes: Uint8Array): Promise<number> {
    return this.#gossip.publish(topic, bytes);
  }

  async pull(peerId: PeerIdText, methodId: number, payload: Uint8Array): Promise<PullAnswer> {
    const frames = await this.#caller(peerId);
    return frames.call(
      { methodId, requestId: 0, payload },
      { deadlineMs: nodeSwarmLimits.pullMs, maxResponseBytes: 1024 * 1024 },
    );
  }

  async #caller(peerId: PeerIdText): Promise<FrameCaller> {
    const state = this.#peers.get(peerId);
    const [connection] = this.#host.connections(peerId);
    if (state === undefined || connection === undefined) {
      throw new TransportError('unreachable', 'the peer is not connected');
    }
    if (state.caller?.frames.isOpen === true && state.caller.connection.isOpen) {
      return state.caller.frames;
    }
    const timeout = new AbortController();
    const timer = this.#runtime.clock.timer(nodeSwarmLimits.pullMs, () => timeout.abort());
    try {
      const stream = await connection.openStream(pullProtocol, timeout.signal);
      const frames = new FrameCaller(stream, this.#runtime.clock);
      state.caller = { connection, frames };
      return frames;
    } finally {
      timer.cancel();
    }
  }

  addresses(): Promise<readonly string[]> {
    return Promise.resolve(this.#host.addresses());
  }

  stats(): Promise<SwarmStats> {
    return Promise.resolve({
      ...this.#host.counts(),
      peersUp: [...this.#peers.values()].filter(({ keep }) => keep.isUp).length,
      rssBytes: process.memoryUsage.rss(),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { keep } of this.#peers.values()) keep.close();
    this.#peers.clear();
    await this.#host.stop();
  }
}
