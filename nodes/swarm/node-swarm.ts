/**
 * The node in the swarm (docs/protocol/p2p.md): its process, the peers whose records name theirs,
 * gossip about key logs between them, and the relay for this node's devices.
 */
import type { KtLog } from '@quicprochat/kt-log';
import {
  KtGossip,
  parseSwarmAddress,
  peerIdOf,
  SupervisedSwarm,
  type SwarmKey,
  type SwarmPeer,
} from '@quicprochat/p2p';
import type { Federation } from '@quicprochat/federation';
import { QpcError, type Runtime } from '@quicprochat/proto';
import type { NodeRecord } from '@quicprochat/proto/messages';
import { swarmAddresses, type P2pConfig } from '../config.ts';
import type { PeerAudits } from '../peer-audits.ts';
import { neighbours } from './neighbours.ts';
import type { Reservers } from './reservers.ts';

export interface NodeSwarmOptions {
  readonly config: P2pConfig;
  readonly key: SwarmKey;
  readonly reservers: Reservers;
  readonly federation: Federation;
  readonly audits: PeerAudits;
  readonly log: KtLog;
  readonly runtime: Runtime;
}

export class NodeInSwarm implements AsyncDisposable {
  readonly #options: NodeSwarmOptions;
  readonly #swarm: SupervisedSwarm;
  readonly #gossip: KtGossip;
  readonly #peers: Peers;
  readonly #stops: (() => void)[];

  /** Throws TransportError `unreachable` when the port cannot be bound. */
  static async start(options: NodeSwarmOptions): Promise<NodeInSwarm> {
    const { config, key, reservers, audits, runtime } = options;
    const peers = new Peers();
    const gossip = new KtGossip(
      audits.gossipNode(
        (peerId) => peers.domainOf(peerId),
        (evidence) => void gossip.publishEvidence(evidence),
      ),
      runtime,
    );
    const swarm = await SupervisedSwarm.start(
      {
        key,
        runtime,
        listen: swarmAddresses(config.listen),
        relays: config.isRelay,
        relayLimits: { reservations: config.reservations },
      },
      {
        ...gossip.events,
        onPeer: (peerId, isUp) => {
          runtime.log.info('p2p peer', { peer: peers.domainOf(peerId), isUp });
          gossip.events.onPeer(peerId, isUp);
        },
        mayReserve: (peerId) => reservers.mayReserve(peerId),
      },
      { rssBytesMax: config.rssBytesMax },
    );
    return new NodeInSwarm(options, swarm, gossip, peers);
  }

  private constructor(
    options: NodeSwarmOptions,
    swarm: SupervisedSwarm,
    gossip: KtGossip,
    peers: Peers,
  ) {
    const { federation, log, runtime } = options;
    this.#options = options;
    this.#swarm = swarm;
    this.#gossip = gossip;
    this.#peers = peers;
    gossip.start(swarm);
    const records = federation.records.onRecord((domain, record) => this.#heard(domain, record));
    for (const { domain } of federation.policy.peers) {
      const known = federation.records.get(domain);
      if (known !== undefined) this.#heard(domain, known.record);
    }
    const stopHeads = log.onHead(() => {
      gossip.publishHead().catch((error: unknown) => {
        runtime.log.warn('p2p publish', { error: String(error) });
      });
    });
    this.#stops = [() => records[Symbol.dispose](), stopHeads];
  }

  #heard(domain: string, record: NodeRecord): void {
    const { runtime, key } = this.#options;
    if (!this.#peers.set(domain, record)) return;
    const wanted = neighbours(key.peerId, this.#peers.all);
    this.#swarm.setPeers(wanted).catch((error: unknown) => {
      // It ends just now, and gets them when it starts again.
      runtime.log.warn('p2p peers', { error: String(error) });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    this.#gossip[Symbol.dispose]();
    await this.#swarm[Symbol.asyncDispose]();
  }
}

/** The swarms that records of peers name. */
class Peers {
  readonly #byDomain = new Map<string, SwarmPeer>();
  readonly #domains = new Map<string, string>();

  domainOf(peerId: string): string | undefined {
    return this.#domains.get(peerId);
  }

  get all(): readonly SwarmPeer[] {
    return [...this.#byDomain.values()];
  }

  /** False when nothing changed. */
  set(domain: string, { swarm }: NodeRecord): boolean {
    const before = this.#byDomain.get(domain);
    if (before !== undefined) this.#domains.delete(before.peerId);
    if (swarm === undefined) return this.#byDomain.delete(domain);
    const peer = {
      peerId: peerIdOf(swarm.swarmKey),
      addresses: swarm.addresses.filter((text) => isAddress(text)),
    };
    this.#byDomain.set(domain, peer);
    this.#domains.set(peer.peerId, domain);
    return JSON.stringify(before) !== JSON.stringify(peer);
  }
}

/** A peer's record may name what this version cannot dial; the rest of it stands. */
function isAddress(text: string): boolean {
  try {
    return parseSwarmAddress(text).peerId === undefined;
  } catch (error) {
    if (error instanceof QpcError) return false;
    throw error;
  }
}
