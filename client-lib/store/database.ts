/**
 * One SQLCipher file behind a few typed calls: key, pragmas, migrations, transactions, and rows
 * whose columns are checked on reading. No table is known here.
 */
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { openDriver, sqliteCode, type Driver, type DriverStatement } from './sqlite-driver.ts';
import { InternalError, QpcError, Status } from '@quicprochat/proto';

export type Value = Uint8Array | string | number | null;

const migrationsUrl = new URL('./migrations/', import.meta.url);

/** Opening failed in a way that the person at the keyboard can mend. */
export class StoreError extends QpcError {
  override name = 'StoreError';
  constructor(
    reason: 'STORE_IN_USE' | 'STORE_KEY' | 'STORE_VERSION' | 'STORE_PATH',
    message: string,
    cause?: unknown,
  ) {
    super(Status.FailedPrecondition, reason, message, cause === undefined ? {} : { cause });
  }
}

/** One result row; every read checks the column's type. */
export class Row {
  readonly #columns: Readonly<Record<string, unknown>>;
  constructor(columns: Readonly<Record<string, unknown>>) {
    this.#columns = columns;
  }
  bytes(name: string): Uint8Array {
    const value = this.#columns[name];
    if (!(value instanceof Uint8Array)) throw wrongType(name, 'bytes');
    // The driver hands out Buffers; callers get plain arrays of their own.
    return new Uint8Array(value);
  }
  number(name: string): number {
    const value = this.#columns[name];
    if (typeof value !== 'number') throw wrongType(name, 'a number');
    return value;
  }
  text(name: string): string {
    const value = this.#columns[name];
    if (typeof value !== 'string') throw wrongType(name, 'text');
    return value;
  }
  isNull(name: string): boolean {
    return this.#columns[name] === null;
  }
  maybeNumber(name: string): number | undefined {
    return this.isNull(name) ? undefined : this.number(name);
  }
  maybeBytes(name: string): Uint8Array | undefined {
    return this.isNull(name) ? undefined : this.bytes(name);
  }
}

function wrongType(name: string, need: string): InternalError {
  return new InternalError(`store: column ${name} is not ${need}`);
}

export class Database {
  readonly #db: Driver;
  readonly #statements = new Map<string, DriverStatement>();

  constructor(db: Driver) {
    this.#db = db;
  }

  /** Number of changed rows. */
  run(sql: string, ...parameters: readonly Value[]): number {
    return this.#prepare(sql).run(...parameters).changes;
  }
  /** Row id of the inserted row, undefined when nothing was inserted. */
  insert(sql: string, ...parameters: readonly Value[]): number | undefined {
    const { changes, lastInsertRowid } = this.#prepare(sql).run(...parameters);
    return changes === 0 ? undefined : Number(lastInsertRowid);
  }
  get(sql: string, ...parameters: readonly Value[]): Row | undefined {
    const found = this.#prepare(sql).get(...parameters);
    return found === undefined ? undefined : rowOf(found);
  }
  /** `LIMIT (? + 0)`: a bare parameter there would have every run planned anew. */
  all(sql: string, ...parameters: readonly Value[]): readonly Row[] {
    return this.#prepare(sql)
      .all(...parameters)
      .map(rowOf);
  }

  /** All of the work's writes or none; durable on return. An inner call joins the outer one. */
  transaction<T>(work: () => T): T {
    if (this.#db.inTransaction) return work();
    this.run('BEGIN IMMEDIATE');
    let result: T;
    try {
      result = work();
    } catch (error) {
      this.#rollback();
      throw error;
    }
    try {
      this.run('COMMIT');
    } catch (error) {
      this.#rollback();
      throw error;
    }
    return result;
  }

  checkpoint(): void {
    this.#db.pragma('wal_checkpoint(TRUNCATE)');
  }

  /** Idempotent. */
  close(): void {
    if (!this.#db.open) return;
    this.checkpoint();
    this.#statements.clear();
    this.#db.close();
  }

  // SQLite rolls back by itself on some errors (disk full); a second ROLLBACK would hide the first.
  #rollback(): void {
    if (this.#db.inTransaction) this.#db.exec('ROLLBACK');
  }

  #prepare(sql: string): DriverStatement {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }
}

function rowOf(found: unknown): Row {
  // The driver returns one plain object per row; Row checks each column when it is read.
  return new Row(found as Record<string, unknown>);
}

/**
 * Opens or creates an encrypted file with a raw 32-byte key and brings it to the newest schema.
 * Path `:memory:` gives the same database without a file. Throws StoreError STORE_IN_USE (another
 * process has it), STORE_KEY (wrong key or no database), STORE_VERSION (made by a newer version),
 * STORE_PATH (cannot be created there).
 */
export function openDatabase(path: string, key: Uint8Array): Database {
  if (key.length !== 32) {
    throw new StoreError('STORE_KEY', `store key: ${key.length} bytes, need 32`);
  }
  const inMemory = path === ':memory:';
  if (!inMemory) createOwnerOnly(path);
  let db: Driver;
  try {
    db = openDriver(path);
  } catch (cause) {
    throw new StoreError('STORE_PATH', 'the store file cannot be opened', cause);
  }
  try {
    if (!inMemory) setKey(db, key);
    // Exclusive before WAL: then SQLite keeps the lock, and the WAL index, to itself.
    db.pragma('locking_mode = EXCLUSIVE');
    db.pragma('journal_mode = WAL');
    db.pragma('synchronous = FULL');
    db.pragma('secure_delete = ON');
    db.pragma('foreign_keys = ON');
    db.pragma('trusted_schema = OFF');
    // A transaction at once, so that a second process learns it now and not at its first write.
    db.exec('BEGIN IMMEDIATE; COMMIT');
    migrate(db);
    return new Database(db);
  } catch (error) {
    db.close();
    throw openingError(error);
  }
}

// SQLite would create the file readable for everybody that umask allows.
function createOwnerOnly(path: string): void {
  try {
    closeSync(openSync(path, 'a', 0o600));
  } catch (cause) {
    throw new StoreError('STORE_PATH', 'the store file cannot be created or written', cause);
  }
}

function setKey(db: Driver, key: Uint8Array): void {
  db.pragma(`cipher = 'sqlcipher'`);
  db.pragma('legacy = 4');
  db.pragma(`key = "x'${Buffer.from(key).toString('hex')}'"`);
}

function migrate(db: Driver): void {
  const files = readdirSync(migrationsUrl)
    .filter((name) => /^\d{4}-[a-z0-9-]+\.sql$/.test(name))
    .sort();
  const version = Number(db.pragma('user_version', { simple: true }));
  if (version > files.length) {
    throw new StoreError(
      'STORE_VERSION',
      `the store has schema ${version}, this program knows ${files.length}: use a newer qpc`,
    );
  }
  for (const [index, name] of files.entries()) {
    if (index < version) continue;
    const sql = readFileSync(new URL(name, migrationsUrl), 'utf8');
    db.exec('BEGIN IMMEDIATE');
    db.exec(sql);
    db.pragma(`user_version = ${index + 1}`);
    db.exec('COMMIT');
  }
}

function openingError(error: unknown): unknown {
  const code = sqliteCode(error);
  if (code === undefined) return error;
  if (code.startsWith('SQLITE_BUSY') || code.startsWith('SQLITE_LOCKED')) {
    return new StoreError('STORE_IN_USE', 'store is in use by another qpc process', error);
  }
  if (code === 'SQLITE_NOTADB') {
    return new StoreError('STORE_KEY', 'wrong store key, or the file is no qpc store', error);
  }
  return new StoreError('STORE_PATH', `the store file cannot be opened (${code})`, error);
}
