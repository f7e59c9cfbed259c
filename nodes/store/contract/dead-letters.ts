/** Contract of a NodeStore: dead letters as an operator sees, retries and drops them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import type { NodeStore } from '../store.ts';
import { dayMs, hourMs, newRow, storeFixture, type OpenStore } from './fixture.ts';

const blue = 'blue.example';

export function deadLetterContract(open: OpenStore): void {
  test('dead letters are listed page by page with what they were', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const sent = [newRow(systemRandom.bytes(32)), newRow(systemRandom.bytes(32), { ttlMs: dayMs })];
    const createdMs = fixture.nowMs;
    for (const row of sent) await store.enqueueRemote(blue, row);
    fixture.nowMs += hourMs;
    await refuseAll(store, 2);
    const all = await store.deadLetters(0, 9);
    const shared = { peer: blue, kind: 1, bytes: 100, reason: 'BLOCKED', createdMs };
    assert.deepEqual(
      all.map(({ id: _id, ...letter }) => letter),
      sent.map(({ rid, mid, ttlMs }) => {
        return { ...shared, rid, mid, deadMs: fixture.nowMs, expiresMs: createdMs + ttlMs };
      }),
    );
    assert.deepEqual(await store.deadLetters(0, 1), all.slice(0, 1));
    assert.deepEqual(await store.deadLetters(all[0]?.id ?? 0, 9), all.slice(1));
    assert.deepEqual(await store.outboxPeers(), [
      { domain: blue, awaySinceMs: 0, rows: 0, bytes: 0, deadRows: 2, deadBytes: 200 },
    ]);
  });

  test('a retry goes to the tail for the rest of its time; what expired stays', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const [long, brief] = [
      newRow(systemRandom.bytes(32)),
      newRow(systemRandom.bytes(32), { ttlMs: hourMs }),
    ];
    for (const row of [long, brief]) await store.enqueueRemote(blue, row);
    await refuseAll(store, 2);
    fixture.nowMs += hourMs;
    const ids = (await store.deadLetters(0, 9)).map(({ id }) => id);
    assert.deepEqual(await store.retryDead([...ids, 999]), { retried: 1, expired: 1 });
    const rows = await store.readOutbox(blue, 'bulk', 0, 9, 9_999);
    assert.deepEqual(
      rows.map(({ seq, mid, payload, rids, ttlLeftMs }) => ({
        seq,
        mid,
        payload,
        rids,
        ttlLeftMs,
      })),
      [
        {
          seq: 3,
          mid: long.mid,
          payload: long.payload,
          rids: [long.rid],
          ttlLeftMs: 30 * dayMs - hourMs,
        },
      ],
    );
    assert.deepEqual(await store.retryDead(ids), { retried: 0, expired: 1 });
    assert.equal((await store.deadLetters(0, 9)).length, 1);
    assert.deepEqual(await store.peersWithRows(), [blue]);
  });

  test('what its sender sent anew is not doubled by a retry', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const row = newRow(systemRandom.bytes(32));
    await store.enqueueRemote(blue, row);
    await refuseAll(store, 1);
    assert.equal((await store.enqueueRemote(blue, row)).outcome, 'stored');
    const [letter] = await store.deadLetters(0, 9);
    assert.deepEqual(await store.retryDead([letter?.id ?? 0]), { retried: 1, expired: 0 });
    assert.equal((await store.readOutbox(blue, 'bulk', 0, 9, 9_999)).length, 1);
    assert.deepEqual(await store.deadLetters(0, 9), []);
  });

  test('dropping removes them and their count', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    for (let row = 0; row < 3; row += 1)
      await store.enqueueRemote(blue, newRow(systemRandom.bytes(32)));
    await refuseAll(store, 3);
    const [first, second, third] = await store.deadLetters(0, 9);
    assert.equal(await store.dropDead([first?.id ?? 0, third?.id ?? 0, first?.id ?? 0]), 2);
    assert.deepEqual(await store.deadLetters(0, 9), [second]);
    assert.equal((await store.outboxPeers())[0]?.deadRows, 1);
    fixture.nowMs += 30 * dayMs;
    await store.sweep();
    assert.equal((await store.outboxPeers())[0]?.deadRows, 0, 'after 30 days by themselves');
  });

  test('dead letters fill the quota of a peer, but give way to rows', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const rid = systemRandom.bytes(32);
    const send = (): Promise<unknown> =>
      store.enqueueRemote(blue, newRow(rid, { payload: systemRandom.bytes(10) }));
    for (let row = 0; row < 8; row += 1) await send();
    await refuseAll(store, 8);
    const before = await store.deadLetters(0, 99);
    for (let row = 0; row < 3; row += 1) await send();
    assert.deepEqual(await store.deadLetters(0, 99), before.slice(3), 'the oldest go');
    await store.enqueueRemote(blue, newRow(rid, { payload: new Uint8Array(1_930) }));
    const [peer] = await store.outboxPeers();
    assert.ok(peer !== undefined && peer.deadRows > 0);
    assert.equal(peer.bytes + peer.deadBytes, 2_000, 'bytes count like rows');
    await assert.rejects(store.enqueueRemote(blue, newRow(rid, { payload: new Uint8Array(100) })), {
      reason: 'PEER_UNREACHABLE',
    });
    assert.equal((await store.outboxPeers())[0]?.deadRows, peer.deadRows, 'a refusal drops none');
  });
}

/** Refuses all rows of the stream up to `cursor` for good. */
async function refuseAll(store: NodeStore, cursor: number): Promise<void> {
  const { streamId } = await store.outboundStream(blue, 'bulk');
  const rows = await store.readOutbox(blue, 'bulk', 0, 99, 99_999);
  const rejects = rows.flatMap(({ seq, rids }) =>
    rids.map((rid) => ({ seq, rid, reason: 'BLOCKED', temporary: false })),
  );
  await store.settleOutbox(blue, 'bulk', streamId, cursor, rejects);
}
