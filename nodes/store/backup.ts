/**
 * A copy of the database as it is at one moment, made beside whoever writes it: encrypted with the same key, whole
 * and on disk under its name, or not there at all. It holds everything that was acknowledged before it began.
 */
import { closeSync, fsyncSync, linkSync, openSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { needDatabase, openForReading } from './database.ts';
import { StoreOpenError } from './open-error.ts';

/** Throws StoreOpenError: STORE_EXISTS when something has that name already, those of openForReading, STORE_IO. */
export function copyDatabase(path: string, key: Uint8Array, target: string): void {
  needDatabase(path);
  const db = openForReading(path, key);
  const draft = join(dirname(target), `.${basename(target)}.${process.pid}`);
  try {
    // SQLite takes an empty file, and its mode.
    closeSync(openSync(draft, 'wx', 0o600));
    db.prepare('VACUUM INTO ?').run(draft);
    syncPath(draft);
    linkSync(draft, target);
    syncPath(dirname(target));
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause)) throw cause;
    if (cause.code === 'EEXIST') {
      const message = `${target}: exists already; name a file that does not`;
      throw new StoreOpenError('STORE_EXISTS', message, { cause });
    }
    throw new StoreOpenError('STORE_IO', `${target}: ${cause.message}`, { cause });
  } finally {
    db.close();
    for (const end of ['', '-wal', '-shm', '-journal']) rmSync(draft + end, { force: true });
  }
}

function syncPath(path: string): void {
  const file = openSync(path, 'r');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
