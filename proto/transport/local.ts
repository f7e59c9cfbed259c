/**
 * Connections between programs of one machine: the streams of the `tls` engine over a Unix domain socket, without TLS.
 * Neither side proves who it is; who may connect, the system says by the folder that the socket's file lies in.
 */
import { chmodSync, lstatSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Runtime } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { FramedConnection } from './connection.ts';
import { TlsSession } from './tls-session.ts';
import type { Connection, RequestBound, TransportLimits } from './transport.ts';
import { UnreadAnswers } from './unread-answers.ts';

const peer = { spkiSha256: new Uint8Array(32), address: 'local', host: 'local' };

export interface LocalListenOptions {
  /** File to make, in a folder that nobody else may enter: its own mode, 0600, comes a moment later. */
  readonly path: string;
  readonly limits: TransportLimits;
  readonly maxRequestBytes: RequestBound;
  readonly onConnection: (connection: Connection) => void;
}

export interface LocalListener {
  /** Stops accepting, closes every connection with the code, removes the file. Idempotent. */
  close(code: number, reason: string): Promise<void>;
}

/**
 * A socket that a process left behind is replaced, one that somebody listens on is not. Throws TransportError
 * `internal`, its cause the system's error: EADDRINUSE, EACCES, EINVAL (the name is too long) and others.
 */
export async function listenLocal(
  runtime: Runtime,
  { path, limits, maxRequestBytes, onConnection }: LocalListenOptions,
): Promise<LocalListener> {
  const server = createServer();
  try {
    await bind(server, path);
  } catch (cause) {
    server.close();
    throw new TransportError('internal', `listen: ${codeOf(cause)}`, { cause });
  }
  server.maxConnections = limits.connections;
  server.on('error', (error) => {
    runtime.log.warn('local.listener.fault', { error: String(error) });
  });
  const unread = new UnreadAnswers(limits.unreadAnswerBytes);
  const sessions = new Set<TlsSession>();
  server.on('connection', (socket) => {
    const session = sessionOf(runtime, socket, limits, true);
    sessions.add(session);
    const connection = new FramedConnection(runtime, session, limits, maxRequestBytes, unread);
    void connection.closed.then(() => sessions.delete(session));
    onConnection(connection);
  });
  let closed: Promise<void> | undefined;
  const close = async (code: number, reason: string): Promise<void> => {
    const gone = new Promise<void>((resolve) => server.close(() => resolve()));
    await Promise.all([...sessions].map((session) => session.close(code, reason)));
    await gone;
  };
  return { close: (code, reason) => (closed ??= close(code, reason)) };
}

async function bind(server: Server, path: string): Promise<void> {
  try {
    await listen(server, path);
  } catch (error) {
    if (codeOf(error) !== 'EADDRINUSE' || !(await isLeftBehind(path))) throw error;
    rmSync(path);
    await listen(server, path);
  }
  chmodSync(path, 0o600);
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** A socket's file that no process listens on. */
async function isLeftBehind(path: string): Promise<boolean> {
  if (!lstatSync(path).isSocket()) return false;
  try {
    (await connected(path)).destroy();
    return false;
  } catch (error) {
    return codeOf(error) === 'ECONNREFUSED';
  }
}

/**
 * Throws TransportError `unreachable`, its cause the system's error (ENOENT, ECONNREFUSED: nobody listens; EACCES and
 * others), `closed` when it was turned away, `timeout` when nobody answered within `limits.handshakeMs`.
 */
export async function dialLocal(
  runtime: Runtime,
  path: string,
  limits: TransportLimits,
): Promise<Connection> {
  let socket: Socket;
  try {
    socket = await connected(path);
  } catch (cause) {
    throw new TransportError('unreachable', `dial: ${codeOf(cause)}`, { cause });
  }
  const session = sessionOf(runtime, socket, limits, false);
  let isLate = false;
  const timer = runtime.clock.timer(limits.handshakeMs, () => {
    isLate = true;
    socket.destroy();
  });
  await session.opened();
  timer.cancel();
  if (isLate) {
    throw new TransportError('timeout', `dial: no answer within ${limits.handshakeMs} ms`);
  }
  if (socket.destroyed || socket.readableEnded) {
    socket.destroy();
    throw new TransportError('closed', 'dial: closed by the listener');
  }
  // Who dials serves nothing.
  return new FramedConnection(runtime, session, limits, () => 0);
}

/** Throws the system's error. */
function connected(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('error', reject);
    socket.once('connect', () => resolve(socket));
  });
}

function sessionOf(
  runtime: Runtime,
  socket: Socket,
  limits: TransportLimits,
  isListener: boolean,
): TlsSession {
  // The session listens from the turn in which it starts; until then nothing may throw.
  socket.on('error', () => {});
  return new TlsSession({
    runtime,
    socket,
    peer,
    isListener,
    limits,
    closeInfoOf: () => undefined,
  });
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
