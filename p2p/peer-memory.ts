/**
 * What libp2p keeps of a peer goes when the peer does: its store of peers would grow with everybody who
 * was ever here, and the circuit relay keeps a place for an hour whoever left it.
 */
import type { CircuitRelayService } from '@libp2p/circuit-relay-v2';
import type { Libp2p, PeerId } from '@libp2p/interface';
import type { Log } from '@quicprochat/proto';

export class PeerMemory {
  readonly #libp2p: Libp2p;
  readonly #log: Log;

  constructor(libp2p: Libp2p, log: Log) {
    this.#libp2p = libp2p;
    this.#log = log;
    libp2p.addEventListener('peer:disconnect', ({ detail }) => void this.#forget(detail));
    // What a peer said of itself is kept when it was read to its end, and who says it may be gone by then.
    libp2p.addEventListener('peer:identify', ({ detail: { peerId } }) => {
      if (this.#isGone(peerId)) void this.#forget(peerId);
    });
  }

  /** Places that this swarm gave, as a relay; undefined when it is none. */
  get places(): CircuitRelayService['reservations'] | undefined {
    return (this.#libp2p.services as { readonly relay?: CircuitRelayService }).relay?.reservations;
  }

  /** Forgets who is not connected: a stream that was opened as its peer left is noted after it left. */
  async sweep(): Promise<void> {
    try {
      const known = await this.#libp2p.peerStore.all();
      const peers = [...known.map(({ id }) => id), ...(this.places?.keys() ?? [])];
      await Promise.all(
        peers.filter((peer) => this.#isGone(peer)).map((peer) => this.#forget(peer)),
      );
    } catch (error) {
      this.#log.warn('peers not swept', { error: String(error) });
    }
  }

  #isGone(peer: PeerId): boolean {
    return this.#libp2p.getConnections(peer).length === 0;
  }

  async #forget(peer: PeerId): Promise<void> {
    // Of 500 who came and went every place would be taken. It ends by its signal and not by the map: that of a
    // place that was only deleted would end the next one.
    this.places?.get(peer)?.signal.reset(0);
    try {
      await this.#libp2p.peerStore.delete(peer);
    } catch (error) {
      this.#log.debug('peer not forgotten', { error: String(error) });
    }
  }
}
