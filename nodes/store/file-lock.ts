/**
 * One process at a time: a lock of the operating system on `<path>-lock`, which ends with the
 * process however it ends. The database file itself stays open to a second connection of the same
 * process (docs/decisions/0006-key-log-reads-in-the-node-thread.md).
 */
import { closeSync, existsSync, openSync, rmSync } from 'node:fs';
import { lockedError, StoreOpenError } from './open-error.ts';
import { Database, sqliteCode, type SqlDatabase } from './sqlite.ts';

/** Where who has the lock writes its process id, once it can take a signal. */
export function pidFileOf(path: string): string {
  return `${path}-pid`;
}

export class FileLock implements Disposable {
  readonly #holder: SqlDatabase;

  /** Throws StoreOpenError: STORE_LOCKED when somebody has it (here or elsewhere), STORE_IO. */
  constructor(path: string) {
    const file = `${path}-lock`;
    let holder: SqlDatabase | undefined;
    try {
      // SQLite takes over its mode. Never opened when it is there: closing it again would drop the
      // locks that this process holds on it (fcntl).
      if (!existsSync(file)) closeSync(openSync(file, 'a', 0o600));
      holder = new Database(file, { timeout: 0 });
      // Nothing is ever written, so nothing needs a journal.
      holder.pragma('journal_mode = MEMORY');
      holder.exec('BEGIN EXCLUSIVE');
      // Of a process that is gone: its number may be somebody else's by now.
      rmSync(pidFileOf(path), { force: true });
      this.#holder = holder;
    } catch (cause) {
      holder?.close();
      if (sqliteCode(cause)?.startsWith('SQLITE_BUSY') === true) throw lockedError(path, cause);
      throw new StoreOpenError('STORE_IO', `${file}: ${String(cause)}`, { cause });
    }
  }

  [Symbol.dispose](): void {
    this.#holder.close();
  }
}
