/**
 * Circuit relays of libp2p as they are used here: a client asks only relays that it was given, and
 * takes relayed connections only through them. Works on the transport's reservation store, which is
 * not public: libp2p is pinned, and a changed shape is noticed when the swarm is made.
 */
import { circuitRelayTransport } from '@libp2p/circuit-relay-v2';
import type { Connection, PeerId, Stream, Transport } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import { TransportError } from '@quicprochat/proto';
import type { PeerIdText } from './peer-id.ts';

/** What is used of circuit-relay-v2's CircuitRelayTransport. */
interface RelayTransport extends Transport {
  onStop: (this: void, stream: Stream, connection: Connection) => Promise<void>;
  readonly reservationStore: {
    relayFilter: { has(item: Uint8Array): boolean; add(item: Uint8Array): void };
    addRelay(relay: PeerId, type: 'configured'): Promise<unknown>;
    hasReservation(relay: PeerId): boolean;
  };
}

/** More than one device ever asks: a record names three. */
const relaysAtOnce = 16;

type RelayFactory = ReturnType<typeof circuitRelayTransport>;

export class RelayClient {
  /** Relays that this side asked, by peer id; nobody else may hand over connections. */
  readonly #asked = new Set<PeerIdText>();
  #transport: RelayTransport | undefined;

  /** The transport, for the swarm's list. */
  factory(limits: { readonly relayedConnections: number }): RelayFactory {
    return (components) => {
      const make = circuitRelayTransport({
        maxInboundStopStreams: limits.relayedConnections,
        // One at a time is libp2p's default, and whoever waits is forgotten when the first one has its place.
        reservationConcurrency: relaysAtOnce,
      });
      const transport = make(components);
      if (!isRelayTransport(transport)) throw new Error('circuit-relay-v2 has another shape');
      // A relay that was once down is asked again; the filter would refuse it for good.
      transport.reservationStore.relayFilter = { has: () => false, add: () => undefined };
      const onStop = transport.onStop;
      // Without this, whoever opens such a stream makes the swarm ask for a reservation there.
      transport.onStop = async (stream, connection) => {
        if (this.#asked.has(connection.remotePeer.toString())) return onStop(stream, connection);
        stream.abort(new Error('not a relay of ours'));
      };
      this.#transport = transport;
      return transport;
    };
  }

  /** Needs an open connection to the relay. Throws what libp2p throws. */
  async reserve(relay: PeerIdText): Promise<void> {
    if (this.#transport === undefined) throw new TransportError('internal', 'swarm has no relays');
    this.#asked.add(relay);
    await this.#transport.reservationStore.addRelay(peerIdFromString(relay), 'configured');
  }

  /** It is no relay of ours any more; its reservation ends with the connection to it. */
  forget(relay: PeerIdText): void {
    this.#asked.delete(relay);
  }

  isReserved(relay: PeerIdText): boolean {
    return this.#transport?.reservationStore.hasReservation(peerIdFromString(relay)) ?? false;
  }

  /** Whether relayed connections may come through it. */
  isAsked(relay: PeerIdText): boolean {
    return this.#asked.has(relay);
  }
}

function isRelayTransport(transport: Transport): transport is RelayTransport {
  const { onStop, reservationStore: store } = transport as Partial<RelayTransport>;
  return (
    typeof onStop === 'function' &&
    typeof store?.addRelay === 'function' &&
    typeof store.hasReservation === 'function' &&
    typeof store.relayFilter?.has === 'function'
  );
}
