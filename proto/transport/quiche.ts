/**
 * The QUIC engine (RFC 9000, RFC 9001) on native quiche under our own glue: ALPN `qpc`, mutual TLS
 * 1.3 with self-made certificates, the listener pinned by SPKI on the dialing side. One UDP socket
 * per dialed connection. Why not the package's glue: docs/decisions/0005.
 */
import type { RemoteInfo } from 'node:dgram';
import type { Runtime } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { plainAddress } from './admission.ts';
import type { NodeIdentity } from './certificate.ts';
import { FramedConnection } from './connection.ts';
import { asTransportError } from './outgoing-call.ts';
import { peerSpki, systemError } from './quic-engine.ts';
import { addressOf } from './quic-listener.ts';
import { resolveHost } from './quic-socket.ts';
import { isTo } from './quiche-header.ts';
import { Link, type LinkOwner } from './quiche-link.ts';
import { QuicheListener } from './quiche-listener.ts';
import { connectionIdBytes, loadQuiche, nativeConfig, tlsAlert } from './quiche-native.ts';
import { transportCode, type NativeConfig, type Quiche } from './quiche-native.ts';
import { QuicheSession } from './quiche-session.ts';
import { openUdp, type UdpSocket } from './quiche-socket.ts';
import { Turn } from './quiche-turn.ts';
import { withSeldomWarnings } from './seldom-warnings.ts';
import { closedError, lost } from './session.ts';
import type { CloseInfo, DialOptions, Endpoint, Transport, TransportLimits } from './transport.ts';

/** Codes of a system that has no way to the destination. */
const unreachableCodes = new Set(['EINVAL', 'EADDRNOTAVAIL', 'ENETUNREACH', 'EHOSTUNREACH']);

/**
 * The engine. Throws TransportError `internal` from `listen` and `dial` on platforms without the
 * native binding, and from `listen` when the port is taken (`cause.code` is `EADDRINUSE`).
 */
export function quicheTransport(given: Runtime): Transport & QuicheDialer {
  const runtime = withSeldomWarnings(given);
  const turn = new Turn();
  const configs = new DialConfigs();
  const dialSession = (endpoint: Endpoint, options: DialOptions): Promise<QuicheSession> =>
    dial({ runtime, turn, configs }, endpoint, options);
  return {
    name: 'quic',
    listen: async (options) => QuicheListener.open(await loadQuiche(), runtime, turn, options),
    dialSession,
    async dial(endpoint, options) {
      const session = await dialSession(endpoint, options);
      return new FramedConnection(runtime, session, options.limits, options.maxRequestBytes);
    },
  };
}

/** What tests need below the frames. */
export interface QuicheDialer {
  /** A dialed session without the frames on top. */
  dialSession(endpoint: Endpoint, options: DialOptions): Promise<QuicheSession>;
}

/** One configuration with its TLS context per identity and limits, as long as those live. */
class DialConfigs {
  readonly #byIdentity = new WeakMap<NodeIdentity, WeakMap<TransportLimits, NativeConfig>>();

  of(quiche: Quiche, { identity, limits }: DialOptions): NativeConfig {
    const known = this.#byIdentity.get(identity) ?? new WeakMap<TransportLimits, NativeConfig>();
    this.#byIdentity.set(identity, known);
    const config = known.get(limits) ?? nativeConfig(quiche, identity, limits, 'dial');
    known.set(limits, config);
    return config;
  }
}

interface Dialing {
  readonly runtime: Runtime;
  readonly turn: Turn;
  readonly configs: DialConfigs;
}

async function dial(
  dialing: Dialing,
  endpoint: Endpoint,
  options: DialOptions,
): Promise<QuicheSession> {
  if (options.signal?.aborted) throw cancelled(options.signal);
  const quiche = await loadQuiche();
  const addresses = await resolveHost(endpoint.host);
  const { clock } = dialing.runtime;
  const deadline = clock.monotonic() + options.limits.handshakeMs;
  let failed: TransportError | undefined;
  for (const [index, host] of addresses.entries()) {
    // The first of two families must leave the second one time to answer.
    const leftMs = Math.max(1, deadline - clock.monotonic());
    const handshakeMs = leftMs / (addresses.length - index);
    try {
      const at = { host: loopbackOf(host), port: endpoint.port };
      return await dialAddress(dialing, quiche, at, options, handshakeMs);
    } catch (error) {
      failed = asTransportError(error);
      if (failed.failure !== 'timeout' && failed.failure !== 'unreachable') break;
    }
  }
  throw failed ?? new TransportError('unreachable', 'dial: the host name has no address');
}

function cancelled(signal: AbortSignal | undefined): TransportError {
  return new TransportError('cancelled', 'dial: cancelled', { cause: signal?.reason });
}

/** "Any address" as a destination means this host, which answers from its loopback address. */
function loopbackOf(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1';
  return host === '::' ? '::1' : host;
}

async function dialAddress(
  { runtime, turn, configs }: Dialing,
  quiche: Quiche,
  at: Endpoint,
  options: DialOptions,
  handshakeMs: number,
): Promise<QuicheSession> {
  const config = configs.of(quiche, options);
  const ownId = runtime.random.bytes(connectionIdBytes);
  let side: ClientSide | undefined;
  const socket = await openUdp(
    { host: at.host.includes(':') ? '::' : '0.0.0.0', port: 0 },
    turn.slab,
    runtime.log,
    {
      onDatagram: (data: Buffer, from: RemoteInfo) => {
        if (isTo(ownId, data)) side?.link.receive(data, from);
      },
      onLost: () => side?.link.abandon(lost('socket lost')),
    },
  );
  try {
    // Server name indication travels in the clear; it is the same for every node.
    const connection = quiche.Connection.connect('qpc', ownId, socket.local, at, config);
    side = new ClientSide(runtime, socket, at, options, (owner, onSendError) => {
      const parts = { quiche, runtime, turn, socket, connection, owner };
      return new Link({ ...parts, role: 'dial', onSendError });
    });
  } catch (error) {
    await socket.close();
    throw asTransportError(error);
  }
  const { signal } = options;
  const onAbort = (): void => side.fail(cancelled(signal));
  signal?.addEventListener('abort', onAbort, { once: true });
  if (signal?.aborted) onAbort();
  const timer = runtime.clock.timer(handshakeMs, () => {
    side.fail(
      new TransportError('timeout', `dial: no answer within ${Math.round(handshakeMs)} ms`),
    );
  });
  side.link.wake();
  try {
    return await side.session;
  } finally {
    timer.cancel();
    signal?.removeEventListener('abort', onAbort);
  }
}

/** One dialed connection: a handshake that its caller waits for, then a session. */
class ClientSide implements LinkOwner {
  readonly link: Link;
  readonly #runtime: Runtime;
  readonly #socket: UdpSocket;
  readonly #at: Endpoint;
  readonly #options: DialOptions;
  readonly #dialed = Promise.withResolvers<QuicheSession>();
  #session: QuicheSession | undefined;

  constructor(
    runtime: Runtime,
    socket: UdpSocket,
    at: Endpoint,
    options: DialOptions,
    makeLink: (owner: LinkOwner, onSendError: (error: Error) => void) => Link,
  ) {
    this.#runtime = runtime;
    this.#socket = socket;
    this.#at = at;
    this.#options = options;
    this.link = makeLink(this, (cause) => {
      if (!unreachableCodes.has(systemError(cause)?.code ?? '')) return;
      this.fail(new TransportError('unreachable', 'dial: no route to the address', { cause }));
    });
  }

  /** Resolves when TLS is complete and the peer is who it must be. */
  get session(): Promise<QuicheSession> {
    return this.#dialed.promise;
  }

  /** Gives up the handshake; afterwards does nothing. */
  fail(error: TransportError): void {
    if (this.#session) return;
    this.#dialed.reject(error);
    this.link.close(false, transportCode.noError, '', lost('given up'));
  }

  onEstablished(): void {
    const { pins, limits } = this.#options;
    const spkiSha256 = peerSpki(this.link.native?.peerCertChain() ?? null);
    if (!spkiSha256) return this.#refuse(tlsAlert.certificateRequired);
    const isExpected = pins?.some((pin) => Buffer.compare(pin, spkiSha256) === 0) ?? true;
    if (!isExpected) return this.#refuse(tlsAlert.badCertificate);
    const host = plainAddress(this.#at.host);
    const peer = { spkiSha256, address: addressOf(host, this.#at.port), host };
    const [{ link }, runtime, maxStreams] = [this, this.#runtime, limits.streamsPerConnection];
    this.#session = new QuicheSession({ runtime, link, peer, isServer: false, maxStreams });
    link.keepAlive(limits.keepAliveMs);
    this.#dialed.resolve(this.#session);
  }

  #refuse(alert: number): void {
    this.#dialed.reject(new TransportError('refusedIdentity', 'dial: not the pinned identity'));
    this.link.close(false, alert, '', lost('refused'));
  }

  onTakeIn(): void {
    this.#session?.takeIn();
  }

  onGiveOut(hasReceived: boolean): void {
    this.#session?.giveOut(hasReceived);
  }

  onMoved(): void {
    this.#session?.moved();
  }

  onEnded(info: CloseInfo): void {
    // Without a session the caller still waits, unless it was told better before.
    this.#dialed.reject(closedError(info));
    this.#session?.end(info);
    // It may have to repeat its close, but keeps no process alive for it.
    this.#socket.unref();
  }

  onGone(): void {
    void this.#socket.close();
  }
}
