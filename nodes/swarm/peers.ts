/**
 * The swarms that records of peers name. A record is signed by its node's keys, not by the swarm's: a
 * swarm that one domain named stays that domain's, whoever names it later.
 */
import { parseSwarmAddress, peerIdOf, type SwarmPeer } from '@quicprochat/p2p';
import { QpcError } from '@quicprochat/proto';
import type { NodeRecord } from '@quicprochat/proto/messages';

export class SwarmPeers {
  readonly #byDomain = new Map<string, SwarmPeer>();
  readonly #domains = new Map<string, string>();

  domainOf(peerId: string): string | undefined {
    return this.#domains.get(peerId);
  }

  get all(): readonly SwarmPeer[] {
    return [...this.#byDomain.values()];
  }

  /** False when nothing changed. */
  set(domain: string, { swarm }: Pick<NodeRecord, 'swarm'>): boolean {
    const before = this.#byDomain.get(domain);
    this.#forget(domain);
    if (swarm === undefined) return before !== undefined;
    const peer = {
      peerId: peerIdOf(swarm.swarmKey),
      addresses: swarm.addresses.filter((text) => isAddress(text)),
    };
    if (this.#domains.has(peer.peerId)) return before !== undefined;
    this.#byDomain.set(domain, peer);
    this.#domains.set(peer.peerId, domain);
    return JSON.stringify(before) !== JSON.stringify(peer);
  }

  /** Forgets the others. False when there were none. */
  keepOnly(isKept: (domain: string) => boolean): boolean {
    const gone = [...this.#byDomain.keys()].filter((domain) => !isKept(domain));
    for (const domain of gone) this.#forget(domain);
    return gone.length > 0;
  }

  #forget(domain: string): void {
    const peer = this.#byDomain.get(domain);
    if (peer === undefined) return;
    this.#byDomain.delete(domain);
    this.#domains.delete(peer.peerId);
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
