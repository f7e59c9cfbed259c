/**
 * The admin door of a running node: a socket beside its database, by which its operator's commands speak to it. The
 * socket lies in a folder that only the node's user may enter, and that is the whole proof of who asks.
 */
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { maxRequestBytes, TransportError, type Runtime } from '@quicprochat/proto';
import {
  CloseCode,
  defaultLimits,
  dialLocal,
  listenLocal,
  type Connection,
} from '@quicprochat/proto/transport';
import { codeOf, SetupError } from './setup-error.ts';

/** Longest name of a socket's file (bytes): what the system has room for, unix(7). */
const maxPathBytes = 107;
/** Commands at a time, and calls of each; a command that hangs is sent away after `idleMs`. */
const limits = { ...defaultLimits, connections: 16, incomingStreams: 8, incomingPushStreams: 1 };

const folderOf = (databasePath: string): string => `${databasePath}-admin`;
const socketOf = (databasePath: string): string => join(folderOf(databasePath), 'socket');

/**
 * Opens the door of the node that has the database open. Throws SetupError when its name is longer than a socket's may
 * be, when another process listens there, or the system refuses.
 */
export async function openAdminDoor(
  databasePath: string,
  runtime: Runtime,
  onConnection: (connection: Connection) => void,
): Promise<AsyncDisposable> {
  const path = socketOf(databasePath);
  const bytes = Buffer.byteLength(path);
  if (bytes > maxPathBytes) {
    const what = `the name of a socket has at most ${maxPathBytes} bytes, this one ${bytes}`;
    throw refusal(path, what, 'put the database into a folder with a shorter name');
  }
  try {
    mkdirSync(folderOf(databasePath), { recursive: true, mode: 0o700 });
    chmodSync(folderOf(databasePath), 0o700);
    const listener = await listenLocal(runtime, { path, limits, maxRequestBytes, onConnection });
    return {
      [Symbol.asyncDispose]: () => listener.close(CloseCode.Draining, 'the node stops'),
    };
  } catch (error) {
    const code = codeOf(error instanceof TransportError ? error.cause : error);
    if (code === '') throw error;
    const advice = 'let its user make sockets there, in a folder that nobody else uses';
    throw refusal(path, `the admin door cannot be opened (${code})`, advice, error);
  }
}

function refusal(path: string, what: string, advice: string, cause?: unknown): SetupError {
  return new SetupError(`${path}: ${what}; ${advice}, or set admin_door = false`, cause);
}

/** A node has the door open, and does not answer. */
export class SilentNodeError extends SetupError {}

/** What the system says where no node listens; a name that is too long is nobody's. */
const nobody: ReadonlySet<string> = new Set(['ENOENT', 'ECONNREFUSED', 'EINVAL']);

/**
 * A connection to the running node; undefined when no door is open. Throws SetupError when it may not be had,
 * SilentNodeError when nobody answers.
 */
export async function dialAdminDoor(
  databasePath: string,
  runtime: Runtime,
): Promise<Connection | undefined> {
  const path = socketOf(databasePath);
  try {
    return await dialLocal(runtime, path, defaultLimits);
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    const code = codeOf(error.cause);
    if (nobody.has(code)) return undefined;
    const isSilent = error.failure === 'timeout';
    throw new (isSilent ? SilentNodeError : SetupError)(
      `${path}: ${adviceFor(error, code)}`,
      error,
    );
  }
}

function adviceFor({ failure, message }: TransportError, code: string): string {
  if (code === 'EACCES') return 'you may not ask the node; run this command as its user';
  if (failure === 'closed')
    return 'the node turned the command away: it stops, or is asked by many';
  if (failure === 'timeout') return 'the node does not answer; see its log';
  return message;
}
