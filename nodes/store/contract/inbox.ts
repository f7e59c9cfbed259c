/** Contract of a NodeStore: inboxes (docs: protocol/delivery). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { messageTag, systemRandom } from '@quicprochat/proto';
import type { Fetched } from '../message-store.ts';
import type { NodeStore } from '../store.ts';
import {
  addDevice,
  bigLimits,
  dayMs,
  hex,
  hourMs,
  newRow,
  storeFixture,
  type OpenStore,
} from './fixture.ts';

export function inboxContract(open: OpenStore): void {
  test('rows come back in order with a gapless seq from 1', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const bob = await addDevice(store, 'bob');
    const rows = [newRow(alice), newRow(alice, { kind: 4 }), newRow(alice)];
    for (const row of rows) {
      assert.deepEqual(await store.enqueue(row), {
        outcome: 'stored',
        tag: messageTag(row.mid, row.payload),
        receivedMs: fixture.nowMs,
      });
      await store.enqueue(newRow(bob));
    }
    assert.deepEqual(await fetchAll(store, alice), {
      floor: 1,
      head: 3,
      gap: undefined,
      rows: rows.map(({ mid, kind, payload }, index) => ({
        seq: index + 1,
        mid,
        kind,
        payload,
        receivedMs: fixture.nowMs,
      })),
    });
  });

  test('fetch is bounded by rows and bytes, and returns at least one row', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    for (const size of [10, 10, 10, 500]) {
      await store.enqueue(newRow(alice, { payload: systemRandom.bytes(size) }));
    }
    const seqs = async (after: number, maxRows: number, maxBytes: number): Promise<number[]> =>
      (await store.fetch(alice, after, maxRows, maxBytes)).rows.map(({ seq }) => seq);
    assert.deepEqual(await seqs(0, 2, 1_000), [1, 2]);
    assert.deepEqual(await seqs(0, 9, 25), [1, 2]);
    assert.deepEqual(await seqs(2, 9, 1_000), [3, 4]);
    assert.deepEqual(await seqs(3, 9, 1), [4]);
    assert.deepEqual(await seqs(4, 9, 1_000), []);
    await assert.rejects(store.fetch(alice, 5, 9, 9), { reason: 'BAD_CURSOR' });
    await assert.rejects(store.fetch(alice, 0, 0, 9), { reason: 'BAD_FIELD' });
    await assert.rejects(store.fetch(systemRandom.bytes(32), 0, 9, 9), {
      reason: 'UNKNOWN_DEVICE',
    });
  });

  test('peek shows what fetch returns, without payloads and however large they are', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    for (const size of [10, 100_000, 200_000, 300_000]) {
      await store.enqueue(newRow(alice, { payload: systemRandom.bytes(size) }));
    }
    await store.ack(alice, 1);
    const { rows, ...read } = await store.peek(alice, 0, 1_000);
    assert.deepEqual(
      rows.map(({ seq, size }) => [seq, size]),
      [
        [2, 100_000],
        [3, 200_000],
        [4, 300_000],
      ],
    );
    assert.ok(rows.every((row) => !('payload' in row)));
    const fetched = await store.fetch(alice, 0, 1_000, 1);
    assert.deepEqual({ ...read, rows: [] }, { ...fetched, rows: [] });
    assert.equal((await store.peek(alice, 1, 2)).rows.length, 2);
    assert.deepEqual(await store.peek(alice, 4, 9), {
      floor: 2,
      head: 4,
      gap: undefined,
      rows: [],
    });
    await assert.rejects(store.peek(alice, 5, 9), { reason: 'BAD_CURSOR' });
    await assert.rejects(store.peek(alice, 0, 0), { reason: 'BAD_FIELD' });
    await assert.rejects(store.peek(systemRandom.bytes(32), 0, 9), { reason: 'UNKNOWN_DEVICE' });
  });

  test('a retry is a duplicate, before and after the ack, for 72 hours', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const row = newRow(alice);
    const { receivedMs } = await store.enqueue(row);
    fixture.nowMs += 1_000;
    const duplicate = { outcome: 'duplicate', tag: messageTag(row.mid, row.payload), receivedMs };
    assert.deepEqual(await store.enqueue(row), duplicate);
    await store.ack(alice, 1);
    fixture.nowMs += 72 * hourMs - 1;
    await store.sweep();
    assert.deepEqual(await store.enqueue(row), duplicate);
    assert.equal((await fetchAll(store, alice)).rows.length, 0);
    fixture.nowMs += 1;
    await store.sweep();
    assert.equal((await store.enqueue(row)).outcome, 'stored');
    assert.equal((await fetchAll(store, alice)).rows[0]?.seq, 2);
  });

  test('a mid that somebody else used does not hide a message', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const row = newRow(alice);
    await store.enqueue({ ...row, payload: systemRandom.bytes(10) });
    assert.equal((await store.enqueue(row)).outcome, 'stored');
  });

  test('a full inbox refuses new rows, and no retries', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const rows = Array.from({ length: 8 }, () => newRow(alice, { payload: new Uint8Array(200) }));
    for (const row of rows) await store.enqueue(row);
    const full = { name: 'ResourceExhaustedError', reason: 'QUEUE_FULL' };
    await assert.rejects(store.enqueue(newRow(alice, { payload: new Uint8Array(1) })), full);
    assert.equal((await store.enqueue(rows[3] ?? newRow(alice))).outcome, 'duplicate');
    await store.ack(alice, 1);
    await assert.rejects(store.enqueue(newRow(alice, { payload: new Uint8Array(601) })), full);
    await store.enqueue(newRow(alice, { payload: new Uint8Array(600) }));
    assert.equal((await fetchAll(store, alice)).head, 9);
  });

  test('ack is cumulative, idempotent and never above head', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    for (let index = 0; index < 4; index += 1) await store.enqueue(newRow(alice));
    await store.ack(alice, 3);
    await store.ack(alice, 3);
    await store.ack(alice, 1);
    await assert.rejects(store.ack(alice, 5), {
      name: 'FailedPreconditionError',
      reason: 'BAD_CURSOR',
    });
    const fetched = await fetchAll(store, alice);
    assert.deepEqual(
      { ...fetched, rows: fetched.rows.map(({ seq }) => seq) },
      { floor: 4, head: 4, gap: undefined, rows: [4] },
      'rows that the owner acked are no gap',
    );
    await store.ack(alice, 4);
    assert.deepEqual(await fetchAll(store, alice), { floor: 5, head: 4, gap: undefined, rows: [] });
  });

  test('an expired row is a gap that the reader is told of', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    for (const ttlMs of [hourMs, dayMs, hourMs, dayMs, hourMs]) {
      await store.enqueue(newRow(alice, { ttlMs }));
    }
    fixture.nowMs += hourMs;
    await store.sweep();
    const read = async (after: number): Promise<unknown> => {
      const { floor, gap, rows } = await store.fetch(alice, after, 9, 9_999);
      return { floor, gap, rows: rows.map(({ seq }) => seq) };
    };
    // Rows of one answer have no hole between them; the next one begins with it.
    assert.deepEqual(await read(0), { floor: 2, gap: { from: 1, to: 1 }, rows: [2] });
    assert.deepEqual(await read(2), { floor: 2, gap: { from: 3, to: 3 }, rows: [4] });
    assert.deepEqual(await read(4), { floor: 2, gap: { from: 5, to: 5 }, rows: [] });
    await store.ack(alice, 3);
    assert.deepEqual(await read(0), { floor: 4, gap: undefined, rows: [4] });
  });

  test('an expired row does not come back to life by a retry, and frees its room', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const rows = Array.from({ length: 8 }, () => newRow(alice, { ttlMs: hourMs }));
    for (const row of rows) await store.enqueue(row);
    fixture.nowMs += hourMs;
    await store.sweep();
    assert.equal((await store.enqueue(rows[0] ?? newRow(alice))).outcome, 'duplicate');
    for (let index = 0; index < 8; index += 1) await store.enqueue(newRow(alice));
    assert.equal((await fetchAll(store, alice)).head, 16);
  });

  test('listeners hear of a device once its rows can be fetched, until they are disposed', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const bob = await addDevice(store, 'bob');
    const heard: string[] = [];
    const deaf = store.onRows(() => {
      throw new Error('a listener that fails');
    });
    const listening = store.onRows((ridHex) => heard.push(ridHex));
    const row = newRow(alice);
    await store.enqueue(row);
    await store.enqueue(newRow(bob));
    await store.enqueue(row);
    await assert.rejects(store.enqueue(newRow(systemRandom.bytes(32))));
    await store.ack(alice, 1);
    assert.deepEqual(heard, [hex(alice), hex(bob)]);
    deaf[Symbol.dispose]();
    listening[Symbol.dispose]();
    await store.enqueue(newRow(alice));
    assert.equal(heard.length, 2);
  });

  test('unknown devices and bad arguments are refused before any write', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const refused = (row: Parameters<typeof newRow>[1], reason: string): Promise<void> =>
      assert.rejects(store.enqueue(newRow(alice, row)), { reason });
    await refused({ rid: systemRandom.bytes(32) }, 'UNKNOWN_DEVICE');
    await refused({ rid: systemRandom.bytes(31) }, 'BAD_FIELD');
    await refused({ mid: systemRandom.bytes(15) }, 'BAD_FIELD');
    await refused({ payload: new Uint8Array(512 * 1024 + 1) }, 'TOO_LARGE');
    await store.enqueue(newRow(alice, { payload: new Uint8Array(512 * 1024) }));
    assert.equal((await fetchAll(store, alice)).head, 1);
  });

  test('arguments may be reused once the call was made', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const payload = systemRandom.bytes(50);
    const sent = payload.slice();
    const stored = store.enqueue(newRow(alice, { payload }));
    payload.fill(0);
    await stored;
    assert.deepEqual((await fetchAll(store, alice)).rows[0]?.payload, sent);
  });
}

function fetchAll(store: NodeStore, rid: Uint8Array): Promise<Fetched> {
  return store.fetch(rid, 0, 1_000, 2 ** 20);
}
