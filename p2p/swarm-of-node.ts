/**
 * What a node sees of its swarm: only plain data crosses, since it is another process that implements
 * it (supervised-swarm.ts). Loads nothing of libp2p.
 */
import type { ResponseFrame, Runtime } from '@quicprochat/proto';
import type { Verdict } from './libp2p-gossip.ts';
import type { RelayServerOptions } from './libp2p-relay-server.ts';
import type { PeerIdText } from './peer-id.ts';
import type { SwarmKey } from './swarm-key.ts';

/** Topics with the largest message of each (bytes). */
export const gossipTopics = {
  /** Signed notes: checkpoints with cosignatures. */
  'qpc/kt/1': 8 * 1024,
  /** Evidence against a log; proves itself. */
  'qpc/kt-evidence/1': 64 * 1024,
} as const;
export type GossipTopic = keyof typeof gossipTopics;

export interface SwarmPeer {
  readonly peerId: PeerIdText;
  /** Where it listens, without "/p2p/", best first. */
  readonly addresses: readonly string[];
}

/** An answer as the wire has it: the payload of the method's response, or of Error. */
export type PullAnswer = Pick<ResponseFrame, 'status' | 'payload'>;

/** What the swarm asks and tells the node. */
export interface NodeSwarmEvents {
  /** A peer's connection came up or ended; up again also where it is up already: it may have been away. */
  onPeer(peerId: PeerIdText, isUp: boolean): void;
  onGossip(topic: GossipTopic, from: PeerIdText, bytes: Uint8Array): Promise<Verdict>;
  /** A listed peer asks; `methodId` is the wire's. */
  onPull(from: PeerIdText, methodId: number, payload: Uint8Array): Promise<PullAnswer>;
  mayReserve(peerId: PeerIdText): Promise<boolean>;
}

export interface SwarmStats {
  readonly connections: number;
  readonly peersUp: number;
  readonly reservations: number;
  /** Of the process that runs the swarm. */
  readonly rssBytes: number;
}

export interface NodeSwarm extends AsyncDisposable {
  /** Peers to be connected to for ever, in place of those before; others' connections end. */
  setPeers(peers: readonly SwarmPeer[]): Promise<void>;
  /** Returns to how many peers it was handed, which says nothing of who got it. */
  publish(topic: GossipTopic, bytes: Uint8Array): Promise<number>;
  /** Asks a peer. Throws TransportError when it is not connected or does not answer. */
  pull(peerId: PeerIdText, methodId: number, payload: Uint8Array): Promise<PullAnswer>;
  /** Where it listens, without "/p2p/". */
  addresses(): Promise<readonly string[]>;
  stats(): Promise<SwarmStats>;
}

export interface NodeSwarmOptions {
  readonly key: SwarmKey;
  readonly runtime: Runtime;
  readonly listen: readonly string[];
  /** False: relays for nobody. */
  readonly relays: boolean;
  readonly relayLimits?: Partial<Omit<RelayServerOptions, 'mayReserve'>>;
}
