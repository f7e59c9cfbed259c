/**
 * The TLS engine: TLS 1.3 over TCP with ALPN `qpc` and the same mutual, pinned certificates as QUIC,
 * for networks that drop UDP and platforms without the native binding. One connection carries all
 * streams (tls-session.ts), so a lost packet holds up all of them: QUIC is tried first.
 */
import { createServer as createTcpServer, type Server, type Socket } from 'node:net';
import {
  connect,
  createSecureContext,
  createServer,
  type SecureContext,
  type TLSSocket,
} from 'node:tls';
import { constants } from 'node:crypto';
import type { Runtime } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { Admission, plainAddress } from './admission.ts';
import { spkiSha256OfCertificate, type NodeIdentity } from './certificate.ts';
import { FramedConnection } from './connection.ts';
import { asTransportError } from './outgoing-call.ts';
import { addressOf } from './quic-listener.ts';
import { withSeldomWarnings } from './seldom-warnings.ts';
import { TlsSession } from './tls-session.ts';
import { CloseCode } from './transport.ts';
import type { CloseInfo, DialOptions, Endpoint, Transport, TransportLimits } from './transport.ts';
import type { Listener, ListenOptions, PeerIdentity } from './transport.ts';
import { UnreadAnswers } from './unread-answers.ts';

const alpn = 'qpc';
/** Handshakes that may be under way at a time, from all addresses. */
const handshakesAtOnce = 2000;

/** The engine. `listen` throws TransportError `internal` when the port is taken (EADDRINUSE). */
export function tlsTransport(given: Runtime): Transport & TlsDialer {
  const runtime = withSeldomWarnings(given);
  const dialSession = (endpoint: Endpoint, options: DialOptions): Promise<TlsSession> =>
    dial(runtime, endpoint, options);
  return {
    name: 'tls',
    listen: (options) => TlsListener.open(runtime, options),
    dialSession,
    async dial(endpoint, options) {
      const session = await dialSession(endpoint, options);
      return new FramedConnection(runtime, session, options.limits, options.maxRequestBytes);
    },
  };
}

/** What tests need below the frames. */
export interface TlsDialer {
  /** A dialed session without the frames on top. */
  dialSession(endpoint: Endpoint, options: DialOptions): Promise<TlsSession>;
}

/** One TLS context per identity, as long as that lives. */
const contexts = new WeakMap<NodeIdentity, SecureContext>();

function contextOf(identity: NodeIdentity): SecureContext {
  const known = contexts.get(identity);
  if (known) return known;
  let made: SecureContext;
  try {
    made = createSecureContext({
      key: identity.privateKeyPem,
      cert: identity.certificatePem,
      minVersion: 'TLSv1.3',
      sigalgs: 'ed25519',
      // A resumed session would skip the proof that the peer holds its key now.
      secureOptions: constants.SSL_OP_NO_TICKET,
    });
  } catch (cause) {
    throw new TransportError('internal', 'tls: the identity does not load', { cause });
  }
  contexts.set(identity, made);
  return made;
}

/** The key of the peer's certificate, which TLS checked that it holds; undefined without one. */
function spkiOf(socket: TLSSocket): Uint8Array | undefined {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return undefined;
  try {
    return spkiSha256OfCertificate(certificate.raw);
  } catch {
    // Not Ed25519: no identity.
    return undefined;
  }
}

function codeOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : '';
}

/** What a TLS alert of the peer says, by OpenSSL's name of it. */
function alertInfo(error: Error): CloseInfo | undefined {
  const code = codeOf(error);
  if (!code.startsWith('ERR_SSL_')) return undefined;
  const failure = code.includes('NO_APPLICATION_PROTOCOL') ? 'alpn' : 'refusedIdentity';
  return { failure, code: 0, reason: `TLS: ${code.slice('ERR_SSL_'.length)}`, local: false };
}

async function dial(
  runtime: Runtime,
  { host, port }: Endpoint,
  { identity, limits, pins, signal }: DialOptions,
): Promise<TlsSession> {
  if (signal?.aborted) throw cancelled(signal);
  const dialed = Promise.withResolvers<TlsSession>();
  const socket = connect({
    host: host === '0.0.0.0' ? '127.0.0.1' : host,
    port,
    ALPNProtocols: [alpn],
    secureContext: contextOf(identity),
    // Server name indication travels in the clear; it is the same for every node.
    servername: 'qpc',
    // Chain and name mean nothing here: the key is judged below.
    rejectUnauthorized: false,
  });
  socket.setNoDelay(true);
  const fail = (error: TransportError): void => {
    dialed.reject(error);
    socket.destroy();
  };
  const onError = (error: Error): void => fail(dialError(error));
  const onAbort = (): void => fail(cancelled(signal));
  const { handshakeMs } = limits;
  const timer = runtime.clock.timer(handshakeMs, () => {
    fail(new TransportError('timeout', `dial: no answer within ${handshakeMs} ms`));
  });
  socket.on('error', onError);
  socket.once('close', () => fail(new TransportError('closed', 'dial: closed by the listener')));
  signal?.addEventListener('abort', onAbort, { once: true });
  socket.once('secureConnect', () => {
    const spkiSha256 = spkiOf(socket);
    const isExpected =
      spkiSha256 !== undefined &&
      (pins?.some((pin) => Buffer.compare(pin, spkiSha256) === 0) ?? true);
    if (!isExpected) {
      return fail(new TransportError('refusedIdentity', 'dial: not the pinned identity'));
    }
    if (socket.alpnProtocol !== alpn) {
      return fail(new TransportError('alpn', 'dial: the listener does not speak qpc'));
    }
    const plain = plainAddress(socket.remoteAddress ?? host);
    const peer = { spkiSha256, address: addressOf(plain, port), host: plain };
    const session = sessionOf(runtime, socket, peer, limits, false);
    void session.opened().then(() => dialed.resolve(session));
  });
  try {
    return await dialed.promise;
  } finally {
    timer.cancel();
    signal?.removeEventListener('abort', onAbort);
    socket.off('error', onError);
    // The session listens from the turn in which it is handed out; until then nothing may throw.
    socket.on('error', () => {});
  }
}

function sessionOf(
  runtime: Runtime,
  socket: TLSSocket,
  peer: PeerIdentity,
  limits: TransportLimits,
  isListener: boolean,
): TlsSession {
  return new TlsSession({ runtime, socket, peer, isListener, limits, closeInfoOf: alertInfo });
}

function cancelled(signal: AbortSignal | undefined): TransportError {
  return new TransportError('cancelled', 'dial: cancelled', { cause: signal?.reason });
}

function dialError(cause: Error): TransportError {
  const alert = alertInfo(cause);
  if (alert) return new TransportError(alert.failure, `dial: ${alert.reason}`, { cause });
  if (codeOf(cause) === 'ECONNRESET') {
    return new TransportError('closed', 'dial: closed by the listener', { cause });
  }
  return new TransportError('unreachable', `dial: ${codeOf(cause) || 'failed'}`, { cause });
}

class TlsListener implements Listener {
  readonly endpoint: Endpoint;
  readonly #runtime: Runtime;
  readonly #options: ListenOptions;
  readonly #admission: Admission;
  readonly #tcp: Server;
  readonly #tls: ReturnType<typeof createServer>;
  readonly #sessions = new Set<TlsSession>();
  readonly #handshakes = new Set<Socket>();
  readonly #unread: UnreadAnswers;
  #closed: Promise<void> | undefined;

  private constructor(runtime: Runtime, options: ListenOptions, tcp: Server, endpoint: Endpoint) {
    this.#runtime = runtime;
    this.#options = options;
    this.#admission = new Admission(runtime.clock, options.limits);
    this.#unread = new UnreadAnswers(options.limits.unreadAnswerBytes);
    this.#tcp = tcp;
    this.endpoint = endpoint;
    const { identity } = options;
    this.#tls = createServer({
      ALPNProtocols: [alpn],
      key: identity.privateKeyPem,
      cert: identity.certificatePem,
      minVersion: 'TLSv1.3',
      sigalgs: 'ed25519',
      secureOptions: constants.SSL_OP_NO_TICKET,
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: options.limits.handshakeMs,
    });
    this.#tls.on('secureConnection', (socket: TLSSocket) => this.#welcome(socket));
    this.#tls.on('tlsClientError', (_error: Error, socket: TLSSocket) => socket.destroy());
    tcp.on('connection', (socket: Socket) => this.#admit(socket));
    tcp.on('error', (error: Error) => {
      runtime.log.warn('tls.listener.fault', { error: String(error) });
    });
  }

  static async open(runtime: Runtime, options: ListenOptions): Promise<TlsListener> {
    // Checks the identity before a port is taken.
    contextOf(options.identity);
    const tcp = createTcpServer({ noDelay: true });
    const { host, port } = options.endpoint;
    await new Promise<void>((resolve, reject) => {
      tcp.once('error', (cause) => {
        reject(new TransportError('internal', `listen: ${codeOf(cause) || 'failed'}`, { cause }));
      });
      tcp.listen({ host, port }, resolve);
    });
    tcp.removeAllListeners('error');
    const bound = tcp.address();
    const actual = typeof bound === 'object' && bound !== null ? bound.port : port;
    return new TlsListener(runtime, options, tcp, { host, port: actual });
  }

  /** Looks at an address before any byte of its handshake is read. Over its limits: no answer. */
  #admit(socket: Socket): void {
    const address = plainAddress(socket.remoteAddress ?? '');
    socket.on('error', () => {});
    const isFull = this.#handshakes.size >= handshakesAtOnce || this.#closed !== undefined;
    if (isFull || !this.#admission.handshake(address)) return void socket.destroy();
    this.#handshakes.add(socket);
    socket.once('close', () => this.#handshakes.delete(socket));
    this.#tls.emit('connection', socket);
  }

  #welcome(socket: TLSSocket): void {
    const host = plainAddress(socket.remoteAddress ?? '');
    socket.on('error', () => {});
    for (const raw of this.#handshakes) {
      if (raw.remotePort === socket.remotePort && raw.remoteAddress === socket.remoteAddress) {
        this.#handshakes.delete(raw);
      }
    }
    if (socket.destroyed || this.#closed !== undefined) return void socket.destroy();
    const spkiSha256 = spkiOf(socket);
    const address = addressOf(host, socket.remotePort ?? 0);
    const peer = { spkiSha256: spkiSha256 ?? new Uint8Array(32), address, host };
    const { limits, maxRequestBytes, onConnection } = this.#options;
    const session = sessionOf(this.#runtime, socket, peer, limits, true);
    const refuse = (code: number, reason: string): void => {
      session.start({ onStream: (_kind, stream) => stream.reset('cancelled'), ...ignored });
      void session.close(code, reason);
    };
    if (spkiSha256 === undefined || socket.alpnProtocol !== alpn) {
      return refuse(CloseCode.RefusedIdentity, 'no Ed25519 certificate');
    }
    if (!this.#admission.enter(host)) return refuse(CloseCode.Limit, 'too many connections');
    this.#sessions.add(session);
    const connection = new FramedConnection(
      this.#runtime,
      session,
      limits,
      maxRequestBytes,
      this.#unread,
    );
    void connection.closed.then(() => {
      this.#sessions.delete(session);
      this.#admission.leave(host);
    });
    try {
      onConnection(connection);
    } catch (error) {
      this.#runtime.log.warn('tls.welcome.fault', { error: asTransportError(error).message });
      void session.close(CloseCode.Protocol, 'refused');
    }
  }

  close(code: number, reason: string): Promise<void> {
    this.#closed ??= this.#close(code, reason);
    return this.#closed;
  }

  async #close(code: number, reason: string): Promise<void> {
    const gone = new Promise<void>((resolve) => this.#tcp.close(() => resolve()));
    for (const socket of this.#handshakes) socket.destroy();
    await Promise.all([...this.#sessions].map((session) => session.close(code, reason)));
    await gone;
  }
}

const ignored = { onCredit: () => {}, onClosed: (_info: CloseInfo) => {} };
