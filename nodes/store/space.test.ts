/** Steps of a filling disk: what is refused at each, and what goes on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  addDevice,
  bigLimits,
  newRow,
  storeFixture,
  type StoreFixture,
} from './contract/fixture.ts';
import { TestGroup } from './contract/channel-group.ts';
import { TestCommitter } from './contract/group-committer.ts';
import { openNodeStoreInThread } from './open.ts';
import type { NodeStore } from './store.ts';
import type { DiskLimits } from './store-limits.ts';

const never = 2;
const noStep: DiskLimits = {
  redShare: never,
  fullShare: never,
  lastShare: never,
  freeBytes: Number.POSITIVE_INFINITY,
};

/** A store with one device that has one row, opened again on a disk that is as full as that. */
async function storeOn(
  disk: Partial<DiskLimits>,
): Promise<{ fixture: StoreFixture; store: NodeStore; rid: Uint8Array }> {
  const { fixture, store: before } = await storeFixture(openNodeStoreInThread, bigLimits);
  const rid = await addDevice(before, 'alice');
  await before.enqueue(newRow(rid));
  await before[Symbol.asyncDispose]();
  const limits = { ...bigLimits, disk: { ...noStep, ...disk } };
  return { fixture, store: await fixture.open(openNodeStoreInThread, limits), rid };
}

const full = { name: 'UnavailableError', reason: 'STORE_FULL' };

test('a disk that fills is red, and takes everything', async () => {
  const { fixture, store, rid } = await storeOn({ redShare: 0 });
  await using _ = fixture;
  assert.equal(await store.diskState(), 'red');
  assert.equal((await store.enqueue(newRow(rid))).outcome, 'stored');
});

test('a full disk takes no rows and says when to come back; the rest goes on', async () => {
  const { fixture, store, rid } = await storeOn({ redShare: 0, fullShare: 0 });
  await using _ = fixture;
  assert.equal(await store.diskState(), 'full');
  await assert.rejects(store.enqueue(newRow(rid)), (error: unknown) => {
    assert.ok(error instanceof Error && 'retryAfterMs' in error);
    assert.ok(Number(error.retryAfterMs) > 0);
    return true;
  });
  await assert.rejects(store.enqueueRemote('blue.example', newRow(rid)), full);
  const { mid, payload, kind, ttlMs } = newRow(rid);
  const batch = { payloads: [{ mid, payload }], targets: [{ payload: 0, rid }], kind, ttlMs };
  await assert.rejects(store.enqueueBatch(batch), full);
  await addDevice(store, 'bob');
  await store.ack(rid, 1);
  assert.equal((await store.fetch(rid, 1, 9, 999)).rows.length, 0);
});

test('at the last step accounts stop as well, acks and reads do not', async () => {
  const { fixture, store, rid } = await storeOn({ redShare: 0, fullShare: 0, lastShare: 0 });
  await using _ = fixture;
  assert.equal(await store.diskState(), 'last');
  await assert.rejects(addDevice(store, 'bob'), full);
  await assert.rejects(store.enqueue(newRow(rid)), full);
  assert.equal((await store.fetch(rid, 0, 9, 999)).rows.length, 1);
  await store.ack(rid, 1);
});

test('at the last step an operator still decides over what was given up', async () => {
  const { fixture, store: before } = await storeFixture(openNodeStoreInThread, bigLimits);
  await using _ = fixture;
  const [peer, rid] = ['blue.example', await addDevice(before, 'alice')];
  for (let row = 0; row < 2; row += 1) await before.enqueueRemote(peer, newRow(rid));
  const { streamId } = await before.outboundStream(peer, 'bulk');
  const refused = { rid, reason: 'BLOCKED', temporary: false };
  const rejects = [1, 2].map((seq) => ({ seq, ...refused }));
  await before.settleOutbox(peer, 'bulk', streamId, 2, rejects);
  await before[Symbol.asyncDispose]();
  const disk = { ...noStep, redShare: 0, fullShare: 0, lastShare: 0 };
  const store = await fixture.open(openNodeStoreInThread, { ...bigLimits, disk });
  assert.equal(await store.diskState(), 'last');
  const [first, second] = await store.deadLetters(0, 9);
  assert.deepEqual(await store.retryDead([first?.id ?? 0]), { retried: 1, expired: 0 });
  assert.equal(await store.dropDead([second?.id ?? 0]), 1);
});

test('on a full disk commits still come to their members, posts to a channel do not', async () => {
  const { fixture, store: before } = await storeFixture(openNodeStoreInThread, bigLimits);
  await using _ = fixture;
  const rid = await addDevice(before, 'alice');
  const committer = new TestCommitter();
  const first = committer.newGroup(rid);
  await before.createGroup(first);
  const channel = new TestGroup();
  await before.createChannel(rid, channel.asNew());
  await before[Symbol.asyncDispose]();
  const disk = { ...noStep, redShare: 0, fullShare: 0 };
  const store = await fixture.open(openNodeStoreInThread, { ...bigLimits, disk });
  await assert.rejects(store.postToChannel(channel.post()), full);
  await assert.rejects(store.createChannel(rid, new TestGroup().asNew()), full);
  await assert.rejects(store.createGroup(new TestCommitter().newGroup(rid)), full);
  const targets = [{ rid, token: new Uint8Array(0) }];
  const offer = committer.offer(first.parsed, { targets });
  assert.equal((await store.submitCommit(offer)).isNew, true);
  assert.equal((await store.fetch(rid, 0, 9, 9_999)).rows.length, 1);
  await store[Symbol.asyncDispose]();
  const last = { ...bigLimits, disk: { ...disk, lastShare: 0 } };
  const stopped = await fixture.open(openNodeStoreInThread, last);
  await assert.rejects(stopped.submitCommit(committer.offer(offer.parsed, { targets })), full);
  assert.equal((await stopped.submitCommit(offer)).isNew, false, 'a repeat writes nothing');
});

test('the steps do not count on a disk that is large enough', async () => {
  const { fixture, store, rid } = await storeOn({ redShare: 0, fullShare: 0, freeBytes: 1 });
  await using _ = fixture;
  assert.equal(await store.diskState(), 'ok');
  await store.enqueue(newRow(rid));
});
