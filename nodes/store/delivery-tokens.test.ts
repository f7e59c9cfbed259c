/** Delivery tokens in the store: what they bound, and what is left of them when a device goes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  deliveryTokenHash,
  maxRenewalsBytes,
  renewalBytes,
  systemRandom,
} from '@quicprochat/proto';
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

test('who has one of the last 64 tokens of before finds what its device left, and is a stranger', async () => {
  const { fixture, store } = await storeFixture(openNodeStoreInThread, strangers);
  await using _ = fixture;
  const [alice, bob] = [await addDevice(store, 'alice'), await addDevice(store, 'bob')];
  const all = Array.from({ length: 66 }, () => systemRandom.bytes(16));
  const renewals = systemRandom.bytes(2 * renewalBytes);
  const tokenAt = (index: number): Uint8Array => all[index] ?? new Uint8Array(16);
  const hashAt = (index: number): Uint8Array => deliveryTokenHash(tokenAt(index));
  const found = async (index: number, rid = alice) => store.tokenRenewals(rid, tokenAt(index));
  // The first one replaces none; every other one wants something for who has the old one.
  assert.equal(await store.setDeliveryTokens(alice, [hashAt(0)], renewals), false);
  assert.equal(await found(0), undefined, 'of the one in force nothing is to be found');
  for (let index = 1; index < 66; index += 1) {
    assert.equal(await store.setDeliveryTokens(alice, [hashAt(index)]), true);
  }
  assert.equal(await found(64), undefined, 'what was left goes with its token');
  assert.equal(await store.setDeliveryTokens(alice, [hashAt(65)], renewals), false);
  for (const index of [64, 30, 1]) {
    assert.deepEqual(await found(index), { hash: hashAt(65), renewals });
  }
  // Older than that, in force, of nobody, of another device.
  for (const index of [0, 65, 66]) assert.equal(await found(index), undefined);
  assert.equal(await found(64, bob), undefined);
  assert.equal(await found(64, systemRandom.bytes(32)), undefined);
  // One that is in force again, as of a device store that was restored, is none of before.
  assert.equal(await store.setDeliveryTokens(alice, [hashAt(64)], renewals), false);
  assert.equal(await found(64), undefined);
  assert.deepEqual((await found(65))?.hash, hashAt(64));
  // Nobody known: with one of before as a stranger, without as nobody.
  const send = async (...tokens: Uint8Array[]): Promise<string[]> => {
    const targets = tokens.map((token, payload) => ({ payload, rid: alice, token }));
    const payloads = tokens.map(() => newRow(alice));
    const batch = { payloads, targets, kind: 1, ttlMs: 60_000, needsTokens: true };
    const outcomes = await store.enqueueBatch(batch);
    return outcomes.map((one) => (one.outcome === 'refused' ? one.reason : one.outcome));
  };
  const past = tokenAt(65);
  assert.deepEqual(await send(past, past, past, tokenAt(64), tokenAt(0)), [
    'stored',
    'stored',
    'QUEUE_FULL',
    'stored',
    'BLOCKED',
  ]);
  // Who is nobody sends to no other node, with whatever token.
  const { mid, payload } = newRow(alice);
  const [away] = await store.enqueueBatch({
    payloads: [{ mid, payload }],
    targets: [{ payload: 0, rid: alice, token: tokenAt(64), peer: 'blue.example' }],
    ...{ kind: 1, ttlMs: 60_000, needsTokens: true },
  });
  assert.equal(away?.outcome === 'refused' && away.reason, 'BLOCKED');
  assert.deepEqual(await store.peersWithRows(), []);
});

test('what is left for others is refused by its size, and nothing is set then', async () => {
  const { fixture, store } = await storeFixture(openNodeStoreInThread, strangers);
  await using _ = fixture;
  const alice = await addDevice(store, 'alice');
  const hashes = [systemRandom.bytes(32)];
  await store.setDeliveryTokens(alice, hashes, new Uint8Array(maxRenewalsBytes));
  for (const bytes of [1, renewalBytes - 1, maxRenewalsBytes + renewalBytes]) {
    const other = store.setDeliveryTokens(alice, [], new Uint8Array(bytes));
    await assert.rejects(other, { reason: 'BAD_FIELD' });
  }
  assert.equal(await store.setDeliveryTokens(alice, hashes), false);
});
