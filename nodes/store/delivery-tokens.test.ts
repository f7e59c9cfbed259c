/** Delivery tokens in the store: what they bound, and what is left of them when a device goes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deliveryTokenHash, systemRandom } from '@quicprochat/proto';
import {
  addDevice,
  bigLimits,
  newAccount,
  newManifest,
  newRow,
  storeFixture,
} from './contract/fixture.ts';
import { commitEffects } from './contract/log-batch.ts';
import { openNodeStoreInThread } from './open.ts';

const strangers = { ...bigLimits, strangerRows: 2 };

test('rows of strangers are counted as long as they lie in the inbox', async () => {
  const { fixture, store } = await storeFixture(openNodeStoreInThread, strangers);
  await using _ = fixture;
  const alice = await addDevice(store, 'alice');
  const token = systemRandom.bytes(16);
  await store.setDeliveryTokens(alice, [deliveryTokenHash(token)]);
  const full = { reason: 'QUEUE_FULL', retryAfterMs: undefined };
  await store.enqueue(newRow(alice, { ttlMs: 1_000 }));
  const kept = newRow(alice);
  await store.enqueue(kept);
  await assert.rejects(store.enqueue(newRow(alice)), full);
  // A repeat is none more.
  assert.equal((await store.enqueue(kept)).outcome, 'duplicate');
  await store.enqueue(newRow(alice, { token }));
  fixture.nowMs += 1_001;
  await store.sweep();
  await store.enqueue(newRow(alice));
  await assert.rejects(store.enqueue(newRow(alice)), full);
  await store.ack(alice, 3);
  await store.enqueue(newRow(alice));
  await assert.rejects(store.enqueue(newRow(alice)), full);
});

test('in a full inbox who has a token gets a time to come back, and other targets their rows', async () => {
  const { fixture, store } = await storeFixture(openNodeStoreInThread, {
    ...strangers,
    inboxRows: 2,
  });
  await using _ = fixture;
  const [alice, bob] = [await addDevice(store, 'alice'), await addDevice(store, 'bob')];
  const token = systemRandom.bytes(16);
  await store.setDeliveryTokens(alice, [deliveryTokenHash(token)]);
  const payloads = [newRow(alice), newRow(alice), newRow(alice)];
  const outcomes = await store.enqueueBatch({
    payloads,
    targets: [
      { payload: 0, rid: alice, token },
      { payload: 1, rid: alice, token },
      { payload: 2, rid: alice, token },
      { payload: 2, rid: alice },
      { payload: 2, rid: bob },
    ],
    kind: 1,
    ttlMs: 60_000,
  });
  const reasons = outcomes.map((one) => (one.outcome === 'refused' ? one.reason : one.outcome));
  assert.deepEqual(reasons, ['stored', 'stored', 'QUEUE_FULL', 'QUEUE_FULL', 'stored']);
  const times = outcomes.map((one) => 'retryAfterMs' in one);
  assert.deepEqual(times, [false, false, true, false, false]);
});

test('a set is refused as a whole, and for a device that is not here', async () => {
  const { fixture, store } = await storeFixture(openNodeStoreInThread, strangers);
  await using _ = fixture;
  const alice = await addDevice(store, 'alice');
  const hashes = Array.from({ length: 9 }, () => systemRandom.bytes(32));
  await assert.rejects(store.setDeliveryTokens(alice, hashes), { reason: 'BAD_FIELD' });
  const short = [systemRandom.bytes(32), systemRandom.bytes(31)];
  await assert.rejects(store.setDeliveryTokens(alice, short), { reason: 'BAD_FIELD' });
  await assert.rejects(store.setDeliveryTokens(systemRandom.bytes(32), []), {
    reason: 'UNKNOWN_DEVICE',
  });
  // Nothing was set: the inbox knows no strangers.
  for (let sent = 0; sent < 5; sent += 1) await store.enqueue(newRow(alice));
});

test('the tokens of a device go with it, and are not those of the next one', async () => {
  const { fixture, store } = await storeFixture(openNodeStoreInThread, strangers);
  await using _ = fixture;
  const account = newAccount('alice');
  await commitEffects(store, { kind: 'register', account });
  const { identityPub } = account.device;
  await store.setDeliveryTokens(identityPub, [systemRandom.bytes(32)]);
  await commitEffects(store, {
    ...{ kind: 'manifest', userId: 'alice', manifest: newManifest(), manifestSeq: 1 },
    dropped: [identityPub],
  });
  // The number of the inbox that went may be the next one's.
  const bob = await addDevice(store, 'bob');
  for (let sent = 0; sent < 5; sent += 1) await store.enqueue(newRow(bob));
});
