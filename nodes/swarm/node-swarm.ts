/**
 * The node in the swarm (docs/protocol/p2p.md): its process, the peers whose records name theirs,
 * gossip about key logs between them, and the relay for this node's devices.
 */
import type { KtLog } from '@quicprochat/kt-log';
import {
  KtGossip,
  SupervisedSwarm,
  type NodeSwarm,
  type NodeSwarmEvents,
  type NodeSwarmOptions,
  type SwarmKey,
  type SwarmPeer,
} from '@quicprochat/p2p';
import type { Runtime, Timer } from '@quicprochat/proto';
import type { NodeRecord } from '@quicprochat/proto/messages';
import { swarmAddresses, type P2pConfig } from '../config.ts';
import type { AuditLinks, PeerAudits } from '../peer-audits.ts';
import { neighbours } from './neighbours.ts';
import { SwarmPeers } from './peers.ts';
import type { Reservers } from './reservers.ts';

export interface NodeInSwarmOptions {
  readonly config: P2pConfig;
  readonly key: SwarmKey;
  readonly reservers: Pick<Reservers, 'mayReserve'>;
  readonly federation: Pick<AuditLinks, 'policy' | 'records'>;
  readonly audits: PeerAudits;
  readonly log: Pick<KtLog, 'onHead'>;
  readonly runtime: Runtime;
}

/** Between two looks whether those whom this node dials are there (ms). */
const lookMs = 5 * 60_000;

/** Starts the swarm; as SupervisedSwarm.start. */
export type StartSwarm = (
  options: NodeSwarmOptions,
  events: NodeSwarmEvents,
  limits: { readonly rssBytesMax: number },
) => Promise<NodeSwarm>;

export class NodeInSwarm implements AsyncDisposable {
  readonly #options: NodeInSwarmOptions;
  readonly #swarm: NodeSwarm;
  readonly #gossip: KtGossip;
  readonly #peers: SwarmPeers;
  readonly #stops: (() => void)[];
  /** As it was told to the swarm. */
  #wanted: readonly SwarmPeer[] = [];
  /** Dialed, and not there when it was looked last. */
  #away: ReadonlySet<string> = new Set();
  #look: Timer | undefined;

  /** Throws TransportError `unreachable` when the port cannot be bound. */
  static async start(
    options: NodeInSwarmOptions,
    startSwarm: StartSwarm = (...given) => SupervisedSwarm.start(...given),
  ): Promise<NodeInSwarm> {
    const { config, key, reservers, audits, runtime } = options;
    const peers = new SwarmPeers();
    const gossip = new KtGossip(
      audits.gossipNode(
        (peerId) => peers.domainOf(peerId),
        (evidence) => void gossip.publishEvidence(evidence),
      ),
      runtime,
    );
    const swarm = await startSwarm(
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
          // Again while it is up: over another connection, which is no news for people.
          if (!isUp || !gossip.up.has(peerId)) {
            runtime.log.info('p2p peer', { peer: peers.domainOf(peerId), isUp });
          }
          gossip.events.onPeer(peerId, isUp);
        },
        mayReserve: (peerId) => reservers.mayReserve(peerId),
      },
      { rssBytesMax: config.rssBytesMax },
    );
    return new NodeInSwarm(options, swarm, gossip, peers);
  }

  private constructor(
    options: NodeInSwarmOptions,
    swarm: NodeSwarm,
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
    this.#planLook();
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

  /** Others are dialed in the place of those that are not there. */
  #planLook(): void {
    this.#look = this.#options.runtime.clock.timer(lookMs, () => {
      const dialed = this.#wanted.filter(({ addresses }) => addresses.length > 0);
      const away = dialed.map(({ peerId }) => peerId).filter((id) => !this.#gossip.up.has(id));
      this.#away = new Set(away);
      this.#tell();
      this.#planLook();
    });
  }

  #tell(): void {
    const { runtime, key } = this.#options;
    const wanted = neighbours(key.peerId, this.#peers.all, this.#away);
    if (JSON.stringify(wanted) === JSON.stringify(this.#wanted)) return;
    this.#wanted = wanted;
    this.#swarm.setPeers(wanted).catch((error: unknown) => {
      // It ends just now, and gets them when it starts again.
      runtime.log.warn('p2p peers', { error: String(error) });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#look?.cancel();
    for (const stop of this.#stops) stop();
    this.#gossip[Symbol.dispose]();
    await this.#swarm[Symbol.asyncDispose]();
  }
}
