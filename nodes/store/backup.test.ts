/** A copy made beside the node that writes: what it holds, who can read it, and that it counts as an older copy. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { copyDatabase } from './backup.ts';
import { addDevice, newRow, storeFixture } from './contract/fixture.ts';
import { openNodeStore } from './open.ts';

test('a copy holds what was acknowledged before it, under the same key, and the node goes on', async () => {
  const { fixture, store } = await storeFixture(openNodeStore);
  await using _ = fixture;
  const target = join(fixture.folder, 'copy.db');
  const alice = await addDevice(store, 'alice');
  await store.putSecret('signing', Buffer.from('planted-secret-0123456789'));
  const rows = [1, 2, 3].map((n) => newRow(alice, { payload: Buffer.from(`planted-text-${n}`) }));
  for (const row of rows) await store.enqueue(row);
  copyDatabase(fixture.path, fixture.key, target);
  await store.enqueue(newRow(alice));
  assert.equal((await store.fetch(alice, 0, 9, 1e6)).head, 4);
  await store[Symbol.asyncDispose]();

  assert.equal(statSync(target).mode & 0o077, 0);
  assert.deepEqual(
    readdirSync(fixture.folder).filter((name) => name.includes('copy')),
    ['copy.db'],
  );
  const bytes = readFileSync(target);
  for (const mark of ['planted-', 'SQLite format 3']) assert.ok(!bytes.includes(mark));

  await using copy = await openNodeStore({ ...fixture.options(), path: target });
  const page = await copy.fetch(alice, 0, 9, 1e6);
  assert.deepEqual(
    page.rows.map(({ payload }) => Buffer.from(payload).toString()),
    ['planted-text-1', 'planted-text-2', 'planted-text-3'],
  );
  assert.equal(
    Buffer.from((await copy.secret('signing')) ?? [])
      .toString()
      .slice(0, 7),
    'planted',
  );
  // Whoever starts it starts an older copy: cursors of devices do not fit it.
  assert.notDeepEqual(copy.storeId, store.storeId);
});

test('nothing is overwritten, and what fails leaves nothing', async () => {
  const { fixture } = await storeFixture(openNodeStore);
  await using _ = fixture;
  const target = join(fixture.folder, 'copy.db');
  const before = readdirSync(fixture.folder).length;
  writeFileSync(target, 'mine');
  const refused = (reason: string, to: string, key = fixture.key): void => {
    assert.throws(() => copyDatabase(fixture.path, key, to), { name: 'StoreOpenError', reason });
  };
  refused('STORE_EXISTS', target);
  assert.equal(readFileSync(target, 'utf8'), 'mine');
  rmSync(target);
  refused('STORE_IO', join(fixture.folder, 'nowhere', 'copy.db'));
  refused('STORE_KEY', target, new Uint8Array(32));
  assert.equal(readdirSync(fixture.folder).length, before);
});
