/**
 * The QUIC engine (RFC 9000, RFC 9001) on the stock glue of @matrixai/quic: ALPN `qpc`, mutual TLS
 * 1.3 with self-made certificates, the listener pinned by SPKI on the dialing side. One UDP socket
 * per dialed connection.
 */
import type { QUICConnection } from '@matrixai/quic';
import type { Runtime } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { plainAddress } from './admission.ts';
import { FramedConnection } from './connection.ts';
import { asTransportError } from './outgoing-call.ts';
import {
  closeInfoOf,
  loadEngine,
  peerSpki,
  quicConfig,
  quietLogger,
  streamCodeOptions,
  type Engine,
} from './quic-engine.ts';
import { addressOf, QuicListener } from './quic-listener.ts';
import { QuicSession } from './quic-session.ts';
import { openSocket, resolveHost, type UdpSocket } from './quic-socket.ts';
import { withSeldomWarnings } from './seldom-warnings.ts';
import { closedError } from './session.ts';
import type { DialOptions, Endpoint, Transport } from './transport.ts';

/**
 * The engine. Throws TransportError `internal` from `listen` and `dial` on platforms without the
 * native binding, and from `listen` when the port is taken (`cause.code` is `EADDRINUSE`).
 */
export function quicTransport(given: Runtime): Transport {
  const runtime = withSeldomWarnings(given);
  return {
    name: 'quic-stock',
    listen: async (options) => QuicListener.open(await loadEngine(), runtime, options),
    async dial(endpoint, options) {
      const session = await dialSession(runtime, endpoint, options);
      return new FramedConnection(runtime, session, options.limits, options.maxRequestBytes);
    },
  };
}

/** A dialed session without the frames on top. */
export async function dialSession(
  runtime: Runtime,
  endpoint: Endpoint,
  options: DialOptions,
): Promise<QuicSession> {
  if (options.signal?.aborted) throw cancelled(options.signal);
  const engine = await loadEngine();
  const addresses = await resolveHost(endpoint.host);
  const deadline = runtime.clock.monotonic() + options.limits.handshakeMs;
  let failed: TransportError | undefined;
  for (const [index, host] of addresses.entries()) {
    // The first of two families must leave the second one time to answer.
    const leftMs = Math.max(1, deadline - runtime.clock.monotonic());
    const handshakeMs = leftMs / (addresses.length - index);
    try {
      return await dialAddress(engine, runtime, { ...endpoint, host }, options, handshakeMs);
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

async function dialAddress(
  engine: Engine,
  runtime: Runtime,
  endpoint: Endpoint,
  options: DialOptions,
  handshakeMs: number,
): Promise<QuicSession> {
  const abort = new AbortController();
  const onAbort = (): void => abort.abort(cancelled(options.signal));
  options.signal?.addEventListener('abort', onAbort, { once: true });
  if (options.signal?.aborted) onAbort();
  let session: QuicSession | undefined;
  const udp = await openSocket(
    engine,
    runtime.log,
    { host: endpoint.host.includes(':') ? '::' : '0.0.0.0', port: 0, isServer: false },
    {
      onLost: () => session?.fail('socket lost'),
      onUnreachable: (cause) =>
        abort.abort(new TransportError('unreachable', 'dial: no route to the address', { cause })),
    },
  );
  try {
    const connection = await connect(engine, runtime, udp, endpoint, options);
    await handshake(engine, connection, handshakeMs, abort.signal);
    const spkiSha256 = peerSpki(connection.getRemoteCertsChain());
    if (!spkiSha256) throw new TransportError('refusedIdentity', 'dial: no identity');
    const host = plainAddress(connection.remoteHost);
    session = new QuicSession({
      engine,
      runtime,
      fence: udp.fenceOf(connection),
      peer: { spkiSha256, address: addressOf(host, connection.remotePort), host },
      keepAliveMs: options.limits.keepAliveMs,
      letGo: () => udp.close(),
    });
    const dialed = session;
    udp.onFault(connection, () => dialed.fail('fault of the engine'));
    return dialed;
  } catch (error) {
    await udp.close();
    throw error;
  } finally {
    options.signal?.removeEventListener('abort', onAbort);
  }
}

/** Makes the glue's connection object and wires it to the socket. Nothing is sent yet. */
async function connect(
  engine: Engine,
  runtime: Runtime,
  udp: UdpSocket,
  endpoint: Endpoint,
  options: DialOptions,
): Promise<QUICConnection> {
  const { QUICConnection, QUICConnectionId, events, utils, native } = engine;
  const { pins } = options;
  const accepts = (spki: Uint8Array): boolean =>
    pins?.some((pin) => Buffer.compare(pin, spki) === 0) ?? true;
  const [host] = await utils.resolveHost(endpoint.host, (literal) => literal);
  const connection = new QUICConnection({
    type: 'client',
    scid: new QUICConnectionId(runtime.random.bytes(native.quiche.MAX_CONN_ID_LEN)),
    // Server name indication travels in the clear; it is the same for every node.
    serverName: 'qpc',
    socket: udp.socket,
    remoteInfo: { host: utils.resolvesZeroIP(host), port: utils.toPort(endpoint.port) },
    config: quicConfig(engine, options.identity, options.limits, accepts),
    logger: quietLogger(),
    ...streamCodeOptions,
  });
  const id = connection.connectionId;
  udp.connections.set(id, connection);
  connection.addEventListener(events.EventQUICConnectionSend.name, (event: Event) => {
    if (!(event instanceof events.EventQUICConnectionSend)) return;
    const { msg, port, address } = event.detail;
    void udp.socket.send_(msg, 0, msg.byteLength, port, address);
  });
  connection.addEventListener(events.EventQUICConnectionStopped.name, () => {
    udp.connections.delete(id);
  });
  return connection;
}

/** Throws TransportError: `timeout`, `refusedIdentity`, `alpn`, `limit`, `closed`, or the abort's. */
async function handshake(
  engine: Engine,
  connection: QUICConnection,
  handshakeMs: number,
  signal: AbortSignal,
): Promise<void> {
  try {
    await connection.start(undefined, { timer: handshakeMs, signal });
  } catch (error) {
    if (signal.aborted) throw asTransportError(signal.reason);
    if (error instanceof engine.errors.ErrorQUICConnectionStartTimeout) {
      const message = `dial: no answer within ${Math.round(handshakeMs)} ms`;
      throw new TransportError('timeout', message, { cause: error });
    }
    throw closedError(closeInfoOf(engine, error));
  }
}
