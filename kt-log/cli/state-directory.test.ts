/** The directory store passes the suite of every AuditStore, and refuses what is damaged. */
import assert from 'node:assert/strict';
import { appendFile, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { auditStoreContract } from '../audit-store-contract.ts';
import { TemporaryDirectory } from '../test-mirror.ts';
import { DirectoryAuditStore } from './state-directory.ts';

const directory = await TemporaryDirectory.make();
after(() => directory[Symbol.asyncDispose]());
let opened = 0;
const open = () => DirectoryAuditStore.open(join(directory.path, String(opened++)));

auditStoreContract('directory audit store', open);

const head = (size: number) => ({
  size,
  root: new Uint8Array(32).fill(size),
  signature: new Uint8Array(64).fill(size),
});

test('a head that a crash cut is forgotten, the ones before it are not', async () => {
  const store = await open();
  await store.putHeads('red.example', [head(1)]);
  await appendFile(join(store.folder('red.example'), 'heads'), new Uint8Array(50));
  assert.deepEqual(await store.heads('red.example', 0, 9), [head(1)]);
  await store.putHeads('red.example', [head(2)]);
  assert.deepEqual(await store.heads('red.example', 0, 9), [head(1), head(2)]);
});

test('folders that it did not make are passed over', async () => {
  const store = await open();
  await store.setStatus('red.example', 'ok');
  for (const stray of ['%zz', 'a b', '.git']) {
    await mkdir(join(directory.path, String(opened - 1), stray));
  }
  assert.deepEqual(await store.evidence(), []);
});

test('what is not its own is refused, and no origin leaves the directory', async () => {
  const store = await open();
  for (const origin of ['../evil', '..', '.', 'a/b', 'ä ö']) {
    await store.setStatus(origin, 'suspect');
    assert.equal(await store.status(origin), 'suspect');
    assert.ok(store.folder(origin).startsWith(join(directory.path, String(opened - 1), '/')));
  }
  assert.equal((await readdir(join(directory.path, String(opened - 1)))).length, 5);
  const file = join(store.folder('..'), 'state.json');
  for (const text of ['', '[', '7', '{"followed":{}}', '{"evidence":[{"hash":"../x"}]}']) {
    await writeFile(file, text);
    await assert.rejects(store.status('..'), { name: 'DataLossError' }, text);
  }
});
