/** Contract of a NodeStore: what is kept of peers, and what they remember of this store. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import {
  addDevice,
  newAccount,
  newRow,
  smallLimits,
  storeFixture,
  type OpenStore,
} from './fixture.ts';
import { readPeerRows } from '../peer-view.ts';
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

  test('what is known of the keys of a peer is kept as a whole', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const bytes = systemRandom.bytes(200);
    const held = {
      domain: 'blue.example',
      record: bytes,
      retiredPins: [systemRandom.bytes(32), systemRandom.bytes(32)],
      candidate: bytes.subarray(0, 9),
      candidateSinceMs: fixture.nowMs,
      isFound: true,
    };
    assert.deepEqual(await store.peerRecords(), []);
    await store.putPeerRecord(held);
    assert.deepEqual(await store.peerRecords(), [held]);
    const less = { ...held, retiredPins: [], candidate: undefined, candidateSinceMs: 0 };
    await store.putPeerRecord({ ...less, isFound: false });
    assert.deepEqual(await store.peerRecords(), [{ ...less, isFound: false }]);
    const wrong = { ...held, retiredPins: [new Uint8Array(31)] };
    await assert.rejects(store.putPeerRecord(wrong), { reason: 'BAD_FIELD' });
  });

  test('how a peer was last seen is kept, and read beside the open store', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const note = { seenMs: fixture.nowMs, linkState: 'active', lastError: '', creditItems: 128 };
    await store.setPeerNote('blue.example', note);
    assert.deepEqual(await store.peerNotes(), [{ domain: 'blue.example', ...note }]);
    await store.enqueueRemote('green.example', newRow(systemRandom.bytes(32)));
    const [blue, green] = readPeerRows(fixture.path, fixture.key);
    assert.equal(blue?.linkState, 'active');
    assert.equal(blue.creditItems, 128);
    assert.deepEqual([green?.rows, green?.bytes, green?.oldestMs], [1, 100, fixture.nowMs]);
  });

  test('what waits for a denied peer dies at once, deferred rows too, and others stay', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const sender = await addDevice(store, 'alice');
    const rid = systemRandom.bytes(32);
    for (let row = 0; row < 3; row += 1) {
      await store.enqueueRemote('blue.example', { ...newRow(rid), sender });
    }
    await store.enqueueRemote('green.example', newRow(rid));
    const { streamId } = await store.outboundStream('blue.example', 'bulk');
    const full = { seq: 1, rid, reason: 'QUEUE_FULL', temporary: true };
    await store.settleOutbox('blue.example', 'bulk', streamId, 1, [full]);
    assert.equal(await store.bouncePeer('blue.example'), 3);
    assert.equal(await store.bouncePeer('blue.example'), 0);
    assert.equal(await store.bouncePeer('nobody.example'), 0);
    const dead = await store.deadLetters(0, 10);
    assert.deepEqual(
      dead.map(({ peer, reason }) => [peer, reason]),
      Array.from({ length: 3 }, () => ['blue.example', 'PEER_DENIED']),
    );
    const { rows } = await store.fetch(sender, 0, 10, 10_000);
    assert.equal(rows.length, 3, 'the sender is told of each');
    assert.deepEqual(await store.peersWithRows(), ['green.example']);
  });

  test('a deferred row waits as long as it has waited, from one to ten times the shortest', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { deferredRetryMs } = smallLimits;
    const rid = systemRandom.bytes(32);
    await store.enqueueRemote('blue.example', newRow(rid));
    const waits: number[] = [];
    for (let round = 0; round < 7; round += 1) {
      const { streamId, nextSeq } = await store.outboundStream('blue.example', 'bulk');
      const full = { seq: nextSeq - 1, rid, reason: 'QUEUE_FULL', temporary: true };
      await store.settleOutbox('blue.example', 'bulk', streamId, nextSeq - 1, [full]);
      const sinceMs = fixture.nowMs;
      for (;;) {
        fixture.nowMs += deferredRetryMs;
        if ((await store.requeueDue()).requeuedPeers.length > 0) break;
      }
      waits.push((fixture.nowMs - sinceMs) / deferredRetryMs);
    }
    assert.deepEqual(waits, [1, 1, 2, 4, 8, 10, 10]);
  });
}
