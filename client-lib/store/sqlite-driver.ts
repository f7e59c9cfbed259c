/**
 * The calls of better-sqlite3-multiple-ciphers that the device store uses, with their types: the
 * package's own declarations are hidden by its `exports`. Nothing else imports the driver.
 */
import { createRequire } from 'node:module';
import { InternalError } from '@quicprochat/proto';

export interface DriverStatement {
  run(...parameters: readonly unknown[]): {
    readonly changes: number;
    readonly lastInsertRowid: number | bigint;
  };
  get(...parameters: readonly unknown[]): unknown;
  all(...parameters: readonly unknown[]): readonly unknown[];
}
export interface Driver {
  readonly open: boolean;
  readonly inTransaction: boolean;
  prepare(sql: string): DriverStatement;
  exec(sql: string): unknown;
  pragma(text: string, options?: { readonly simple: boolean }): unknown;
  close(): unknown;
}
type DriverClass = new (path: string, options: { readonly timeout: number }) => Driver;

const loaded: unknown = createRequire(import.meta.url)('better-sqlite3-multiple-ciphers');

/** Opens a file (or `:memory:`). No busy wait: the file is ours alone, or it is in use. */
export function openDriver(path: string): Driver {
  if (typeof loaded !== 'function') throw new InternalError('sqlite driver: no class');
  return new (loaded as DriverClass)(path, { timeout: 0 });
}

/** The code of an error of SQLite (`SQLITE_BUSY`), undefined for any other error. */
export function sqliteCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' && error.code.startsWith('SQLITE_')
    ? error.code
    : undefined;
}
