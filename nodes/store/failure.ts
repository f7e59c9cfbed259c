/** Which errors of the disk or the file end a store for good, and the error that says so. */
import { InternalError } from '@quicprochat/proto';
import { sqliteCode } from './sqlite.ts';

/**
 * The disk or the file failed: nothing that follows can be trusted. The process must end without
 * another sync, and recover from the WAL when it starts again.
 */
export class StoreFailedError extends InternalError {
  override name = 'StoreFailedError';
}

/** Errors after which the state of disk and file is unknown. */
export function isFatal(error: unknown): boolean {
  const code = sqliteCode(error);
  return code !== undefined && fatalCode.test(code);
}
const fatalCode = /^SQLITE_(IOERR|CORRUPT|NOTADB|PROTOCOL|CANTOPEN|READONLY|NOMEM)/u;

/** The fatal error as the store's own. */
export function storeFailed(error: unknown): StoreFailedError {
  return new StoreFailedError(`store: ${describeError(error)}`, { cause: error });
}

/** One line for a log, with SQLite's code where there is one. */
export function describeError(error: unknown): string {
  const code = sqliteCode(error);
  return code === undefined ? String(error) : `${code}: ${String(error)}`;
}
