/** The database file: encryption, refusals that name what to do, migrations, rewinds. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import {
  addDevice,
  bigLimits,
  hex,
  newAccount,
  newRow,
  storeFixture,
  StoreFixture,
} from './contract/fixture.ts';
import { registerAccount } from './contract/log-batch.ts';
import { openDatabase } from './database.ts';
import { createNodeStore, openNodeStore, openNodeStoreInThread } from './open.ts';
import { Database, type SqlDatabase } from './sqlite.ts';
import type { NewKeyPackage } from './key-store.ts';

function newKeyPackage(fixture: StoreFixture, lastResort: boolean): NewKeyPackage {
  const [notBeforeMs, notAfterMs] = [fixture.nowMs - 1_000, fixture.nowMs + 1e9];
  const [ref, bytes] = [systemRandom.bytes(32), systemRandom.bytes(344)];
  return { ref, suite: 1, bytes, notBeforeMs, notAfterMs, lastResort };
}

async function refusesToOpen(fixture: StoreFixture, reason: string, text: RegExp): Promise<void> {
  const before = readFileSync(fixture.path);
  for (const open of [openNodeStore, openNodeStoreInThread]) {
    await assert.rejects(
      async () => fixture.open(open),
      (error: Error & { reason?: string }) => {
        assert.equal(error.name, 'StoreOpenError');
        assert.equal(error.reason, reason);
        assert.match(error.message, text);
        assert.ok(error.message.startsWith(fixture.path));
        assert.ok(!error.message.includes('\n'));
        return true;
      },
    );
  }
  assert.ok(before.equals(readFileSync(fixture.path)), 'the file is as it was');
}

function closedRaw(fixture: StoreFixture, change: (db: SqlDatabase) => void): void {
  const db = openDatabase(fixture.path, fixture.key, {});
  change(db);
  db.close();
}

describe('encryption at rest', () => {
  test('neither the database nor the log beside it shows what was stored', async () => {
    const { fixture, store } = await storeFixture(openNodeStore, bigLimits);
    await using _ = fixture;
    const marks = ['text', 'mark', 'user', 'peer'].map(
      (name) => `planted-${name}-0123456789abcdef`,
    );
    const [text = '', secret = '', user = '', peer = ''] = marks;
    const rid = await addDevice(store, user);
    const payload = Buffer.from(text);
    await store.putSecret('signing', Buffer.from(secret));
    await store.enqueue(newRow(rid, { payload }));
    await store.enqueueRemote(peer, newRow(rid, { payload }));
    await store.enqueue(newRow(rid, { payload: Buffer.from(text.repeat(2_000)) }));
    const files = (): Buffer[] =>
      readdirSync(fixture.folder).map((name) => readFileSync(join(fixture.folder, name)));
    const open = files();
    assert.ok(open.length >= 3, 'the write-ahead log is among them');
    await store[Symbol.asyncDispose]();
    for (const bytes of [...open, ...files()]) {
      for (const mark of [...marks, hex(rid), hex(fixture.key)]) {
        const raw = Buffer.from(mark);
        for (const form of [mark, raw.toString('hex'), raw.toString('base64').slice(0, -4)]) {
          assert.ok(!bytes.includes(form));
        }
      }
      for (const raw of [rid, fixture.key]) assert.ok(!bytes.includes(Buffer.from(raw)));
      assert.ok(!bytes.includes('SQLite format 3'));
    }
  });

  test('plain SQLite does not open it', async () => {
    const { fixture, store } = await storeFixture(openNodeStore);
    await using _ = fixture;
    await store[Symbol.asyncDispose]();
    const plain = new Database(fixture.path, { readonly: true });
    assert.throws(() => plain.prepare('SELECT * FROM sqlite_schema').all(), {
      code: 'SQLITE_NOTADB',
    });
    plain.close();
  });

  test('a wrong key is refused with a line that says what to do', async () => {
    const { fixture, store } = await storeFixture(openNodeStore);
    await using _ = fixture;
    await store[Symbol.asyncDispose]();
    fixture.key.set(systemRandom.bytes(32));
    await refusesToOpen(fixture, 'STORE_KEY', /check that the key file belongs to this database/);
  });

  test('a key of another length is refused', async () => {
    const { fixture, store } = await storeFixture(openNodeStore);
    await using _ = fixture;
    await store[Symbol.asyncDispose]();
    const options = { ...fixture.options(), key: fixture.key.subarray(1) };
    await assert.rejects(openNodeStore(options), { reason: 'BAD_FIELD' });
  });

  test("the caller's key is neither changed nor taken", async () => {
    const { fixture } = await storeFixture(openNodeStore);
    await using _ = fixture;
    assert.equal(fixture.key.length, 32);
    assert.ok(fixture.key.some((byte) => byte !== 0));
  });
});

describe('opening', () => {
  test('a database that is not there is not made', async () => {
    const fixture = new StoreFixture();
    await using _ = fixture;
    await assert.rejects(fixture.open(openNodeStore), {
      reason: 'STORE_MISSING',
      message: /restore a backup .*qpcd init/,
    });
    assert.deepEqual(readdirSync(fixture.folder), []);
  });

  test('a file that is no database is refused', async () => {
    const fixture = new StoreFixture();
    await using _ = fixture;
    writeFileSync(fixture.path, systemRandom.bytes(8_192));
    await refusesToOpen(fixture, 'STORE_KEY', /the key does not open it/);
  });

  test('an empty file is refused, not filled', async () => {
    const fixture = new StoreFixture();
    await using _ = fixture;
    writeFileSync(fixture.path, '');
    await refusesToOpen(fixture, 'STORE_INVALID', /not a node's store/);
  });

  test('an unencrypted database is refused', async () => {
    const fixture = new StoreFixture();
    await using _ = fixture;
    const plain = new Database(fixture.path);
    plain.exec('CREATE TABLE account (id INTEGER)');
    plain.close();
    await refusesToOpen(fixture, 'STORE_INVALID', /unencrypted/);
  });

  test("another program's database with the same key is refused", async () => {
    const { fixture, store } = await storeFixture(openNodeStore);
    await using _ = fixture;
    await store[Symbol.asyncDispose]();
    closedRaw(fixture, (db) => db.pragma('application_id = 1'));
    await refusesToOpen(fixture, 'STORE_INVALID', /not a node's store/);
  });

  test('a schema of a newer program is refused', async () => {
    const { fixture, store } = await storeFixture(openNodeStore);
    await using _ = fixture;
    await store[Symbol.asyncDispose]();
    closedRaw(fixture, (db) => db.pragma('user_version = 9999'));
    await refusesToOpen(fixture, 'STORE_NEWER', /run the newer qpcd/);
  });

  test('a second process is refused while the first lives, and let in afterwards', async () => {
    const { fixture, store } = await storeFixture(openNodeStore);
    await using _ = fixture;
    const openElsewhere = (): string => {
      const script = `
        const { openNodeStoreInThread } = await import(process.argv[1]);
        const { silentLog, systemClock, systemRandom } = await import('@quicprochat/proto');
        const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
        const [, , path, key, limits] = process.argv;
        try {
          const options = { path, key: Buffer.from(key, 'hex'), limits: JSON.parse(limits), runtime };
          await openNodeStoreInThread(options)[Symbol.asyncDispose]();
          console.log('open');
        } catch (error) { console.log(error.reason); }`;
      const { stdout } = spawnSync(
        process.execPath,
        [
          '--input-type=module',
          '-e',
          script,
          new URL('open.ts', import.meta.url).href,
          fixture.path,
          hex(fixture.key),
          JSON.stringify(bigLimits),
        ],
        { cwd: import.meta.dirname, encoding: 'utf8' },
      );
      return stdout.trim();
    };
    assert.equal(openElsewhere(), 'STORE_LOCKED');
    await refusesInThisProcess();
    assert.equal(openElsewhere(), 'STORE_LOCKED', 'the refused opener dropped no lock');
    await store[Symbol.asyncDispose]();
    assert.equal(openElsewhere(), 'open');

    async function refusesInThisProcess(): Promise<void> {
      await assert.rejects(fixture.open(openNodeStore), { reason: 'STORE_LOCKED' });
      const wrongKey = { ...fixture.options(), key: systemRandom.bytes(32) };
      await assert.rejects(openNodeStore(wrongKey), { name: 'StoreOpenError' });
    }
  });
});

describe('making', () => {
  test('the file is for the owner alone and complete', async () => {
    const fixture = new StoreFixture();
    await using _ = fixture;
    await fixture.create();
    assert.deepEqual(readdirSync(fixture.folder), ['node.db']);
    assert.equal(statSync(fixture.path).mode & 0o777, 0o600);
    const store = await fixture.open(openNodeStore);
    for (const name of readdirSync(fixture.folder)) {
      assert.equal(statSync(join(fixture.folder, name)).mode & 0o077, 0, name);
    }
    assert.equal(store.storeId.length, 8);
  });

  test('an existing file is never touched', async () => {
    const fixture = new StoreFixture();
    await using _ = fixture;
    writeFileSync(fixture.path, 'a letter');
    await assert.rejects(fixture.create(), { name: 'StoreOpenError', reason: 'STORE_EXISTS' });
    assert.equal(readFileSync(fixture.path, 'utf8'), 'a letter');
    assert.deepEqual(readdirSync(fixture.folder), ['node.db']);
  });

  test('a folder that is not there is a typed error and leaves nothing', async () => {
    const fixture = new StoreFixture();
    await using _ = fixture;
    const path = join(fixture.folder, 'missing', 'node.db');
    const made = createNodeStore({ ...fixture.options(), path });
    await assert.rejects(made, { name: 'StoreOpenError', reason: 'STORE_IO' });
    assert.ok(!existsSync(path));
  });
});

describe('store id', () => {
  test('it stays over a restart, and differs between stores', async () => {
    const { fixture, store } = await storeFixture(openNodeStore);
    await using _ = fixture;
    const { storeId } = store;
    await registerAccount(store, newAccount('alice'));
    await store[Symbol.asyncDispose]();
    assert.deepEqual((await fixture.open(openNodeStore)).storeId, storeId);
    const other = await storeFixture(openNodeStore);
    await using _other = other.fixture;
    assert.notDeepEqual(other.store.storeId, storeId);
  });

  test('it is renewed when the file was replaced by an older copy', async () => {
    const { fixture, store } = await storeFixture(openNodeStore);
    await using _ = fixture;
    const { storeId } = store;
    const alice = await addDevice(store, 'alice');
    const packages = [false, true].map((lastResort) => newKeyPackage(fixture, lastResort));
    await store.addKeyPackages(alice, packages);
    await store[Symbol.asyncDispose]();
    copyFileSync(fixture.path, `${fixture.path}.old`);
    const later = await fixture.open(openNodeStore);
    await later.enqueue(newRow(alice));
    assert.deepEqual(later.storeId, storeId);
    await later[Symbol.asyncDispose]();
    copyFileSync(`${fixture.path}.old`, fixture.path);
    const rewound = await fixture.open(openNodeStore);
    assert.notDeepEqual(rewound.storeId, storeId);
    assert.equal((await rewound.fetch(alice, 0, 1, 1)).head, 0);
    // Which single-use packages went out since is not known any more: none does again.
    const left = [{ suite: 1, singleUse: 0, hasLastResort: true, lastResortUsed: false }];
    assert.deepEqual(await rewound.keyPackageCounts(alice), left);
    const renewed = rewound.storeId;
    await rewound[Symbol.asyncDispose]();
    assert.deepEqual((await fixture.open(openNodeStore)).storeId, renewed, 'once');
  });

  for (const [what, spoil] of [
    ['is missing, as in a backup of the database alone', (file: string) => rmSync(file)],
    ['was cut by a power loss', (file: string) => truncateSync(file, 5)],
    ['is of another store', (file: string) => writeFileSync(file, new Uint8Array(16).fill(7))],
  ] as const) {
    test(`it is renewed when the record beside the database ${what}`, async () => {
      const { fixture, store } = await storeFixture(openNodeStore);
      await using _ = fixture;
      const { storeId } = store;
      const alice = await addDevice(store, 'alice');
      await store.enqueue(newRow(alice));
      await store[Symbol.asyncDispose]();
      spoil(`${fixture.path}-commits`);
      const restored = await fixture.open(openNodeStore);
      assert.notDeepEqual(restored.storeId, storeId);
      assert.equal((await restored.fetch(alice, 0, 1, 1000)).head, 1, 'rows stay');
      const renewed = restored.storeId;
      await restored[Symbol.asyncDispose]();
      assert.deepEqual((await fixture.open(openNodeStore)).storeId, renewed, 'once');
    });
  }
});
