/**
 * What the protocols of this package need from a swarm: connections to peer ids, streams, relays.
 * Implemented over libp2p (libp2p-host.ts); no type of libp2p leaks through it.
 */
import type { ByteStream } from './byte-stream.ts';
import type { PeerIdText } from './peer-id.ts';

export interface HostConnection {
  /** Proved by the transport's handshake. */
  readonly peerId: PeerIdText;
  /** Over somebody's relay: slower, and ended after some MiB or an hour. */
  readonly isRelayed: boolean;
  /** As seen from here; for limits and logs. */
  readonly remoteAddress: string;
  readonly isOpen: boolean;
  /** Throws TransportError `closed`, `timeout` or `protocol` (the other side does not speak it). */
  openStream(protocol: string, signal: AbortSignal): Promise<ByteStream>;
  /** Ends every stream on it. Never rejects. */
  close(): Promise<void>;
}

export type StreamHandler = (stream: ByteStream, connection: HostConnection) => void;

export interface Host {
  readonly peerId: PeerIdText;
  /**
   * A new connection to one address, which ends with "/p2p/" and the peer id: another peer there is
   * an error. Resolving means nothing yet: the other side may close it at once. Throws TransportError
   * `unreachable`, `timeout` (the signal's end), `refused-identity` or `limit` (too many dials here).
   */
  dial(address: string, signal: AbortSignal): Promise<HostConnection>;
  /** Open connections to a peer, direct ones first. */
  connections(peerId: PeerIdText): readonly HostConnection[];
  /**
   * Connections on which nothing is open end by themselves after a while, unless they hold a
   * reservation or `keep` names their peer.
   */
  keep(peerId: PeerIdText, isKept: boolean): void;
  /** Answers streams of a protocol; at most `maxStreams` of a connection at a time. */
  handle(protocol: string, maxStreams: number, handler: StreamHandler): Promise<void>;
  /**
   * Where this swarm listens now, without "/p2p/", an unspecified address as those of the network
   * interfaces; relays are not among them.
   */
  addresses(): readonly string[];
  /**
   * Reserves a place at a relay to which there is an open connection. The reservation is refreshed
   * until that connection ends. Throws TransportError `unreachable` when the relay refuses.
   */
  reserve(relay: PeerIdText): Promise<void>;
  /** Gives a reservation up, with the connection that it stands on. Never rejects. */
  release(relay: PeerIdText): Promise<void>;
  /** Whether a reservation at the relay stands. */
  isReserved(relay: PeerIdText): boolean;
  /** Called for each new connection, whichever side dialed, also beside one that is open. */
  onConnect(listener: (peerId: PeerIdText) => void): void;
  /** Called when the last connection to a peer has ended. */
  onDisconnect(listener: (peerId: PeerIdText) => void): void;
  /** For people and alarms. */
  counts(): { readonly connections: number; readonly reservations: number };
  /** Where a peer of the local network might be; empty unless discovery is switched on. */
  lanAddresses(peerId: PeerIdText): readonly string[];
  /** Ends all connections and listeners. Resolves in a few seconds, whatever the engine does. */
  stop(): Promise<void>;
}
