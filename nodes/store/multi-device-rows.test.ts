/** Outbox rows for several devices at once (enqueueBatch), of which a peer refuses some. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import { addDevice, hex, minuteMs, newRow, storeFixture } from './contract/fixture.ts';
import { openNodeStoreInThread } from './open.ts';
import type { EnqueueRow } from './message-store.ts';
import type { NodeStore } from './store.ts';

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
  const { fixture, store } = await storeFixture(openNodeStoreInThread);
  const sender = await addDevice(store, 'alice');
  const [first, second] = [systemRandom.bytes(32), systemRandom.bytes(32)];
  const row = newRow(first, { sender });
  await send(store, row, [first, second]);
  return {
    store,
    row,
    second,
    sender,
    wait: (ms) => void (fixture.nowMs += ms),
    [Symbol.asyncDispose]: () => fixture[Symbol.asyncDispose](),
  };
}

/** One message of the row's sender for these devices of blue; returns the outcomes. */
async function send(
  store: NodeStore,
  { mid, payload, kind, ttlMs, sender }: EnqueueRow,
  rids: readonly Uint8Array[],
): Promise<readonly string[]> {
  const outcomes = await store.enqueueBatch({
    payloads: [{ mid, payload }],
    targets: rids.map((rid) => ({ payload: 0, rid, peer: blue })),
    kind,
    ttlMs,
    ...(sender === undefined ? {} : { sender }),
  });
  return outcomes.map(({ outcome }) => outcome);
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

/** The row for two, and behind it a retried dead letter that carries the same to one of them. */
async function rowForTwoAndLetter(): Promise<Scene> {
  const scene = await rowForTwo();
  const { store, row, second } = scene;
  // Both refuse it, one as a dead letter; then it is sent anew.
  await settle(store, 1, [
    { seq: 1, rid: row.rid, reason: 'BLOCKED' },
    { seq: 1, rid: second, reason: 'BLOCKED' },
  ]);
  const letters = await store.deadLetters(0, 9);
  const ofSecond = letters.filter(({ rid }) => hex(rid) === hex(second)).map(({ id }) => id);
  assert.deepEqual(await send(store, row, [row.rid, second]), ['stored', 'stored']);
  assert.equal((await store.retryDead(ofSecond)).retried, 1);
  assert.deepEqual(await held(store), [[hex(row.rid), hex(second)], [hex(second)]]);
  return scene;
}

test('what is left for one device is no second row beside one that carries it already', async () => {
  await using scene = await rowForTwoAndLetter();
  const { store, second } = scene;
  await settle(store, 2, [{ seq: 2, rid: second, reason: 'QUEUE_FULL' }]);
  assert.deepEqual(await held(store), [[hex(second)]]);
  scene.wait(5 * minuteMs);
  assert.deepEqual((await store.requeueDue()).requeuedPeers, []);
  await settle(store, 3, []);
  const [peer] = await store.outboxPeers();
  assert.deepEqual([peer?.rows, peer?.bytes], [0, 0]);
});

test('a device that took the bytes before is no obstacle to the row that follows', async () => {
  await using scene = await rowForTwoAndLetter();
  const { store, row } = scene;
  // The letter arrives while the row is deferred for the other device.
  await settle(store, 2, [{ seq: 2, rid: row.rid, reason: 'QUEUE_FULL' }]);
  await settle(store, 3, []);
  scene.wait(5 * minuteMs);
  assert.deepEqual((await store.requeueDue()).requeuedPeers, [blue]);
  assert.deepEqual(await held(store), [[hex(row.rid)]]);
  await settle(store, 4, []);
  assert.deepEqual(await held(store), []);
  assert.equal((await store.outboxPeers())[0]?.rows, 0);
});

test('who took it is remembered, who refused it may get it anew, who waits has it once', async () => {
  await using scene = await rowForTwo();
  const { store, row, second } = scene;
  const third = systemRandom.bytes(32);
  await settle(store, 1, [{ seq: 1, rid: second, reason: 'QUEUE_FULL' }]);
  const again = [row.rid, second, third];
  assert.deepEqual(await send(store, row, again), ['duplicate', 'duplicate', 'stored']);
  assert.equal((await store.enqueueRemote(blue, { ...row, rid: third })).outcome, 'duplicate');
  await settle(store, 2, [{ seq: 2, rid: third, reason: 'BLOCKED' }]);
  assert.deepEqual(await send(store, row, again), ['duplicate', 'duplicate', 'stored']);
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
