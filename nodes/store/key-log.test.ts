/**
 * A real log over the node's store: it goes on after a restart, its reads do not stand in the
 * writers' queue, and a database of before the log gets its tables.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import {
  addDevice,
  bigLimits,
  hex,
  newAccount,
  newDevice,
  newManifest,
  newRow,
  storeFixture,
  StoreFixture,
} from './contract/fixture.ts';
import { labelOf, logBatch, registerAccount } from './contract/log-batch.ts';
import { audit, openLog, writeEffect } from './contract/real-log.ts';
import { openDatabase, openForReading } from './database.ts';
import { openNodeStore, openNodeStoreInThread } from './open.ts';
import { Database } from './sqlite.ts';
import type { NodeStore } from './store.ts';

const alice = 'alice@red.example';

for (const [name, open] of [
  ['in its own thread', openNodeStore],
  ['in the calling thread', openNodeStoreInThread],
] as const) {
  test(`a log over the store ${name} goes on after a restart`, async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const first = await openLog(store, fixture.runtime);
    const accounts = Array.from({ length: 30 }, (_account, i) =>
      newAccount(`user-${i}@red.example`),
    );
    const register = (account: ReturnType<typeof newAccount>): Promise<number> =>
      writeEffect(first, { kind: 'register', account });
    const settled = await Promise.allSettled(
      [...accounts, newAccount('user-7@red.example')].map(register),
    );
    const refused = settled.filter((one) => one.status === 'rejected');
    assert.equal(refused.length, 1, 'two of one name: one of them, and nobody else, is refused');
    const { size, root } = first.head ?? assert.fail();
    await first[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();

    const again = await fixture.open(open);
    const second = await openLog(again, fixture.runtime);
    assert.deepEqual([second.size, second.head?.root], [size, root]);
    const added = { device: newDevice('phone'), sessionExpiresMs: 1 };
    const update = {
      kind: 'manifest',
      userId: 'user-3@red.example',
      manifest: newManifest(),
    } as const;
    await writeEffect(second, { ...update, manifestSeq: 1, added, dropped: [] });
    assert.equal((await again.devices('user-3@red.example')).length, 2);
    for (const { userId } of accounts) {
      const versions = await again.keyLog.positions(labelOf(userId));
      assert.equal((await again.account(userId))?.manifestSeq, versions.length - 1);
      const answer = await second.search({ label: labelOf(userId) });
      assert.equal(answer.version, versions.length - 1);
    }
    await audit(second, fixture.nowMs);
    await second[Symbol.asyncDispose]();
  });
}

test('a read does not wait for the writes before it, and sees a commit that was answered', async () => {
  const { fixture, store } = await storeFixture(openNodeStore, bigLimits);
  await using _ = fixture;
  const rid = await addDevice(store, alice);
  let written = 0;
  const writes = Array.from({ length: 2_000 }, async () => {
    await store.enqueue(newRow(rid));
    written += 1;
  });
  assert.equal((await store.keyLog.newestHead())?.size, 1);
  assert.equal(written, 0);
  await store.keyLog.commit(logBatch(1, []));
  assert.equal((await store.keyLog.newestHead())?.size, 2);
  await Promise.all(writes);
});

test('a reading connection writes nothing and needs the key', async () => {
  const { fixture, store } = await storeFixture(openNodeStore);
  await using _ = fixture;
  await registerAccount(store, newAccount(alice));
  const reader = openForReading(fixture.path, fixture.key);
  assert.throws(() => reader.exec('DELETE FROM kt_head'), { code: 'SQLITE_READONLY' });
  reader.close();
  const wrong = systemRandom.bytes(32);
  assert.throws(() => openForReading(fixture.path, wrong), { reason: 'STORE_KEY' });
});

test('a head is neither replaced nor removed, not even by a statement of our own', async () => {
  const { fixture, store } = await storeFixture(openNodeStore);
  await using _ = fixture;
  await registerAccount(store, newAccount(alice));
  await store.keyLog.commit(logBatch(1, []));
  await store[Symbol.asyncDispose]();
  const db = openDatabase(fixture.path, fixture.key, {});
  const columns = 'size, root, signature, rfc6962_root, note_signature';
  for (const sql of [
    `INSERT INTO kt_head (${columns}) SELECT ${columns} FROM kt_head WHERE size = 2`,
    `INSERT OR REPLACE INTO kt_head (${columns}) SELECT ${columns} FROM kt_head WHERE size = 2`,
    `REPLACE INTO kt_head (${columns}) SELECT 1, root, signature, rfc6962_root, note_signature
       FROM kt_head WHERE size = 2`,
    'UPDATE kt_head SET root = zeroblob(32)',
    'UPDATE OR REPLACE kt_head SET size = 1 WHERE size = 2',
    'DELETE FROM kt_head WHERE size = 2',
  ]) {
    assert.throws(() => db.exec(sql), /a head is never (replaced|removed)/u, sql);
  }
  db.close();
});

test('a database of before the log keeps what it has and gets the log', async () => {
  await using fixture = new StoreFixture();
  const device = newDevice('laptop');
  const manifest = newManifest();
  makeVersion1(fixture, device, manifest);
  const store = await fixture.open(openNodeStore);
  assert.deepEqual(await store.account(alice), {
    userId: alice,
    setupId: 1,
    opaqueRecord: Uint8Array.of(1, 2),
    manifest,
    manifestSeq: 0,
  });
  assert.deepEqual(await store.devices(alice), [
    { ...device, sessionExpiresMs: 9, addedMs: undefined },
  ]);
  const { rows } = await store.fetch(device.identityPub, 0, 9, 99);
  assert.deepEqual(
    rows.map(({ payload }) => [...payload]),
    [[42]],
  );
  assert.equal(await store.keyLog.newestHead(), undefined);
  await takesALog(fixture, store);
});

test('labels of before version 14 find their versions, get more of them and are forgotten', async () => {
  const { fixture, store: first } = await storeFixture(openNodeStore);
  await using _ = fixture;
  const names = ['a', 'b', 'c'].map(labelOf);
  const [, b] = names;
  assert.ok(b);
  const commit = (store: NodeStore, position: number, label: Uint8Array, version: number) => {
    const value = Uint8Array.of(position, version);
    const made = { label, version, value, commitment: new Uint8Array(32), opening: value };
    return store.keyLog.commit({ ...logBatch(position, []), versions: [made] });
  };
  const all = (store: NodeStore) =>
    Promise.all(names.map((label) => store.keyLog.versions(label, [0, 1, 2, 3, 4])));
  // The rows of one label lie between those of the others.
  for (let position = 0; position < 12; position++) {
    await commit(first, position, names[position % 3] ?? b, Math.floor(position / 3));
  }
  const before = await all(first);
  await first[Symbol.asyncDispose]();
  const db = openDatabase(fixture.path, fixture.key, {});
  db.exec(`CREATE TABLE was (id INTEGER PRIMARY KEY, label INTEGER NOT NULL, version INTEGER NOT NULL,
      commitment BLOB NOT NULL CHECK (length(commitment) = 32), opening BLOB NOT NULL,
      value BLOB NOT NULL, UNIQUE (label, version)) STRICT;
    INSERT INTO was SELECT * FROM kt_version;
    DROP TABLE kt_version;
    ALTER TABLE was RENAME TO kt_version;
    ALTER TABLE kt_label DROP COLUMN version_rows`);
  // This one alone: those after it are there already.
  db.exec(readFileSync(join(import.meta.dirname, 'migrations/0014-version-rows.sql'), 'utf8'));
  db.close();

  const store = await fixture.open(openNodeStore);
  assert.deepEqual(await all(store), before);
  await commit(store, 12, b, 4);
  const [found] = await store.keyLog.versions(b, [4]);
  assert.deepEqual(found?.value, Uint8Array.of(12, 4));
  await store.keyLog.erase(b);
  const [ofA, ofB, ofC] = await all(store);
  assert.deepEqual([ofA, ofC], [before[0], before[2]]);
  assert.ok(ofB?.every((version) => version === undefined));
  await store[Symbol.asyncDispose]();
  const again = openDatabase(fixture.path, fixture.key, {});
  assert.equal(again.prepare('SELECT count(*) FROM kt_version').pluck().get(), 8);
  again.close();
});

async function takesALog(fixture: StoreFixture, store: NodeStore): Promise<void> {
  const log = await openLog(store, fixture.runtime);
  await writeEffect(log, { kind: 'register', account: newAccount('bob@red.example') });
  assert.equal((await store.keyLog.newestHead())?.size, 1);
  await log[Symbol.asyncDispose]();
}

/** As the program of version 1 left it: one account, one device, one row. */
function makeVersion1(
  { path, key }: StoreFixture,
  device: ReturnType<typeof newDevice>,
  manifest: ReturnType<typeof newManifest>,
): void {
  const db = new Database(path);
  db.pragma("cipher = 'sqlcipher'");
  db.pragma('legacy = 4');
  db.key(Buffer.from(`x'${hex(key)}'`));
  db.pragma('journal_mode = WAL');
  db.pragma('application_id = 1903190894');
  db.exec(readFileSync(join(import.meta.dirname, 'migrations', '0001-initial.sql'), 'utf8'));
  db.pragma('user_version = 1');
  db.exec(`INSERT INTO meta (name, value) VALUES ('store_id', x'0102030405060708')`);
  db.prepare(
    `INSERT INTO account (user_id, setup_id, opaque_record, manifest, manifest_signature, manifest_seq)
     VALUES (?, 1, x'0102', ?, ?, 0)`,
  ).run(alice, manifest.manifest, manifest.signature);
  db.prepare(
    `INSERT INTO device (account, device_id, identity_pub, transport_spki, session_expires_ms)
     VALUES (1, ?, ?, ?, 9)`,
  ).run(device.deviceId, device.identityPub, device.transportSpki);
  db.prepare('INSERT INTO log (kind, key, head, row_count, byte_count) VALUES (1, ?, 1, 1, 1)').run(
    device.identityPub,
  );
  db.exec(`INSERT INTO payload (refs, bytes) VALUES (1, x'2a');
    INSERT INTO entry (log, seq, mid, tag, kind, payload, size, received_ms, expires_ms)
      VALUES (1, 1, zeroblob(16), zeroblob(32), 1, 1, 1, 1, ${Number.MAX_SAFE_INTEGER})`);
  db.close();
}
