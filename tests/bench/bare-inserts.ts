/** The floor of the Enqueue benches: a bare loop of inserts into one encrypted table. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { systemRandom } from '@quicprochat/proto';
import { measureLoad, type Round } from './measure.ts';

const payloadBytes = 1024;
const warmUpMs = 500;
const measureMs = 1_500;

/** What of the driver is used here. */
interface Driver {
  new (path: string): {
    pragma(text: string): unknown;
    exec(sql: string): unknown;
    prepare(sql: string): { run(...values: unknown[]): unknown };
  };
}

/** Rows per second, `rowsPerCommit` in each commit, with the pragmas of a node's store. */
export async function measureBare(directory: string, rowsPerCommit: number): Promise<Round> {
  const Database = createRequire(import.meta.url)('better-sqlite3-multiple-ciphers') as Driver;
  const db = new Database(join(directory, 'bare.db'));
  const key = Buffer.from(systemRandom.bytes(32)).toString('hex');
  for (const pragma of [
    "cipher = 'sqlcipher'",
    'legacy = 4',
    `key = "x'${key}'"`,
    'journal_mode = WAL',
    'synchronous = FULL',
    'secure_delete = ON',
    'temp_store = MEMORY',
    'cache_size = -65536',
  ]) {
    db.pragma(pragma);
  }
  db.exec('CREATE TABLE message (id INTEGER PRIMARY KEY, rid BLOB, mid BLOB, payload BLOB)');
  const insert = db.prepare('INSERT INTO message (rid, mid, payload) VALUES (?, ?, ?)');
  const [begin, commit] = [db.prepare('BEGIN IMMEDIATE'), db.prepare('COMMIT')];
  const rid = systemRandom.bytes(32);
  const round = await measureLoad({
    loops: 1,
    warmUpMs,
    measureMs,
    step: async () => {
      begin.run();
      for (let row = 0; row < rowsPerCommit; row += 1) {
        insert.run(rid, systemRandom.bytes(16), systemRandom.bytes(payloadBytes));
      }
      commit.run();
    },
  });
  const perRow = { clientCpuUs: (round.notes['clientCpuUs'] ?? 0) / rowsPerCommit };
  return { value: round.value * rowsPerCommit, notes: { ...round.notes, ...perRow } };
}
