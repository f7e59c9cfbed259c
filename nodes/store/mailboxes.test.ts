/** Mailboxes in the store: who gets one, what it holds, when it goes, and what a crash leaves of it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { deliveryTokenHash, systemRandom } from '@quicprochat/proto';
import { CrashableStore } from './contract/crashable.ts';
import {
  addDevice,
  bigLimits,
  dayMs,
  newRow,
  storeFixture,
  StoreFixture,
} from './contract/fixture.ts';
import { openNodeStoreInThread } from './open.ts';
import type { MailboxLimits, WantedMailbox } from './mailbox-store.ts';
import type { NodeStore } from './store.ts';

const mailboxes: MailboxLimits = {
  ...{ places: 4, perDomain: 3, perUser: 2, rows: 6, strangerRows: 2, bytes: 10_000 },
  lifetimeMs: 7 * dayMs,
};
const limits = { ...bigLimits, mailboxes };
const token: Uint8Array = systemRandom.bytes(16);

function wanted(
  userId = 'bob@blue.example',
  rid: Uint8Array = systemRandom.bytes(32),
): WantedMailbox {
  const domain = userId.slice(userId.indexOf('@') + 1);
  return { rid, userId, domain, tokenHashes: [deliveryTokenHash(token)] };
}
async function granted(store: NodeStore, userId?: string): Promise<Uint8Array> {
  const one = wanted(userId);
  await store.grantMailbox(one);
  return one.rid;
}
const held = async (store: NodeStore, rid: Uint8Array): Promise<number> =>
  (await store.fetchMailbox(rid, 0, 100, 1e6)).rows.length;

describe('a place', () => {
  test('is bounded by user, domain and node; who has one keeps it; time frees it', async () => {
    const { fixture, store } = await storeFixture(openNodeStoreInThread, limits);
    await using _ = fixture;
    const full = { reason: 'QUOTA' };
    const bob = wanted('bob@blue.example');
    await store.grantMailbox(bob);
    await granted(store, 'bob@blue.example');
    await assert.rejects(granted(store, 'bob@blue.example'), full);
    await granted(store, 'eve@blue.example');
    await assert.rejects(granted(store, 'kim@blue.example'), full);
    await granted(store, 'kim@green.example');
    await assert.rejects(granted(store, 'dan@grey.example'), full);
    fixture.nowMs += 6 * dayMs;
    await store.grantMailbox(bob);
    fixture.nowMs += dayMs;
    // The three that were not asked for again are over, swept or not.
    await granted(store, 'dan@grey.example');
    await granted(store, 'eve@blue.example');
    assert.equal(await held(store, bob.rid), 0);
    fixture.nowMs += 6 * dayMs;
    await assert.rejects(held(store, bob.rid), { reason: 'UNKNOWN_DEVICE' });
  });

  test('that is given back is free at once, and what lay in it is gone for good', async () => {
    const { fixture, store } = await storeFixture(openNodeStoreInThread, limits);
    await using _ = fixture;
    const bob = wanted('bob@blue.example');
    await store.grantMailbox(bob);
    const other = await granted(store, 'bob@blue.example');
    await assert.rejects(granted(store, 'bob@blue.example'), { reason: 'QUOTA' });
    for (const rid of [bob.rid, other]) await store.enqueue(newRow(rid));
    const { storeId } = await store.fetchMailbox(bob.rid, 0, 1, 1e6);
    await store.endMailbox(bob.rid);
    await assert.rejects(held(store, bob.rid), { reason: 'UNKNOWN_DEVICE' });
    await assert.rejects(store.enqueue(newRow(bob.rid)), { reason: 'UNKNOWN_DEVICE' });
    await store.endMailbox(bob.rid);
    await granted(store, 'bob@blue.example');
    await store.endMailbox(other);
    await store.grantMailbox(bob);
    const anew = await store.fetchMailbox(bob.rid, 0, 1, 1e6);
    assert.deepEqual([anew.rows.length, anew.head], [0, 0]);
    assert.notDeepEqual(anew.storeId, storeId);
    await assert.rejects(store.endMailbox(new Uint8Array(3)), { reason: 'BAD_FIELD' });
  });

  test('there is none where the node has no such limits, or none of them', async () => {
    for (const none of [bigLimits, { ...limits, mailboxes: { ...mailboxes, places: 0 } }]) {
      const { fixture, store } = await storeFixture(openNodeStoreInThread, none);
      await using _ = fixture;
      await assert.rejects(granted(store), { reason: 'FEATURE_OFF' });
    }
  });
});

describe('rows', () => {
  test('are bounded, more so of strangers and never by what an inbox may hold', async () => {
    const { fixture, store } = await storeFixture(openNodeStoreInThread, limits);
    await using _ = fixture;
    const rid = await granted(store);
    await store.enqueue(newRow(rid));
    await store.enqueue(newRow(rid));
    const forGood = { reason: 'QUEUE_FULL', retryAfterMs: undefined };
    await assert.rejects(store.enqueue(newRow(rid)), forGood);
    const known = newRow(rid, { token });
    await store.enqueue(known);
    assert.equal((await store.enqueue(known)).outcome, 'duplicate');
    const large = newRow(rid, { token, payload: new Uint8Array(10_000) });
    await assert.rejects(store.enqueue(large), { reason: 'QUEUE_FULL' });
    for (let n = 0; n < 3; n += 1) await store.enqueue(newRow(rid, { token }));
    await assert.rejects(store.enqueue(newRow(rid, { token })), { reason: 'QUEUE_FULL' });
    const { rows, storeId } = await store.fetchMailbox(rid, 0, 100, 1e6);
    assert.deepEqual(
      rows.map(({ seq }) => seq),
      [1, 2, 3, 4, 5, 6],
    );
    await store.ackMailbox(rid, storeId, 6);
    await store.enqueue(newRow(rid, { token }));
    // Acked is not forgotten: what comes once more is no new row.
    assert.equal((await store.enqueue(known)).outcome, 'duplicate');
    assert.equal(await held(store, rid), 1);
  });

  test('of strangers fill no more than half of its bytes, however large they are', async () => {
    const { fixture, store } = await storeFixture(openNodeStoreInThread, limits);
    await using _ = fixture;
    const rid = await granted(store);
    const large = (bytes: number) => newRow(rid, { payload: new Uint8Array(bytes) });
    const full = { reason: 'QUEUE_FULL' };
    await assert.rejects(store.enqueue(large(5_001)), full);
    await store.enqueue(large(5_000));
    await assert.rejects(store.enqueue(large(1)), full);
    await store.enqueue({ ...large(5_000), token });
    assert.equal(await held(store, rid), 2);
  });

  test('come from who has a token without a login, and from no peer', async () => {
    const { fixture, store } = await storeFixture(openNodeStoreInThread, limits);
    await using _ = fixture;
    const rid = await granted(store);
    const send = async (one: Uint8Array): Promise<string | undefined> => {
      const { mid, payload } = newRow(rid);
      const [outcome] = await store.enqueueBatch({
        payloads: [{ mid, payload }],
        targets: [{ payload: 0, rid, token: one }],
        ...{ kind: 1, ttlMs: 60_000, needsTokens: true },
      });
      return outcome?.outcome === 'refused' ? outcome.reason : outcome?.outcome;
    };
    assert.equal(await send(token), 'stored');
    assert.equal(await send(systemRandom.bytes(16)), 'BLOCKED');
    // Somebody is blocked: the set is another one from the moment it is told.
    await store.grantMailbox({ ...wanted(undefined, rid), tokenHashes: [] });
    assert.equal(await send(token), 'BLOCKED');
    // It is no inbox: methods for devices of this node do not see it.
    for (const native of [
      store.fetch(rid, 0, 1, 1),
      store.setDeliveryTokens(rid, []),
      store.ack(rid, 1),
    ])
      await assert.rejects(native, { reason: 'UNKNOWN_DEVICE' });
    assert.equal(await store.opensInbox(rid, token), false);
  });

  test('go by their own time, seven days at most, without a word to their sender', async () => {
    const { fixture, store } = await storeFixture(openNodeStoreInThread, limits);
    await using _ = fixture;
    const sender = await addDevice(store, 'alice');
    const one = wanted();
    await store.grantMailbox(one);
    const row = (ttlMs: number) => ({ ...newRow(one.rid, { token, ttlMs }), sender });
    await store.enqueue(row(dayMs));
    await store.enqueue(row(30 * dayMs));
    fixture.nowMs += 2 * dayMs;
    await store.sweep();
    await store.grantMailbox(one);
    const { rows, gap } = await store.fetchMailbox(one.rid, 0, 10, 1e6);
    assert.deepEqual([rows.map(({ seq }) => seq), gap], [[2], { from: 1, to: 1 }]);
    fixture.nowMs += 5 * dayMs;
    await store.sweep();
    assert.equal(await held(store, one.rid), 0);
    assert.equal((await store.fetch(sender, 0, 10, 1e6)).rows.length, 0);
  });
});

test('a mailbox that is made anew is another one, and nothing of the old one is left', async () => {
  const { fixture, store } = await storeFixture(openNodeStoreInThread, limits);
  await using _ = fixture;
  const one = wanted();
  await store.grantMailbox(one);
  const row = newRow(one.rid, { token, ttlMs: 7 * dayMs });
  await store.enqueue(row);
  const before = await store.fetchMailbox(one.rid, 0, 10, 1e6);
  await assert.rejects(store.ackMailbox(one.rid, systemRandom.bytes(8), 1), {
    reason: 'STORE_CHANGED',
  });
  await assert.rejects(store.ackMailbox(one.rid, before.storeId, 2), { reason: 'BAD_CURSOR' });
  fixture.nowMs += 7 * dayMs;
  // Not swept yet, and asked for again.
  await store.grantMailbox(one);
  const after = await store.fetchMailbox(one.rid, 0, 10, 1e6);
  assert.deepEqual([after.rows, after.head], [[], 0]);
  assert.notDeepEqual(after.storeId, before.storeId);
  await assert.rejects(store.ackMailbox(one.rid, before.storeId, 0), { reason: 'STORE_CHANGED' });
  assert.equal((await store.enqueue(row)).outcome, 'stored');
  fixture.nowMs += 7 * dayMs;
  await store.sweep();
  await assert.rejects(store.enqueue(newRow(one.rid, { token })), { reason: 'UNKNOWN_DEVICE' });
});

test('a crash leaves a mailbox with its tokens and rows, or none', async () => {
  await using fixture = new StoreFixture();
  await using crashable = await CrashableStore.create(fixture, limits);
  const one = wanted();
  await crashable.store.grantMailbox(one);
  await crashable.crash();
  const { storeId } = await crashable.store.fetchMailbox(one.rid, 0, 10, 1e6);
  const row = newRow(one.rid, { token });
  await crashable.store.enqueue(row);
  await crashable.crash();
  assert.equal((await crashable.store.enqueue(row)).outcome, 'duplicate');
  const fetched = await crashable.store.fetchMailbox(one.rid, 0, 10, 1e6);
  assert.deepEqual([fetched.rows.length, fetched.storeId], [1, storeId]);
  await crashable.store.ackMailbox(one.rid, storeId, 1);
  await crashable.crash();
  assert.equal(await held(crashable.store, one.rid), 0);
});
