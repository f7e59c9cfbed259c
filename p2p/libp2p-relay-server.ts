/**
 * The circuit relay that a node offers to devices: libp2p's, with limits, and with a bound for what a stranger may send
 * before it is known what it wants. Works on a method that is not public: libp2p is pinned, and a changed shape is
 * noticed when the swarm is made.
 */
import { circuitRelayServer, type CircuitRelayService } from '@libp2p/circuit-relay-v2';
import type { Connection, Stream } from '@libp2p/interface';
import type { PeerIdText } from './peer-id.ts';

/** What a relay gives to whoever may reserve. */
export interface RelayServerOptions {
  /** Whether the peer may reserve: a device of this node's users, or of its peers'. */
  mayReserve(peerId: PeerIdText): Promise<boolean>;
  readonly reservations: number;
  /** Of one relayed connection, both directions together (bytes). */
  readonly bytesPerConnection: number;
  readonly connectionMs: number;
  readonly reservationMs: number;
  /** Connections through this relay that one peer may ask for: per minute, burst the same. */
  readonly connectsPerPeerPerMinute: number;
}

export const relayServerDefaults: Omit<RelayServerOptions, 'mayReserve'> = {
  reservations: 500,
  bytesPerConnection: 16 * 1024 * 1024,
  connectionMs: 3_600_000,
  reservationMs: 3_600_000,
  connectsPerPeerPerMinute: 30,
};

/** What is used of circuit-relay-v2's CircuitRelayServer. */
interface RelayServer extends CircuitRelayService {
  onHop: (this: void, stream: Stream, connection: Connection) => Promise<void>;
}

/** A reservation or a wish to be connected names one peer (bytes); libp2p itself would keep 4 MiB of each stream. */
const requestBytes = 4_096;

type RelayServerFactory = ReturnType<typeof circuitRelayServer>;

export function relayServerOf(options: RelayServerOptions): RelayServerFactory {
  const make = circuitRelayServer({
    reservations: {
      maxReservations: options.reservations,
      defaultDataLimit: BigInt(options.bytesPerConnection),
      defaultDurationLimit: options.connectionMs,
      reservationTtl: options.reservationMs,
    },
  });
  return (components) => {
    const server = make(components);
    if (!isRelayServer(server)) throw new Error('circuit-relay-v2 has another shape');
    const onHop = server.onHop;
    server.onHop = async (stream, connection) => {
      let bytes = 0;
      const count = ({ data }: { readonly data: { readonly byteLength: number } }): void => {
        bytes += data.byteLength;
        if (bytes > requestBytes) stream.abort(new Error('a request to a relay is small'));
      };
      // libp2p listens first: what came already is handed out to whoever listens.
      const answered = onHop(stream, connection);
      stream.addEventListener('message', count);
      try {
        await answered;
      } finally {
        // From now on it carries what is relayed, or nothing.
        stream.removeEventListener('message', count);
      }
    };
    return server;
  };
}

function isRelayServer(server: CircuitRelayService): server is RelayServer {
  return typeof (server as Partial<RelayServer>).onHop === 'function';
}
