/**
 * The glue's UDP socket with what it lacks: errors that stay inside, larger buffers, a fence around
 * every connection from its birth, and word when the socket is gone.
 */
import type { QUICConnection } from '@matrixai/quic';
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import type { Log } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { catchListenerErrors, fenceConnection, type Fence } from './quic-fence.ts';
import { quietLogger, systemError, type Engine } from './quic-engine.ts';

/** Kernel buffers (bytes): a burst must survive while JavaScript is busy. The kernel may cap it. */
const bufferBytes = 4 * 1024 * 1024;
/** A client pads every datagram with an Initial packet to this (RFC 9000 section 14.1). */
const minInitialBytes = 1200;

export interface SocketHandlers {
  /** The socket closed although nobody asked. */
  readonly onLost: () => void;
  /** The network refuses the destination; a dial need not wait for its deadline. */
  readonly onUnreachable?: (error: Error) => void;
}

export interface UdpSocket {
  /** The glue's objects. A connection put into the map gets its fence, and its packets. */
  readonly connections: InstanceType<Engine['QUICConnectionMap']>;
  readonly socket: InstanceType<Engine['QUICSocket']>;
  /** The fence of a connection of this socket. */
  fenceOf(connection: QUICConnection): Fence;
  /** Sets who hears that a connection broke; until then the fence only closes it. */
  onFault(connection: QUICConnection, handler: (error: unknown) => void): void;
  /** Idempotent, never rejects. */
  close(): Promise<void>;
}

/**
 * Binds a socket (`::` is dual stack). Throws TransportError `internal` when the address cannot be
 * bound, with the system's error (`EADDRINUSE`) as its cause.
 */
export async function openSocket(
  engine: Engine,
  log: Log,
  at: { readonly host: string; readonly port: number; readonly isServer: boolean },
  handlers: SocketHandlers,
): Promise<UdpSocket> {
  const fences = new WeakMap<QUICConnection, Fence>();
  const faultHandlers = new WeakMap<QUICConnection, (error: unknown) => void>();
  let isClosing = false;

  class FencedSocket extends engine.QUICSocket {
    readonly connections: InstanceType<Engine['QUICConnectionMap']>;

    constructor() {
      super({ logger: quietLogger() });
      const inner = this.handleSocketMessage;
      // The glue's listener is async and lets errors out: each would be an unhandled rejection.
      this.handleSocketMessage = async (data, from) => {
        if (at.isServer && isShortInitial(data)) return;
        try {
          await inner(data, from);
        } catch (error) {
          log.warn('quic.packet.fault', { error: String(error) });
        }
      };
      const connections: unknown = Reflect.get(this, 'connectionMap');
      if (!(connections instanceof engine.QUICConnectionMap)) {
        throw new TransportError('internal', 'quic: this version of the engine lacks its map');
      }
      const { prototype } = engine.QUICConnectionMap;
      // The one place that sees a connection before its handshake.
      connections.set = (id, connection) => {
        const fence = fenceConnection(engine, connection, (error) => {
          log.warn('quic.connection.fault', { error: String(error) });
          faultHandlers.get(connection)?.(error);
        });
        fences.set(connection, fence);
        prototype.set.call(connections, id, connection);
        return connections;
      };
      this.connections = connections;
    }

    override async start(options: Parameters<InstanceType<Engine['QUICSocket']>['start']>[0]) {
      await super.start(options);
      // Without a listener of ours an error of the socket would end the process.
      this.socket.on('error', (error) => log.warn('quic.socket.error', { error: String(error) }));
      this.socket.on('close', () => {
        if (isClosing) return;
        // Nothing is left to close, and the glue's `stop` would wait for it for ever.
        isClosing = true;
        handlers.onLost();
      });
      try {
        this.socket.setRecvBufferSize(bufferBytes);
        this.socket.setSendBufferSize(bufferBytes);
      } catch {
        // A wish only: the kernel's default works, slower.
      }
    }

    /** A packet that cannot be sent is a lost packet; the glue would end the process. */
    override async send_(...packet: Parameters<InstanceType<Engine['QUICSocket']>['send_']>) {
      try {
        return await super.send_(...packet);
      } catch (error) {
        const code = systemError(error)?.code;
        log.debug('quic.send.error', { code });
        if (unreachableCodes.has(code ?? '') && error instanceof Error) {
          handlers.onUnreachable?.(error);
        }
        return 0;
      }
    }
  }

  const socket = new FencedSocket();
  catchListenerErrors(socket, (error) => log.warn('quic.socket.fault', { error: String(error) }));
  try {
    await socket.start({ host: at.host, port: at.port, ipv6Only: false });
  } catch (error) {
    const cause = systemError(error) ?? error;
    const message = `quic: cannot bind UDP ${at.host} port ${at.port}`;
    throw new TransportError('internal', message, { cause });
  }
  return {
    connections: socket.connections,
    socket,
    fenceOf(connection) {
      const fence = fences.get(connection);
      if (!fence) throw new TransportError('internal', 'quic: a connection without a fence');
      return fence;
    },
    onFault: (connection, handler) => void faultHandlers.set(connection, handler),
    async close() {
      if (isClosing) return;
      isClosing = true;
      try {
        await socket.stop({ force: true });
      } catch {
        // It was closed already: that is what was asked for.
      }
    },
  };
}

const unreachableCodes = new Set(['EINVAL', 'EADDRNOTAVAIL', 'ENETUNREACH', 'EHOSTUNREACH']);

/** True for a datagram that claims to open a connection and is too short to be allowed to. */
function isShortInitial(data: Uint8Array): boolean {
  const first = data[0] ?? 0;
  const isLongHeader = (first & 0x80) !== 0;
  // Types of version 1: 0 is Initial. Of another version the type means nothing to us.
  const isVersion1 = data[1] === 0 && data[2] === 0 && data[3] === 0 && data[4] === 1;
  const mayOpen = isLongHeader && (!isVersion1 || (first & 0x30) === 0);
  return mayOpen && data.length < minInitialBytes;
}

/**
 * The addresses of a host to try in turn, at most one per family. Throws TransportError
 * `unreachable` when the name does not resolve.
 */
export async function resolveHost(host: string): Promise<string[]> {
  if (isIP(host)) return [host];
  try {
    const found = await lookup(host, { all: true, order: 'verbatim' });
    const first = found[0];
    const second = found.find(({ family }) => family !== first?.family);
    return [first, second].flatMap((entry) => (entry ? [entry.address] : []));
  } catch (cause) {
    throw new TransportError('unreachable', 'dial: the host name does not resolve', { cause });
  }
}
