/**
 * Outbox rows for several devices at once, of which a peer refuses some. Nothing enqueues such rows
 * yet, so the test makes them in the file.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import { addDevice, hex, minuteMs, newRow, storeFixture } from './contract/fixture.ts';
import { openDatabase } from './database.ts';
import { openNodeStoreInThread } from './open.ts';
import type { EnqueueRow, NodeStore } from './store.ts';

const blue = 'blue.example';

interface Scene extends AsyncDisposable {
  readonly store: NodeStore;
  readonly row: EnqueueRow;
  readonly second: Uint8Array;
  readonly sender: Uint8Array;
  wait(ms: number): void;
}

/** A row of one device's message for two others: seq 1 of the bulk lane. */
async function rowForTwo(): Promise<Scene> {
  const { fixture, store: before } = await storeFixture(openNodeStoreInThread);
  const sender = await addDevice(before, 'alice');
  const [first, second] = [systemRandom.bytes(32), systemRandom.bytes(32)];
  const row = newRow(first, { sender });
  await before.enqueueRemote(blue, row);
  await before[Symbol.asyncDispose]();
  const db = openDatabase(fixture.path, fixture.key, {});
  db.prepare('UPDATE outbox SET rids = ?').run(Buffer.concat([first, second]));
  db.close();
  return {
    store: await fixture.open(openNodeStoreInThread),
    row,
    second,
    sender,
    wait: (ms) => void (fixture.nowMs += ms),
    [Symbol.asyncDispose]: () => fixture[Symbol.asyncDispose](),
  };
}

async function settle(
  store: NodeStore,
  cursor: number,
  rejects: readonly { readonly seq: number; readonly rid: Uint8Array; readonly reason: string }[],
): Promise<void> {
  const { streamId } = await store.outboundStream(blue, 'bulk');
  const all = rejects.map((one) => ({ ...one, temporary: one.reason === 'QUEUE_FULL' }));
  await store.settleOutbox(blue, 'bulk', streamId, cursor, all);
}

const held = async (store: NodeStore): Promise<string[][]> =>
  (await store.readOutbox(blue, 'bulk', 0, 9, 9_999)).map(({ rids }) => rids.map(hex));

test('what one device refuses for good bounces for that one alone', async () => {
  await using scene = await rowForTwo();
  const { store, row, second, sender } = scene;
  await settle(store, 1, [{ seq: 1, rid: second, reason: 'BLOCKED' }]);
  const letters = await store.deadLetters(0, 9);
  assert.deepEqual(
    letters.map(({ rid, mid }) => [hex(rid), hex(mid)]),
    [[hex(second), hex(row.mid)]],
  );
  const { rows } = await store.fetch(sender, 0, 9, 9_999);
  assert.equal(rows.length, 1);
  assert.deepEqual(await held(store), []);
  assert.equal((await store.outboxPeers())[0]?.rows, 0);
});

test('what is left for one device is no second row beside one that carries it already', async () => {
  await using scene = await rowForTwo();
  const { store, row, second } = scene;
  await store.enqueueRemote(blue, { ...row, rid: second });
  await settle(store, 1, [{ seq: 1, rid: second, reason: 'QUEUE_FULL' }]);
  assert.deepEqual(await held(store), [[hex(second)]]);
  scene.wait(5 * minuteMs);
  assert.deepEqual((await store.requeueDue()).requeuedPeers, []);
  await settle(store, 2, []);
  const [peer] = await store.outboxPeers();
  assert.deepEqual([peer?.rows, peer?.bytes], [0, 0]);
});

test('a device that took the bytes before is no obstacle to the row that follows', async () => {
  await using scene = await rowForTwo();
  const { store, row, second } = scene;
  await store.enqueueRemote(blue, { ...row, rid: second });
  // The second row arrives while the first one is deferred for the same device.
  await settle(store, 1, [{ seq: 1, rid: row.rid, reason: 'QUEUE_FULL' }]);
  await settle(store, 2, []);
  scene.wait(5 * minuteMs);
  assert.deepEqual((await store.requeueDue()).requeuedPeers, [blue]);
  assert.deepEqual(await held(store), [[hex(row.rid)]]);
  await settle(store, 3, []);
  assert.deepEqual(await held(store), []);
  assert.equal((await store.outboxPeers())[0]?.rows, 0);
});

test('a retried dead letter may arrive where the message arrived before', async () => {
  await using scene = await rowForTwo();
  const { store, row, second } = scene;
  await settle(store, 1, [{ seq: 1, rid: second, reason: 'BLOCKED' }]);
  await store.enqueueRemote(blue, { ...row, rid: second });
  await settle(store, 2, []);
  const [letter] = await store.deadLetters(0, 9);
  await store.retryDead([letter?.id ?? 0]);
  await settle(store, 3, []);
  const [peer] = await store.outboxPeers();
  assert.deepEqual([peer?.rows, peer?.deadRows], [0, 0]);
});
