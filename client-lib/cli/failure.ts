/**
 * What a person or a program is told when a command fails: one line that says what to do, and the
 * exit code. Exit codes: 0 done, 1 failed (node, network, time), 2 cannot start as asked (usage,
 * files, permissions, store).
 */
import { CommanderError } from 'commander';
import { QpcError, TransportError } from '@quicprochat/proto';
import { visible } from './output.ts';

export const exitFailed = 1;
export const exitSetup = 2;

/** A failure that the command line itself found. `message` says what to do. */
export class CommandError extends Error {
  override name = 'CommandError';
  readonly exitCode: typeof exitFailed | typeof exitSetup;
  /** Stable string for programs. */
  readonly reason: string;
  constructor(
    exitCode: typeof exitFailed | typeof exitSetup,
    reason: string,
    message: string,
    options?: { readonly cause?: unknown },
  ) {
    super(message, options);
    this.exitCode = exitCode;
    this.reason = reason;
  }
}

/** Wrong arguments, options or files: nothing was done. */
export function usage(message: string): CommandError {
  return new CommandError(exitSetup, 'USAGE', message);
}

export interface Failure {
  readonly exitCode: number;
  readonly reason: string;
  readonly message: string;
}

/** Undefined for what is no failure: help and version were asked for. */
export function failureOf(error: unknown): Failure | undefined {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return undefined;
    const message = error.message.replace(/^error: /, '').replaceAll('\n', ' ');
    return { exitCode: exitSetup, reason: 'USAGE', message: `${message}; see qpc --help` };
  }
  if (error instanceof CommandError) {
    const { exitCode, reason, message } = error;
    return { exitCode, reason, message: visible(message) };
  }
  if (error instanceof QpcError) {
    const exitCode = isSetup(error) ? exitSetup : exitFailed;
    return { exitCode, reason: error.reason, message: visible(adviceOf(error)) };
  }
  if (isOfThisDisk(error)) {
    const message = `this device cannot read or write its files (${error.message}); is its disk full?`;
    return { exitCode: exitSetup, reason: 'FILE_UNUSABLE', message: visible(message) };
  }
  // Not one of ours: a bug, whose stack is worth more than a nice line.
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { exitCode: exitFailed, reason: 'BUG', message: text };
}

const setupReasons: ReadonlySet<string> = new Set([
  'FILE_MISSING',
  'FILE_EXISTS',
  'FILE_PERMISSIONS',
  'FILE_UNUSABLE',
  'VAULT_FORMAT',
  'VAULT_PASSPHRASE',
  'STORE_IN_USE',
  'STORE_KEY',
  'STORE_VERSION',
  'STORE_PATH',
  'NO_ACCOUNT',
  'OTHER_ACCOUNT',
]);

/** What SQLite and the system say of a disk that is full, read-only or broken. */
function isOfThisDisk(error: unknown): error is Error {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return /^(?:SQLITE_(?:FULL|IOERR|READONLY|CANTOPEN)|ENOSPC|EDQUOT|EROFS|EIO|EACCES|EPERM)/.test(
    code,
  );
}

function isSetup(error: QpcError): boolean {
  return setupReasons.has(error.reason) || error.reason === 'BAD_FIELD';
}

function adviceOf(error: QpcError): string {
  if (error instanceof TransportError) return transportAdvice(error);
  switch (error.reason) {
    case 'NOT_LOGGED_IN':
      return 'the session of this device has ended; run: qpc login';
    case 'NO_ACCOUNT':
      return 'this home has no account yet; run: qpc register, or name another --home';
    case 'OTHER_ACCOUNT':
      return 'this home has the account of another user; name another --home';
    case 'STORE_IN_USE':
      return 'another qpc process uses this home; stop it, or name another --home';
    case 'NAME_TAKEN':
      return 'the name is taken; choose another one';
    case 'UNKNOWN_USER':
      return 'there is no such user; check the address';
    case 'NO_KEY_PACKAGE':
      return `${error.message}; the other side must come online once`;
    case 'UNKNOWN_HEAD':
      return `${error.message}: qpc card import --ask`;
    case 'RATE_LIMITED':
    case 'OVERLOADED': {
      const seconds = Math.ceil((error.retryAfterMs ?? 60_000) / 1000);
      return `the node allows no more tries now; wait ${seconds} s`;
    }
    case 'STORE_FULL':
      return `the node takes nothing new now (${error.message}); try again later, or tell its operator`;
    case 'PEER_UNREACHABLE':
      return 'the other node cannot be reached now; try again later';
    case 'INTERNAL':
      return `the node failed (${error.message}); tell its operator`;
    default:
      return error.message;
  }
}

function transportAdvice(error: TransportError): string {
  switch (error.failure) {
    case 'refusedIdentity':
      return 'the node shows another key than the pin of its address; ask its operator about it';
    case 'timeout':
    case 'unreachable':
      return 'the node does not answer; check its address and the network';
    case 'alpn':
    case 'protocol':
      return `what answers there does not speak our protocol (${error.message}); check the address and versions`;
    default:
      return `the connection to the node failed (${error.message}); try again`;
  }
}
