/**
 * The transport interface (calls and pushes, not streams) that every engine implements and no
 * engine's type leaks through. One call = one bidirectional stream with one request frame and one
 * response frame; one push stream = one long-lived unidirectional stream of push frames.
 */
import type { RequestFrame, ResponseFrame, PushFrame } from '../frame.ts';
import type { TransportFailure } from '../status.ts';
import type { NodeIdentity } from './certificate.ts';

/** Application close codes of a connection. */
export const CloseCode = {
  Normal: 0x00,
  Protocol: 0x01,
  RefusedIdentity: 0x02,
  Limit: 0x03,
  Draining: 0x10,
} as const;

/** Host and UDP/TCP port; `host` is an IP literal or a DNS name, without brackets. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** Who the other side is, from the TLS handshake. Names and dates in its certificate mean nothing. */
export interface PeerIdentity {
  /** SHA-256 of the peer certificate's SubjectPublicKeyInfo (32 bytes). */
  readonly spkiSha256: Uint8Array;
  /** Numeric address and port as seen here, for limits and logs. */
  readonly address: string;
  /** Numeric address alone: the key of per-address limits. */
  readonly host: string;
}

/**
 * Why a connection ended. `local` is true when this side closed it, an idle time-out included.
 * `failure` is what the calls in flight failed with: `closed`, or what the close code, the TLS
 * alert or the fault of the engine says. `code` is 0 when no application code travelled.
 */
export interface CloseInfo {
  readonly failure: TransportFailure;
  readonly code: number;
  readonly reason: string;
  readonly local: boolean;
}

export interface CallOptions {
  /** Time until the whole response frame must be here (ms). */
  readonly deadlineMs: number;
  /** Bound on the response payload (bytes), checked before allocation. */
  readonly maxResponseBytes: number;
  readonly signal?: AbortSignal;
}

/** A handler answers with a frame; what it throws closes the stream with an internal error frame. */
export type CallHandler = (
  request: RequestFrame,
  context: { readonly signal: AbortSignal },
) => Promise<ResponseFrame>;

/** One long-lived outgoing push stream. */
export interface PushWriter {
  /** Resolves when the engine accepted the frame under flow control: real backpressure. */
  write(frame: PushFrame): Promise<void>;
  close(): Promise<void>;
}

/** Called once per incoming push stream; frames come in order; returning early cancels it. */
export type PushHandler = (frames: AsyncIterable<PushFrame>) => Promise<void>;

export interface Connection {
  readonly peer: PeerIdentity;
  /**
   * Sends one request and resolves with its response frame, whatever its status.
   * Throws TransportError: `timeout` at the deadline, `closed`, `cancelled` (signal), `limit`
   * (queue of waiting calls full), `protocol` (the response breaks the framing or its bound).
   */
  call(request: RequestFrame, options: CallOptions): Promise<ResponseFrame>;
  /** Sets the one handler of incoming calls; until then they wait (bounded by stream limits). */
  onCall(handler: CallHandler): void;
  openPushStream(): Promise<PushWriter>;
  onPushStream(handler: PushHandler): void;
  /** Idempotent. Calls in flight fail with `closed`. Resolves when the engine let go of it. */
  close(code: number, reason: string): Promise<void>;
  readonly closed: Promise<CloseInfo>;
}

/** Bounds that a listener and a connection keep; see `defaultLimits` for the numbers. */
export interface TransportLimits {
  /** Calls in flight per connection and direction on our side, below the peer's stream limit. */
  readonly callsInFlight: number;
  /** Calls that may wait for a free slot; one more fails with `limit`. */
  readonly callsQueued: number;
  /** Incoming bidirectional streams that the peer may have open. */
  readonly incomingStreams: number;
  /** Incoming push streams that the peer may have open. */
  readonly incomingPushStreams: number;
  /**
   * Streams that one connection has in its life: quiche remembers each that ended, 9 to 18 bytes a side.
   * Its dialer ends it at so many, as soon as no call is open; the listener at a quarter more; whatever
   * is open at half as many more.
   */
  readonly streamsPerConnection: number;
  readonly handshakeMs: number;
  /** Time that the opening of a push stream waits for the peer to allow it. */
  readonly openPushMs: number;
  readonly idleMs: number;
  readonly keepAliveMs: number;
  /** Time a peer has to complete a request once its stream is open. */
  readonly requestReadMs: number;
  /** Hard cap of a request payload (bytes) unless the method's row says less. */
  readonly maxPayloadBytes: number;
  /**
   * Answers of all connections of a listener that wait until their readers take them in (bytes); above
   * it the connection that has most of them is ended.
   */
  readonly unreadAnswerBytes: number;
  readonly connections: number;
  readonly connectionsPerHost: number;
  /** New connections per second and host, burst twice that. */
  readonly handshakesPerHostPerSecond: number;
}

export const defaultLimits: TransportLimits = {
  callsInFlight: 64,
  callsQueued: 4096,
  incomingStreams: 100,
  incomingPushStreams: 8,
  streamsPerConnection: 1024 * 1024,
  handshakeMs: 5_000,
  openPushMs: 5_000,
  idleMs: 30_000,
  keepAliveMs: 10_000,
  requestReadMs: 15_000,
  maxPayloadBytes: 4 * 1024 * 1024,
  unreadAnswerBytes: 256 * 1024 * 1024,
  connections: 20_000,
  connectionsPerHost: 2_000,
  handshakesPerHostPerSecond: 200,
};

/**
 * Bound of one request payload (bytes) by method id, asked as soon as the header is here, before
 * anything is allocated. Unknown methods get the smallest bound.
 */
export type RequestBound = (methodId: number) => number;

export interface ListenOptions {
  readonly endpoint: Endpoint;
  readonly identity: NodeIdentity;
  readonly limits: TransportLimits;
  readonly maxRequestBytes: RequestBound;
  readonly onConnection: (connection: Connection) => void;
}

export interface Listener {
  /** The bound address; the port is the real one when 0 was asked. */
  readonly endpoint: Endpoint;
  /** Stops accepting, closes every connection with the code, frees the port. Idempotent. */
  close(code: number, reason: string): Promise<void>;
}

export interface DialOptions {
  readonly identity: NodeIdentity;
  readonly limits: TransportLimits;
  readonly maxRequestBytes: RequestBound;
  /**
   * SHA-256 SPKI pins, one of which the listener must present; without it any identity is
   * accepted and the caller must judge `peer.spkiSha256` itself.
   */
  readonly pins?: readonly Uint8Array[];
  readonly signal?: AbortSignal;
}

/**
 * An engine. `dial` resolving means only that TLS finished on our side: the listener may still
 * refuse our certificate, so only an answered Hello means "connected".
 */
export interface Transport {
  readonly name: string;
  listen(options: ListenOptions): Promise<Listener>;
  dial(endpoint: Endpoint, options: DialOptions): Promise<Connection>;
}
