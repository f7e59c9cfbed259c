/** Contract of a NodeStore: what is kept of peers, and what they remember of this store. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import { newAccount, storeFixture, type OpenStore } from './fixture.ts';
import { registerAccount } from './log-batch.ts';

export function peerContract(open: OpenStore): void {
  test('a mark that is ahead of this very store gives it a new id, any other none', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    await registerAccount(store, newAccount('alice'));
    const mark = await store.storeMark();
    const { storeId, commits } = mark;
    assert.deepEqual(storeId, store.storeId);
    assert.ok(commits > 0);
    assert.equal(await store.renewIfBehind(mark), false);
    const other = { storeId: systemRandom.bytes(8), commits: commits + 10 };
    assert.equal(await store.renewIfBehind(other), false);
    assert.deepEqual(store.storeId, storeId);

    assert.equal(await store.renewIfBehind({ storeId, commits: commits + 1 }), true);
    assert.notDeepEqual(store.storeId, storeId);
    const renewed = await store.storeMark();
    assert.deepEqual(renewed, { storeId: store.storeId, commits: commits + 1 });
    assert.equal(await store.renewIfBehind({ storeId, commits: commits + 1_000 }), false);
    await assert.rejects(store.renewIfBehind({ storeId: new Uint8Array(7), commits }), {
      reason: 'BAD_FIELD',
    });
  });

  test("a peer's newest mark is kept, and a smaller one of the same store is not", async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const markOf = (storeId: Uint8Array, commits: number) => ({
      storeId,
      commits,
      proof: systemRandom.bytes(16),
    });
    const first = markOf(systemRandom.bytes(8), 5);
    assert.equal(await store.peerMark('blue.example'), undefined);
    await store.setPeerMark('blue.example', first);
    assert.deepEqual(await store.peerMark('blue.example'), first);
    await store.setPeerMark('blue.example', markOf(first.storeId, 4));
    assert.deepEqual(await store.peerMark('blue.example'), first);
    const newer = markOf(first.storeId, 6);
    await store.setPeerMark('blue.example', newer);
    assert.deepEqual(await store.peerMark('blue.example'), newer);
    const renewed = markOf(systemRandom.bytes(8), 1);
    await store.setPeerMark('blue.example', renewed);
    assert.deepEqual(await store.peerMark('blue.example'), renewed);
    assert.equal(await store.peerMark('green.example'), undefined);
  });
}
