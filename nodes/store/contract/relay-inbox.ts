/** Contract of a NodeStore: the receiving end of a peer's streams (docs: protocol/federation). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import type { RelayApplied, RelayItemIn } from '@quicprochat/federation';
import type { NodeStore } from '../store.ts';
import { addDevice, dayMs, hex, newRow, storeFixture, type OpenStore } from './fixture.ts';

const red = 'red.example';

export function relayInboxContract(open: OpenStore): void {
  test('a batch lands in the inboxes and moves cursor and chain', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const bob = await addDevice(store, 'bob');
    const heard: string[] = [];
    store.onRows((ridHex) => heard.push(ridHex));
    assert.deepEqual(await store.inboundStreams(red), []);
    const relay = new Relay(store);
    const items = [newItem([alice, bob]), newItem([alice])];
    const applied = await relay.send(1, items);
    assert.deepEqual([applied.cursor, applied.rejects], [2, []]);
    assert.deepEqual(
      await mids(store, alice),
      items.map(({ mid }) => hex(mid)),
    );
    assert.deepEqual(await mids(store, bob), [hex(items[0]?.mid ?? new Uint8Array())]);
    assert.deepEqual(heard, [hex(alice), hex(bob)]);
    assert.deepEqual(await store.inboundStreams(red), [
      { lane: 'bulk', streamId: relay.streamId, cursor: 2, chain: applied.chain },
    ]);
    await store.ack(alice, 2);
    assert.deepEqual(await mids(store, bob), [hex(items[0]?.mid ?? new Uint8Array())]);
  });

  test('the chain is that of the sending store', async () => {
    const sender = await storeFixture(open);
    await using _sender = sender.fixture;
    const receiver = await storeFixture(open);
    await using _receiver = receiver.fixture;
    const rid = systemRandom.bytes(32);
    for (let index = 0; index < 5; index += 1) await sender.store.enqueueRemote(red, newRow(rid));
    const rows = await sender.store.readOutbox(red, 'bulk', 0, 9, 9_999);
    const relay = new Relay(receiver.store);
    const items = rows.map(({ mid, payload }) => ({ ...newItem([rid]), mid, payload }));
    await relay.send(1, items.slice(0, 2));
    assert.deepEqual((await relay.send(3, items.slice(2))).chain, rows.at(-1)?.chain);
  });

  test('a repeated or overlapping batch inserts nothing twice', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const relay = new Relay(store);
    const items = Array.from({ length: 4 }, () => newItem([alice]));
    await relay.send(1, items.slice(0, 3));
    const once = await relay.send(1, items.slice(0, 3));
    assert.equal(once.cursor, 3);
    await store.ack(alice, 1);
    const overlapping = await relay.send(2, items.slice(1));
    assert.equal(overlapping.cursor, 4);
    assert.deepEqual(await relay.send(1, items), overlapping);
    assert.deepEqual(
      await mids(store, alice),
      items.slice(1).map(({ mid }) => hex(mid)),
    );
  });

  test('a batch beyond the next seq is refused and changes nothing', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const relay = new Relay(store);
    const gap = { name: 'DataLossError', reason: 'STREAM_GAP' };
    await assert.rejects(relay.send(2, [newItem([alice])]), gap);
    await relay.send(1, [newItem([alice])]);
    await assert.rejects(relay.send(3, [newItem([alice])]), gap);
    const other = new Relay(store);
    await assert.rejects(other.send(2, [newItem([alice])]), gap);
    const [stream] = await store.inboundStreams(red);
    assert.deepEqual([stream?.streamId, stream?.cursor], [relay.streamId, 1]);
    assert.equal((await mids(store, alice)).length, 1);
  });

  test('a new stream starts at 1; what came by the old one is known by its tag', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const items = Array.from({ length: 4 }, () => newItem([alice]));
    await new Relay(store).send(1, [...items.slice(0, 3), newItem([systemRandom.bytes(32)])]);
    await store.ack(alice, 1);
    const fresh = new Relay(store);
    const applied = await fresh.send(1, items);
    assert.deepEqual([applied.cursor, applied.rejects], [4, []]);
    assert.deepEqual(
      await mids(store, alice),
      items.slice(1).map(({ mid }) => hex(mid)),
    );
    const streams = await store.inboundStreams(red);
    assert.deepEqual(
      streams.map(({ streamId, cursor }) => [streamId, cursor]),
      [[fresh.streamId, 4]],
    );
  });

  test('lanes and peers have cursors of their own', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const bulk = new Relay(store);
    const control = new Relay(store, { lane: 'control' });
    const green = new Relay(store, { peer: 'green.example' });
    const item = newItem([alice]);
    for (const relay of [bulk, control, green]) {
      assert.equal((await relay.send(1, [item])).cursor, 1);
    }
    await bulk.send(2, [newItem([alice])]);
    assert.deepEqual(
      (await store.inboundStreams(red)).map(({ lane, cursor }) => [lane, cursor]),
      [
        ['control', 1],
        ['bulk', 2],
      ],
    );
    assert.equal((await mids(store, alice)).length, 2, 'the same message came three times');
  });

  test('rejects are repeated until the sender has settled them', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const stranger = systemRandom.bytes(32);
    const relay = new Relay(store);
    const unknown = { rid: stranger, reason: 'UNKNOWN_DEVICE', temporary: false };
    const first = [newItem([stranger, alice, stranger]), newItem([alice])];
    assert.deepEqual((await relay.send(1, first)).rejects, [{ seq: 1, ...unknown }]);
    assert.deepEqual((await relay.send(1, first)).rejects, [{ seq: 1, ...unknown }]);
    const next = await relay.send(3, [newItem([stranger])]);
    assert.deepEqual(next.rejects, [
      { seq: 1, ...unknown },
      { seq: 3, ...unknown },
    ]);
    const settled = await relay.send(4, [newItem([alice])], 2);
    assert.deepEqual(settled.rejects, [{ seq: 3, ...unknown }]);
    assert.deepEqual((await relay.send(5, [newItem([alice])], 3)).rejects, []);
    assert.equal((await mids(store, alice)).length, 4);
  });

  test('a full inbox is a reject for now, and a refused item one of its own', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    for (let index = 0; index < 7; index += 1) await store.enqueue(newRow(alice));
    const refused = { reason: 'UNIMPLEMENTED', temporary: true };
    const relay = new Relay(store);
    const { cursor, rejects } = await relay.send(1, [
      { ...newItem([alice]), kind: 200, refused },
      newItem([alice]),
      newItem([alice]),
    ]);
    assert.equal(cursor, 3);
    assert.deepEqual(rejects, [
      { seq: 1, rid: alice, ...refused },
      { seq: 3, rid: alice, reason: 'QUEUE_FULL', temporary: true },
    ]);
    assert.equal((await mids(store, alice)).length, 8);
  });

  test('what a local user sent is not doubled by a peer', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const row = newRow(alice);
    await store.enqueue(row);
    const { mid, payload } = row;
    const { rejects } = await new Relay(store).send(1, [{ ...newItem([alice]), mid, payload }]);
    assert.deepEqual(rejects, []);
    assert.equal((await mids(store, alice)).length, 1);
  });

  test('a malformed batch is refused before any write', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const relay = new Relay(store);
    const good = newItem([alice]);
    const bad = { reason: 'BAD_FIELD' };
    await assert.rejects(relay.send(0, [good]), bad);
    await assert.rejects(relay.send(1, [good, { ...good, mid: new Uint8Array(3) }]), bad);
    await assert.rejects(relay.send(1, [good, { ...good, kind: 256 }]), bad);
    await assert.rejects(relay.send(1, [good, newItem([new Uint8Array(31)])]), bad);
    assert.deepEqual(await store.inboundStreams(red), []);
    assert.equal((await mids(store, alice)).length, 0);
  });
}

/** A peer's stream, as its sender drives it. */
class Relay {
  readonly streamId: Uint8Array = systemRandom.bytes(16);
  readonly #store: NodeStore;
  readonly #peer: string;
  readonly #lane: 'control' | 'bulk';

  constructor(
    store: NodeStore,
    { peer = red, lane = 'bulk' }: { peer?: string; lane?: 'control' | 'bulk' } = {},
  ) {
    this.#store = store;
    this.#peer = peer;
    this.#lane = lane;
  }

  send(firstSeq: number, items: readonly RelayItemIn[], acked = 0): Promise<RelayApplied> {
    const { streamId } = this;
    const batch = { lane: this.#lane, streamId, acked, firstSeq, items };
    return this.#store.applyRelay(this.#peer, batch);
  }
}

function newItem(rids: readonly Uint8Array[]): RelayItemIn {
  const { kind, mid, payload } = newRow(new Uint8Array(32));
  return { kind, mid, payload, rids, ttlMs: 30 * dayMs };
}

async function mids(store: NodeStore, rid: Uint8Array): Promise<string[]> {
  return (await store.fetch(rid, 0, 1_000, 2 ** 20)).rows.map(({ mid }) => hex(mid));
}
