/**
 * The file with the database key: 64 hex digits that only their owner may read. A key that others
 * can read is refused, because a stolen database is then no secret any more.
 */
import { constants, openSync, closeSync, fstatSync, fsyncSync, readSync, writeSync } from 'node:fs';
import type { Random } from '@quicprochat/proto';
import { codeOf, SetupError } from './setup-error.ts';

/** Size of the raw database key (bytes). */
export const databaseKeyBytes = 32;

/** Makes a key file with mode 0600. Fails when the file exists. Durable on return. */
export function createKeyFile(path: string, random: Random): Uint8Array {
  const key = random.bytes(databaseKeyBytes);
  const file = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    writeSync(file, `${Buffer.from(key).toString('hex')}\n`);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  return key;
}

/** Reads the key (32 bytes). Throws SetupError with what to do about it. */
export function readKeyFile(path: string): Uint8Array {
  let file: number;
  try {
    file = openSync(path, constants.O_RDONLY);
  } catch (cause) {
    const what = 'it holds the database key: correct database_key_file, or put back a copy';
    throw new SetupError(`${path}: cannot be read (${codeOf(cause)}); ${what}`, cause);
  }
  try {
    // The mode of what was opened, not of the name, which may point elsewhere by now.
    const mode = fstatSync(file).mode & 0o777;
    if ((mode & 0o077) !== 0) {
      throw new SetupError(
        `${path}: others can read or write it (mode ${mode.toString(8)}); run: chmod 600 ${path}`,
      );
    }
    const text = Buffer.alloc(128);
    const length = readSync(file, text, 0, text.length, 0);
    const hex = text.toString('latin1', 0, length).trim();
    text.fill(0);
    if (!/^[0-9a-f]{64}$/i.test(hex))
      throw new SetupError(`${path}: need 64 hex digits, the database key`);
    return new Uint8Array(Buffer.from(hex, 'hex'));
  } finally {
    closeSync(file);
  }
}
