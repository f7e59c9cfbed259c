/**
 * The node in the swarm (docs/protocol/p2p.md): its process, the peers whose records name theirs,
 * gossip about key logs between them, and the relay for this node's devices.
 */
import type { KtLog } from '@quicprochat/kt-log';
import { KtGossip, SupervisedSwarm, type SwarmKey } from '@quicprochat/p2p';
import type { Federation } from '@quicprochat/federation';
import type { Runtime } from '@quicprochat/proto';
import type { NodeRecord } from '@quicprochat/proto/messages';
import { swarmAddresses, type P2pConfig } from '../config.ts';
import type { PeerAudits } from '../peer-audits.ts';
import { neighbours } from './neighbours.ts';
import { SwarmPeers } from './peers.ts';
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
  readonly #peers: SwarmPeers;
  readonly #stops: (() => void)[];

  /** Throws TransportError `unreachable` when the port cannot be bound. */
  static async start(options: NodeSwarmOptions): Promise<NodeInSwarm> {
    const { config, key, reservers, audits, runtime } = options;
    const peers = new SwarmPeers();
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
    peers: SwarmPeers,
  ) {
    const { federation, log, runtime } = options;
    this.#options = options;
    this.#swarm = swarm;
    this.#gossip = gossip;
    this.#peers = peers;
    gossip.start(swarm);
    const records = federation.records.onRecord((domain, record) => this.#heard(domain, record));
    if (this.#takeListed()) this.#tell();
    const stopHeads = log.onHead(() => {
      gossip.publishHead().catch((error: unknown) => {
        runtime.log.warn('p2p publish', { error: String(error) });
      });
    });
    this.#stops = [() => records[Symbol.dispose](), stopHeads];
  }

  /** There is another peers file: who is denied now leaves the swarm too, who is back comes back. */
  policyChanged(): void {
    const { policy } = this.#options.federation;
    const hasLost = this.#peers.keepOnly((domain) => policy.allows(domain));
    if (this.#takeListed() || hasLost) this.#tell();
  }

  /** Whether a peer of the file has another swarm than was known. */
  #takeListed(): boolean {
    const { policy, records } = this.#options.federation;
    return policy.peers
      .map(({ domain }) => [domain, records.get(domain)] as const)
      .map(([domain, known]) => known !== undefined && this.#peers.set(domain, known.record))
      .includes(true);
  }

  #heard(domain: string, record: NodeRecord): void {
    if (this.#peers.set(domain, record)) this.#tell();
  }

  #tell(): void {
    const { runtime, key } = this.#options;
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
