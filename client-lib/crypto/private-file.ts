/**
 * Small files that only their owner may read: opened once and judged by what was opened, written
 * beside their place and moved there whole. What stands in them is the caller's.
 */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  linkSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { QpcError, Status } from '@quicprochat/proto';
import type { Random } from '@quicprochat/proto';

/** `message` is one line that names the file and says what to do. */
export class PrivateFileError extends QpcError {
  override name = 'PrivateFileError';
  constructor(
    reason: 'FILE_MISSING' | 'FILE_EXISTS' | 'FILE_PERMISSIONS' | 'FILE_UNUSABLE',
    message: string,
    options?: { readonly cause?: unknown },
  ) {
    super(Status.FailedPrecondition, reason, message, options);
  }
}

/**
 * Reads a file of at most `maxBytes` into memory of its own. Throws PrivateFileError FILE_MISSING,
 * FILE_PERMISSIONS when group or others have any right to it, FILE_UNUSABLE when it is no regular
 * file, too large, or cannot be read.
 */
export function readPrivateFile(path: string, maxBytes: number): Uint8Array {
  const file = open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const { mode, size } = fstatSync(file);
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) {
      throw new PrivateFileError('FILE_UNUSABLE', `${path}: is no regular file`);
    }
    // Windows has no such bits; the profile directory's access list guards the file there.
    if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
      throw new PrivateFileError(
        'FILE_PERMISSIONS',
        `${path}: others may use it (mode ${(mode & 0o777).toString(8)}); run: chmod 600 ${path}`,
      );
    }
    if (size > maxBytes) {
      throw new PrivateFileError('FILE_UNUSABLE', `${path}: ${size} bytes, at most ${maxBytes}`);
    }
    const bytes = new Uint8Array(size);
    const length = readSync(file, bytes, 0, size, 0);
    return bytes.subarray(0, length);
  } finally {
    closeSync(file);
  }
}

/**
 * Makes a file with mode 0600, whole or not at all, and never over an existing one: of two
 * processes that do it at once, one gets FILE_EXISTS. Durable on return.
 */
export function createPrivateFile(path: string, bytes: Uint8Array, random: Random): void {
  place(path, bytes, random, (temporary) => {
    // A rename would replace silently; a link to a name that exists fails.
    linkSync(temporary, path);
    rmSync(temporary);
  });
}

/** Replaces a file by one with mode 0600, whole or not at all. Durable on return. */
export function replacePrivateFile(path: string, bytes: Uint8Array, random: Random): void {
  place(path, bytes, random, (temporary) => renameSync(temporary, path));
}

function place(
  path: string,
  bytes: Uint8Array,
  random: Random,
  move: (temporary: string) => void,
): void {
  const temporary = `${path}.${Buffer.from(random.bytes(6)).toString('hex')}.tmp`;
  try {
    const file = openSync(
      temporary,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL,
      0o600,
    );
    try {
      writeAll(file, bytes);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    move(temporary);
    syncDirectory(dirname(path));
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw fileError(path, cause);
  }
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length;) {
    written += writeSync(file, bytes, written);
  }
}

/** The name of a new file is durable only when its directory is. */
function syncDirectory(path: string): void {
  if (process.platform === 'win32') return;
  const directory = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

function open(path: string, flags: number): number {
  try {
    return openSync(path, flags);
  } catch (cause) {
    throw fileError(path, cause);
  }
}

function fileError(path: string, cause: unknown): PrivateFileError {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown';
  if (code === 'ENOENT') {
    return new PrivateFileError('FILE_MISSING', `${path}: does not exist`, { cause });
  }
  if (code === 'EEXIST') {
    return new PrivateFileError('FILE_EXISTS', `${path}: exists already`, { cause });
  }
  return new PrivateFileError('FILE_UNUSABLE', `${path}: cannot be used (${code})`, { cause });
}
