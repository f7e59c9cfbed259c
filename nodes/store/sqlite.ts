/** The one import of the SQLite driver, and the code of its errors. */
// oxlint-disable-next-line import/default -- a CommonJS package: its `module.exports` is the default
import Database from 'better-sqlite3-multiple-ciphers';

export { Database };
export type SqlDatabase = Database.Database;

/** `SQLITE_FULL` and the like; undefined for an error that is not of SQLite. */
export function sqliteCode(error: unknown): string | undefined {
  return error instanceof Database.SqliteError ? error.code : undefined;
}
