/** Contract of a NodeStore: the outbox of a peer (docs: protocol/federation). */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { messageTag, systemRandom } from '@quicprochat/proto';
import type { OutboxRow, Reject } from '@quicprochat/federation';
import type { EnqueueRow } from '../message-store.ts';
import type { NodeStore } from '../store.ts';
import {
  addDevice,
  bigLimits,
  dayMs,
  hex,
  hourMs,
  minuteMs,
  newRow,
  smallLimits,
  storeFixture,
  type OpenStore,
} from './fixture.ts';

const blue = 'blue.example';
const nothing = { requeuedPeers: [], deadRows: 0, dueInMs: undefined };

export function outboxContract(open: OpenStore): void {
  test('rows are numbered by lane and carry the hash chain', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const rid = systemRandom.bytes(32);
    const bulk = [newRow(rid), newRow(rid)];
    const control = newRow(rid, { kind: 4 });
    await send(store, [bulk[0], control, bulk[1]]);
    fixture.nowMs += hourMs;
    let chain: Uint8Array = new Uint8Array(16);
    const expected = bulk.map(({ kind, mid, payload }, index) => {
      chain = chained(chain, messageTag(mid, payload));
      const ttlLeftMs = 30 * dayMs - hourMs;
      return { seq: index + 1, kind, mid, payload, rids: [rid], ttlLeftMs, chain };
    });
    assert.deepEqual(await read(store), expected);
    assert.deepEqual(
      (await store.readOutbox(blue, 'control', 0, 9, 9_999)).map(({ seq, mid }) => [seq, mid]),
      [[1, control.mid]],
    );
    const { streamId, ...stream } = await store.outboundStream(blue, 'bulk');
    assert.deepEqual(stream, { nextSeq: 3, acked: 0, chain: new Uint8Array(16) });
    assert.equal(streamId.length, 16);
    assert.deepEqual((await store.outboundStream(blue, 'bulk')).streamId, streamId);
    assert.notDeepEqual((await store.outboundStream(blue, 'control')).streamId, streamId);
    assert.deepEqual(await store.outboxChainAt(blue, 'bulk', 0), new Uint8Array(16));
    assert.deepEqual(await store.outboxChainAt(blue, 'bulk', 2), chain);
    assert.equal(await store.outboxChainAt(blue, 'bulk', 3), undefined);
  });

  test('reading is bounded by rows and bytes, and returns at least one row', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const rid = systemRandom.bytes(32);
    for (const size of [10, 10, 500]) {
      await send(store, [newRow(rid, { payload: systemRandom.bytes(size) })]);
    }
    const seqs = async (after: number, maxItems: number, maxBytes: number): Promise<number[]> =>
      (await store.readOutbox(blue, 'bulk', after, maxItems, maxBytes)).map(({ seq }) => seq);
    assert.deepEqual(await seqs(0, 2, 9_999), [1, 2]);
    assert.deepEqual(await seqs(0, 9, 20), [1, 2]);
    assert.deepEqual(await seqs(2, 9, 1), [3]);
    assert.deepEqual(await seqs(3, 9, 9_999), []);
    assert.deepEqual(await store.readOutbox('green.example', 'bulk', 0, 9, 9), []);
  });

  test('a retry is not sent twice, but what is sent again after half a day travels once more', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const row = newRow(systemRandom.bytes(32));
    const { receivedMs, tag } = await store.enqueueRemote(blue, row);
    fixture.nowMs += 1_000;
    const duplicate = { outcome: 'duplicate', tag, receivedMs };
    assert.deepEqual(await store.enqueueRemote(blue, row), duplicate);
    await settle(store, 1);
    fixture.nowMs += 12 * hourMs - 1;
    await store.sweep();
    assert.deepEqual(await store.enqueueRemote(blue, row), duplicate);
    assert.deepEqual(await read(store), []);
    const sibling = { ...row, rid: systemRandom.bytes(32) };
    assert.equal((await store.enqueueRemote(blue, sibling)).outcome, 'stored', 'another device');
    assert.equal((await store.enqueueRemote('green.example', row)).outcome, 'stored');
    fixture.nowMs += 1;
    await store.sweep();
    assert.equal((await store.enqueueRemote(blue, row)).outcome, 'stored');
  });

  test('settling deletes what the cursor passed, once, and only for the current stream', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const rid = systemRandom.bytes(32);
    await send(store, [newRow(rid), newRow(rid), newRow(rid)]);
    const rows = await read(store);
    const { streamId } = await store.outboundStream(blue, 'bulk');
    await store.settleOutbox(blue, 'bulk', systemRandom.bytes(16), 2, []);
    assert.equal((await read(store)).length, 3);
    await store.settleOutbox(blue, 'bulk', streamId, 2, []);
    await store.settleOutbox(blue, 'bulk', streamId, 1, [reject(3, rid, false)]);
    assert.deepEqual(await read(store), rows.slice(2));
    const { acked, nextSeq, chain } = await store.outboundStream(blue, 'bulk');
    assert.deepEqual([acked, nextSeq, chain], [2, 4, rows[1]?.chain]);
    assert.deepEqual(await store.outboxChainAt(blue, 'bulk', 2), rows[1]?.chain);
    assert.equal(await store.outboxChainAt(blue, 'bulk', 1), undefined);
    const beyond = store.settleOutbox(blue, 'bulk', streamId, 4, []);
    await assert.rejects(beyond, { name: 'InvalidArgumentError' });
    assert.deepEqual(await store.peersWithRows(), [blue]);
    await settle(store, 3);
    assert.deepEqual(await store.peersWithRows(), []);
  });

  test('a row that is refused for now returns at the tail with a new seq', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const rid = systemRandom.bytes(32);
    const [late, prompt] = [newRow(rid), newRow(rid)];
    await send(store, [late, prompt]);
    await settle(store, 2, [reject(1, rid, true)]);
    assert.deepEqual(await read(store), []);
    assert.deepEqual(await store.peersWithRows(), []);
    assert.equal((await store.enqueueRemote(blue, late)).outcome, 'duplicate');
    fixture.nowMs += 5 * minuteMs - 1;
    assert.deepEqual(await store.requeueDue(), { ...nothing, dueInMs: 1 });
    fixture.nowMs += 1;
    assert.deepEqual(await store.requeueDue(), { ...nothing, requeuedPeers: [blue] });
    assert.deepEqual(
      (await read(store)).map(({ seq, mid }) => [seq, mid]),
      [[3, late.mid]],
    );
    assert.deepEqual(await store.peersWithRows(), [blue]);
    assert.equal((await store.enqueueRemote(blue, prompt)).outcome, 'duplicate');
  });

  test('a row that is refused for good is gone, and may be sent anew', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const row = newRow(systemRandom.bytes(32));
    await send(store, [row]);
    await settle(store, 1, [reject(1, row.rid, false)]);
    fixture.nowMs += dayMs;
    assert.deepEqual(await store.requeueDue(), nothing);
    assert.equal((await store.enqueueRemote(blue, row)).outcome, 'stored');
    assert.equal((await read(store))[0]?.seq, 2);
  });

  test('a kind that the peer does not know is given up after a day', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const row = newRow(systemRandom.bytes(32));
    const unknownKind = (seq: number): Reject => ({
      seq,
      rid: row.rid,
      reason: 'UNIMPLEMENTED',
      temporary: true,
    });
    await send(store, [row]);
    await settle(store, 1, [unknownKind(1)]);
    fixture.nowMs += 5 * minuteMs;
    assert.deepEqual((await store.requeueDue()).requeuedPeers, [blue]);
    fixture.nowMs += dayMs;
    await settle(store, 2, [unknownKind(2)]);
    fixture.nowMs += 5 * minuteMs;
    assert.deepEqual((await store.requeueDue()).requeuedPeers, []);
  });

  test('a restarted stream has a new id and the rows still held from 1', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const rid = systemRandom.bytes(32);
    const rows = Array.from({ length: 5 }, () => newRow(rid));
    await send(store, rows);
    await settle(store, 3, [reject(2, rid, true)]);
    const old = await store.outboundStream(blue, 'bulk');
    const fresh = await store.restartOutbound(blue, 'bulk');
    assert.notDeepEqual(fresh.streamId, old.streamId);
    assert.deepEqual(await store.outboundStream(blue, 'bulk'), fresh);
    assert.deepEqual([fresh.nextSeq, fresh.acked, fresh.chain], [3, 0, new Uint8Array(16)]);
    let chain: Uint8Array = new Uint8Array(16);
    const expected = rows.slice(3).map(({ mid, payload }, index) => {
      chain = chained(chain, messageTag(mid, payload));
      return [index + 1, hex(mid), hex(chain)];
    });
    const held = (await read(store)).map((row) => [row.seq, hex(row.mid), hex(row.chain)]);
    assert.deepEqual(held, expected);
    await store.settleOutbox(blue, 'bulk', old.streamId, 5, []);
    assert.equal((await read(store)).length, 2, 'a reply of the old stream settles nothing');
    fixture.nowMs += 5 * minuteMs;
    await store.requeueDue();
    assert.deepEqual((await read(store)).at(-1)?.mid, rows[1]?.mid);
    assert.deepEqual((await read(store)).at(-1)?.seq, 3);
  });

  test('a row past its ttl or the age limit dies and leaves a hole', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const rid = systemRandom.bytes(32);
    await send(store, [newRow(rid), newRow(rid, { ttlMs: hourMs }), newRow(rid)]);
    fixture.nowMs += hourMs;
    assert.deepEqual(await store.requeueDue(), { ...nothing, deadRows: 1 });
    assert.deepEqual(
      (await read(store)).map(({ seq }) => seq),
      [1, 3],
    );
    await settle(store, 1, [reject(1, rid, true)]);
    fixture.nowMs += 7 * dayMs - hourMs;
    assert.deepEqual(await store.requeueDue(), { ...nothing, deadRows: 2 });
    assert.deepEqual(await read(store), []);
    await send(store, [newRow(rid)]);
    assert.deepEqual(
      (await read(store)).map(({ seq }) => seq),
      [4],
      'the hole shows the sender that it must restart',
    );
    assert.equal((await store.restartOutbound(blue, 'bulk')).nextSeq, 2);
  });

  test('a full outbox refuses new rows, and no retries', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const rid = systemRandom.bytes(32);
    const rows = Array.from({ length: 8 }, () => newRow(rid, { payload: new Uint8Array(200) }));
    await send(store, rows);
    const small = newRow(rid, { payload: new Uint8Array(1) });
    const unreachable = { name: 'UnavailableError', reason: 'PEER_UNREACHABLE' };
    await assert.rejects(store.enqueueRemote(blue, small), unreachable);
    await send(store, [rows[0]]);
    assert.equal((await store.enqueueRemote('green.example', small)).outcome, 'stored');
    await settle(store, 2, [reject(1, rid, true)]);
    await store.enqueueRemote(blue, newRow(rid, { payload: new Uint8Array(600) }));
    await assert.rejects(store.enqueueRemote(blue, small), unreachable, 'bytes');
    await settle(store, 8);
    fixture.nowMs += 7 * dayMs;
    await store.requeueDue();
    for (let index = 0; index < 8; index += 1) {
      await send(store, [newRow(rid, { payload: new Uint8Array(250) })]);
    }
  });

  test('one device holds no more of an outbox than is free for the others, and gets its room back', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const rid = systemRandom.bytes(32);
    const [alice, bob] = [await addDevice(store, 'alice'), await addDevice(store, 'bob')];
    const from = (sender: Uint8Array | undefined, bytes = 100) =>
      store.enqueueRemote(
        blue,
        newRow(rid, { payload: systemRandom.bytes(bytes), ...(sender && { sender }) }),
      );
    const unreachable = { name: 'UnavailableError', reason: 'PEER_UNREACHABLE' };
    // Eight rows in all.
    for (let count = 0; count < 4; count += 1) await from(alice);
    await assert.rejects(from(alice), unreachable);
    assert.equal((await from(bob)).outcome, 'stored');
    assert.equal((await from(bob)).outcome, 'stored');
    await assert.rejects(from(bob), unreachable, 'two more are free');
    assert.equal((await from(undefined)).outcome, 'stored', "what is nobody's has no share");
    const batch = { payloads: [{ mid: systemRandom.bytes(16), payload: new Uint8Array(1) }] };
    const target = { rid, peer: blue, payload: 0 };
    const [refused] = await store.enqueueBatch({
      ...{ ...batch, targets: [target], kind: 1, ttlMs: dayMs, sender: alice },
    });
    assert.equal(refused?.outcome, 'refused');
    await settle(store, 2, [reject(1, rid, false)]);
    await settle(store, 7);
    for (let count = 0; count < 4; count += 1) await from(alice, 200);
    // Of 2 000 bytes, also when there are rows left.
    await settle(store, 11);
    await from(alice, 900);
    await assert.rejects(from(alice, 300), unreachable);
    assert.equal((await from(bob, 300)).outcome, 'stored');
  });

  test('behind a copy that a batch is refused for, it has none for the same device', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const [alice, bob] = [await addDevice(store, 'alice'), await addDevice(store, 'bob')];
    const [carol, dave] = [systemRandom.bytes(32), systemRandom.bytes(32)];
    // Inboxes and outboxes take 2 000 bytes.
    const sizes = [100, 2_000, 10];
    const payloads = sizes.map((size) => {
      return { mid: systemRandom.bytes(16), payload: systemRandom.bytes(size) };
    });
    const copies = [0, 1, 2].map((payload) => ({ payload }));
    const targets = [
      ...copies.map((copy) => ({ ...copy, rid: alice })),
      { payload: 2, rid: bob },
      ...copies.map((copy) => ({ ...copy, rid: carol, peer: blue })),
      { payload: 2, rid: dave, peer: 'green.example' },
    ];
    const outcomes = await store.enqueueBatch({ payloads, targets, kind: 1, ttlMs: dayMs });
    assert.deepEqual(
      outcomes.map((one) => (one.outcome === 'refused' ? one.reason : one.outcome)),
      [
        ...['stored', 'QUEUE_FULL', 'QUEUE_FULL', 'stored'],
        ...['stored', 'PEER_UNREACHABLE', 'PEER_UNREACHABLE', 'stored'],
      ],
    );
    const { rows } = await store.fetch(alice, 0, 9, 9_999);
    assert.deepEqual(
      rows.map(({ mid }) => mid),
      [payloads[0]?.mid],
    );
  });

  test('dial state is kept; a peer that fails for a week gets no new rows', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { nowMs } = fixture;
    assert.deepEqual(await store.peerState(blue), {
      failures: 0,
      nextTryMs: 0,
      failingSinceMs: 0,
    });
    const state = { failures: 3, nextTryMs: nowMs + 5_000, failingSinceMs: nowMs };
    await store.setPeerState(blue, state);
    assert.deepEqual(await store.peerState(blue), state);
    const rid = systemRandom.bytes(32);
    fixture.nowMs += smallLimits.outboxAgeMs - 1;
    await send(store, [newRow(rid)]);
    fixture.nowMs += 1;
    const lost = store.enqueueRemote(blue, newRow(rid));
    await assert.rejects(lost, { reason: 'PEER_UNREACHABLE' });
    await store.setPeerState(blue, { failures: 0, nextTryMs: 0, failingSinceMs: 0 });
    await send(store, [newRow(rid)]);
  });

  test('bad arguments are refused before any write', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const refused = (row: Partial<EnqueueRow>, reason: string): Promise<void> =>
      assert.rejects(store.enqueueRemote(blue, newRow(systemRandom.bytes(32), row)), { reason });
    await refused({ rid: systemRandom.bytes(64) }, 'BAD_FIELD');
    await refused({ mid: systemRandom.bytes(17) }, 'BAD_FIELD');
    await refused({ payload: new Uint8Array(512 * 1024 + 1) }, 'TOO_LARGE');
    assert.deepEqual(await store.peersWithRows(), []);
  });
}

async function send(store: NodeStore, rows: readonly (EnqueueRow | undefined)[]): Promise<void> {
  for (const row of rows) {
    assert.ok(row);
    await store.enqueueRemote(blue, row);
  }
}

function read(store: NodeStore): Promise<OutboxRow[]> {
  return store.readOutbox(blue, 'bulk', 0, 1_000, 2 ** 20);
}

async function settle(store: NodeStore, cursor: number, rejects: Reject[] = []): Promise<void> {
  const { streamId } = await store.outboundStream(blue, 'bulk');
  await store.settleOutbox(blue, 'bulk', streamId, cursor, rejects);
}

function reject(seq: number, rid: Uint8Array, temporary: boolean): Reject {
  return { seq, rid, reason: temporary ? 'QUEUE_FULL' : 'UNKNOWN_DEVICE', temporary };
}

/** chain_n by its definition. */
function chained(chain: Uint8Array, tag: Uint8Array): Uint8Array {
  const digest = createHash('sha256')
    .update(Buffer.concat([chain, tag]))
    .digest();
  return new Uint8Array(digest.subarray(0, 16));
}
