/**
 * The encrypted file: one SQLCipher 4 database (raw key, WAL, synchronous=FULL; one connection that
 * writes, others only read) and its numbered migrations. It knows nothing of what the tables mean.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Random } from '@quicprochat/proto';
import { needBytes, storeBounds } from './bounds.ts';
import { lockedError, StoreOpenError } from './open-error.ts';
import { metaQueries } from './queries/meta.ts';
import { Database, sqliteCode, type SqlDatabase } from './sqlite.ts';

/** "qpcn": this file is a node's store and no other database with the same key. */
const applicationId = 0x71_70_63_6e;
/** SQLCipher's page. */
export const pageBytes = 4096;
/** Memory for decrypted pages (KiB): of the connection that writes, of one that reads. */
const cacheKib = 64 * 1024;
const readCacheKib = 16 * 1024;
/** How long a read may wait, should the file's index be rebuilt just then; normally it never is. */
const readBusyMs = 1_000;
const migrationsFolder = join(import.meta.dirname, 'migrations');

/** Bounds of the file itself. */
export interface DatabaseLimits {
  /** The file may not grow beyond it; undefined: as far as the disk goes. */
  readonly databaseBytes?: number | undefined;
}

/** Throws StoreOpenError STORE_MISSING unless there is a file. */
export function needDatabase(path: string): void {
  if (existsSync(path)) return;
  throw new StoreOpenError(
    'STORE_MISSING',
    `${path}: no such database; correct "database" or restore a backup (a new node: qpcd init)`,
  );
}

/**
 * Opens an existing store to write and brings its schema up to date; the caller holds its FileLock.
 * Throws StoreOpenError and leaves the file as it was.
 */
export function openDatabase(path: string, key: Uint8Array, limits: DatabaseLimits): SqlDatabase {
  needBytes(key, storeBounds.keyBytes, 'key');
  needDatabase(path);
  return withOpenErrors(path, () => {
    const db = new Database(path, { fileMustExist: true, timeout: 0 });
    try {
      unlock(db, key);
      if (db.pragma('application_id', { simple: true }) !== applicationId) {
        throw new StoreOpenError('STORE_INVALID', `${path}: a database, but not a node's store`);
      }
      configure(db, limits);
      migrate(db, path);
      return db;
    } catch (error) {
      db.close();
      throw error;
    }
  });
}

/**
 * A connection that only reads, beside the one of `openDatabase`, in any thread. It sees what is
 * committed, never waits for a writer and never makes one wait. Throws StoreOpenError.
 */
export function openForReading(path: string, key: Uint8Array): SqlDatabase {
  needBytes(key, storeBounds.keyBytes, 'key');
  return withOpenErrors(path, () => {
    const db = new Database(path, { readonly: true, fileMustExist: true, timeout: readBusyMs });
    try {
      unlock(db, key);
      db.pragma('temp_store = MEMORY');
      db.pragma(`cache_size = -${readCacheKib}`);
      // The first read: finds out whether the key fits.
      db.pragma('user_version');
      return db;
    } catch (error) {
      db.close();
      throw error;
    }
  });
}

/**
 * Makes a new store: complete and on disk under `path` when it returns, or not there at all.
 * Throws StoreOpenError STORE_EXISTS when something has that name already.
 */
export function createDatabase(path: string, key: Uint8Array, random: Random): void {
  needBytes(key, storeBounds.keyBytes, 'key');
  const suffix = Buffer.from(random.bytes(6)).toString('hex');
  const draft = join(dirname(path), `.${basename(path)}.${suffix}`);
  withOpenErrors(path, () => {
    if (existsSync(path)) throw existsError(path);
    try {
      // SQLite takes over the file's mode, also for the files beside it.
      closeSync(openSync(draft, 'wx', 0o600));
      const db = new Database(draft, { timeout: 0 });
      try {
        unlock(db, key);
        configure(db, {});
        db.pragma(`application_id = ${applicationId}`);
        migrate(db, path);
        metaQueries(db).renewStoreId(random.bytes(storeBounds.storeIdBytes));
      } finally {
        db.close();
      }
      syncPath(draft);
      linkSync(draft, path);
      syncPath(dirname(path));
    } finally {
      for (const end of ['', '-wal', '-shm', '-journal']) rmSync(draft + end, { force: true });
    }
  });
}

/** The first read after it finds out whether the key is right. Writes nothing. */
function unlock(db: SqlDatabase, key: Uint8Array): void {
  // In this order: without legacy=4 the file is not SQLCipher's format 4.
  db.pragma("cipher = 'sqlcipher'");
  db.pragma('legacy = 4');
  applyRawKey(db, key);
}

function configure(db: SqlDatabase, limits: DatabaseLimits): void {
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.pragma('secure_delete = ON');
  db.pragma('foreign_keys = ON');
  // Temporary files would not be encrypted.
  db.pragma('temp_store = MEMORY');
  db.pragma(`cache_size = -${cacheKib}`);
  // The core checkpoints by itself: the automatic one swallows failed syncs.
  db.pragma('wal_autocheckpoint = 0');
  if (limits.databaseBytes !== undefined) {
    db.pragma(`max_page_count = ${Math.floor(limits.databaseBytes / pageBytes)}`);
  }
}

/** `key = "x'<64 hex>'"` without a string of it: strings cannot be wiped. */
function applyRawKey(db: SqlDatabase, key: Uint8Array): void {
  const literal = Buffer.alloc(3 + 2 * key.length);
  literal.write("x'");
  const digits = '0123456789abcdef';
  for (const [index, byte] of key.entries()) {
    literal.write(digits.charAt(byte >> 4), 2 + 2 * index);
    literal.write(digits.charAt(byte & 15), 3 + 2 * index);
  }
  literal.write("'", literal.length - 1);
  try {
    db.key(literal);
  } finally {
    literal.fill(0);
  }
}

interface Migration {
  readonly version: number;
  readonly sql: string;
}

/** NNNN-name.sql in order; the numbers leave nothing out. */
function readMigrations(): readonly Migration[] {
  const names = readdirSync(migrationsFolder).filter((name) => name.endsWith('.sql'));
  return names.sort().map((name, index) => {
    const version = Number.parseInt(name.slice(0, 4), 10);
    if (version !== index + 1) throw new Error(`migration ${name}: expected number ${index + 1}`);
    return { version, sql: readFileSync(join(migrationsFolder, name), 'utf8') };
  });
}

function migrate(db: SqlDatabase, path: string): void {
  const migrations = readMigrations();
  const version = db.pragma('user_version', { simple: true });
  if (typeof version !== 'number') throw new Error('user_version is not a number');
  if (version > migrations.length) {
    throw new StoreOpenError(
      'STORE_NEWER',
      `${path}: schema ${version} is newer than this program's ${migrations.length}; ` +
        'run the newer qpcd',
    );
  }
  for (const migration of migrations.slice(version)) {
    db.transaction(() => {
      db.exec(migration.sql);
      db.pragma(`user_version = ${migration.version}`);
    }).immediate();
  }
}

/** SQLite's own errors, as what they mean to an operator. */
function withOpenErrors<T>(path: string, open: () => T): T {
  try {
    return open();
  } catch (error) {
    if (error instanceof StoreOpenError) throw error;
    const code = sqliteCode(error);
    if (code !== undefined) throw openErrorOf(path, code, error);
    if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
      if (error.code === 'EEXIST') throw existsError(path);
      throw new StoreOpenError('STORE_IO', `${path}: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

function openErrorOf(path: string, code: string, cause: unknown): StoreOpenError {
  // A program that does not know of our FileLock.
  if (code.startsWith('SQLITE_BUSY')) return lockedError(path, cause);
  if (code === 'SQLITE_NOTADB' && isPlainSqlite(path)) {
    const message = `${path}: an unencrypted SQLite database, not a node's store`;
    return new StoreOpenError('STORE_INVALID', message, { cause });
  }
  if (code === 'SQLITE_NOTADB') {
    const message = `${path}: the key does not open it; check that the key file belongs to this database`;
    return new StoreOpenError('STORE_KEY', message, { cause });
  }
  return new StoreOpenError('STORE_IO', `${path}: ${code}: ${String(cause)}`, { cause });
}

function existsError(path: string): StoreOpenError {
  return new StoreOpenError('STORE_EXISTS', `${path}: exists already; qpcd init does not touch it`);
}

/**
 * Asked of SQLite, not of the file: closing a file of our own would drop the locks that this process
 * holds on it elsewhere (fcntl).
 */
function isPlainSqlite(path: string): boolean {
  const db = new Database(path, { readonly: true, fileMustExist: true, timeout: 0 });
  try {
    db.prepare('SELECT count(*) FROM sqlite_schema').get();
    return true;
  } catch {
    // Encrypted, or no database at all.
    return false;
  } finally {
    db.close();
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
