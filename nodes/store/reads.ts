/**
 * Reads that never wait for the writer: key log and audits on a connection of the caller's thread
 * (docs/decisions/0006-key-log-reads-in-the-node-thread.md). Committed rows only; each read is a few
 * point queries of about 10 us.
 */
import { openForReading } from './database.ts';
import { auditReads, type AuditReads } from './queries/audit-reads.ts';
import { keyLogReads, type KeyLogReads } from './queries/key-log-reads.ts';
import type { SqlDatabase } from './sqlite.ts';

export interface StoreReads {
  readonly keyLog: KeyLogReads;
  readonly audits: AuditReads;
}

export function storeReads(db: SqlDatabase): StoreReads {
  return { keyLog: keyLogReads(db), audits: auditReads(db) };
}

/** Opened once the writer has brought the schema up to date. */
export class ReadConnection implements Disposable {
  readonly #db: SqlDatabase;
  readonly reads: StoreReads;

  /** Throws StoreOpenError. The caller may wipe the key afterwards. */
  constructor(path: string, key: Uint8Array) {
    this.#db = openForReading(path, key);
    this.reads = storeReads(this.#db);
  }

  [Symbol.dispose](): void {
    this.#db.close();
  }
}
