/** Contract of a NodeStore: channels, and who reads and writes them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  deliveryTokenHash,
  signChannelUpdate,
  signingKeyFromSeed,
  systemRandom,
} from '@quicprochat/proto';
import type { ChannelPostRow } from '../channel-store.ts';
import { TestGroup } from './channel-group.ts';
import { channelOf, devices, mids, midsOf } from './channel-members.ts';
import {
  addDevice,
  bigLimits,
  hex,
  minuteMs,
  newManifest,
  storeFixture,
  type OpenStore,
} from './fixture.ts';
import { commitEffects } from './log-batch.ts';

const red = 'red.example';
const blue = 'blue.example';
const unknownChannel = { name: 'NotFoundError', reason: 'UNKNOWN_CHANNEL' };
const badSignature = { name: 'InvalidArgumentError', reason: 'BAD_SIGNATURE' };
const peerDenied = { name: 'PermissionDeniedError', reason: 'PEER_DENIED' };
const badField = { name: 'InvalidArgumentError', reason: 'BAD_FIELD' };

export function channelContract(open: OpenStore): void {
  test('a channel is made once, for its creator', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const [alice, bob] = await devices(store, 2);
    const group = new TestGroup();
    assert.deepEqual(await store.createChannel(alice, group.asNew()), { wasNew: true });
    assert.deepEqual(await store.createChannel(alice, group.asNew()), { wasNew: false });
    await assert.rejects(store.createChannel(bob, group.asNew()), { reason: 'NAME_TAKEN' });
    assert.deepEqual(await store.channelMembers(alice, group.cid), { rids: [alice], epoch: 0 });
    await assert.rejects(store.channelMembers(bob, group.cid), unknownChannel);
    const nobody = systemRandom.bytes(32);
    const another = new TestGroup();
    await assert.rejects(store.createChannel(nobody, another.asNew()), {
      reason: 'UNKNOWN_DEVICE',
    });
    for (const hubs of [[], [red, blue], [red, red, red], ['RED']]) {
      await assert.rejects(store.createChannel(bob, { ...another.asNew(), hubs }), badField);
    }
    await assert.rejects(
      store.createChannel(bob, { ...another.asNew(), writePub: new Uint8Array(31) }),
      badField,
    );
    await assert.rejects(store.channelMembers(bob, another.cid), unknownChannel);
  });

  test('a post is one row for all subscribers, each with a cursor of its own', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 3);
    const [alice, bob, carol] = rids;
    const heard: string[] = [];
    store.onRows((key) => heard.push(key));
    const posts = [group.post(), group.post(), group.post()];
    for (const post of posts) assert.equal((await store.postToChannel(post)).outcome, 'stored');
    assert.deepEqual(
      heard,
      posts.map(() => hex(group.cid)),
    );
    for (const rid of rids) assert.deepEqual(await mids(store, group, rid), midsOf(posts));
    assert.equal((await store.postToChannel(posts[0] ?? group.post())).outcome, 'duplicate');

    await store.ackChannel(alice, group.cid, 3);
    await store.ackChannel(bob, group.cid, 2);
    assert.deepEqual(await mids(store, group, carol), midsOf(posts), 'the slowest has them all');
    await store.ackChannel(carol, group.cid, 1);
    const fetched = await store.fetchChannel(bob, { cid: group.cid, after: 0 }, 9, 9_999);
    assert.deepEqual([fetched.floor, fetched.head, fetched.gap], [2, 3, undefined]);
    await store.ackChannel(carol, group.cid, 3);
    await store.ackChannel(carol, group.cid, 1);
    await store.ackChannel(bob, group.cid, 3);
    const empty = await store.fetchChannel(bob, { cid: group.cid, after: 3 }, 9, 9_999);
    assert.deepEqual([empty.floor, empty.head, empty.rows.length], [4, 3, 0]);
    assert.equal((await store.postToChannel(posts[1] ?? group.post())).outcome, 'duplicate');
  });

  test('a cursor above the head is refused, and names its channel', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 1);
    const [alice] = rids;
    const { cid } = group;
    const badCursor = (error: Error & { reason?: string; details?: Uint8Array }): boolean =>
      error.reason === 'BAD_CURSOR' && hex(error.details ?? new Uint8Array()) === hex(cid);
    await assert.rejects(store.fetchChannel(alice, { cid, after: 1 }, 1, 1), badCursor);
    await assert.rejects(store.peekChannel(alice, { cid, after: 1 }, 1), badCursor);
    await assert.rejects(store.ackChannel(alice, cid, 1), badCursor);
    await assert.rejects(store.fetchLogs(alice, [{ cid, after: 1 }], 1, 1), badCursor);
  });

  test('who does not subscribe reads nothing and moves nothing', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group } = await channelOf(store, 1);
    await store.postToChannel(group.post());
    const mallory = await addDevice(store, 'mallory');
    const position = { cid: group.cid, after: 0 };
    await assert.rejects(store.fetchChannel(mallory, position, 1, 1), unknownChannel);
    await assert.rejects(store.peekChannel(mallory, position, 1), unknownChannel);
    await assert.rejects(store.ackChannel(mallory, group.cid, 1), unknownChannel);
    await assert.rejects(store.fetchLogs(mallory, [position], 1, 1), unknownChannel);
  });

  test('only a live write key of the channel writes', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 1);
    const { cid } = group;
    const stranger = signingKeyFromSeed(systemRandom.bytes(32));
    const good = group.post();
    const bad: readonly (readonly [ChannelPostRow, object])[] = [
      [group.post({}, stranger), badSignature],
      [{ ...good, payload: systemRandom.bytes(10) }, badSignature],
      [{ ...good, mid: systemRandom.bytes(16) }, badSignature],
      [{ ...good, signature: new Uint8Array(0) }, badSignature],
      [{ ...good, cid: systemRandom.bytes(32) }, unknownChannel],
      [group.post({ epoch: 1 }), unknownChannel],
      [{ ...good, payload: new Uint8Array(512 * 1024 + 1) }, { reason: 'TOO_LARGE' }],
    ];
    for (const [post, refusal] of bad) await assert.rejects(store.postToChannel(post), refusal);
    assert.deepEqual(await mids(store, group, rids[0]), []);

    for (let epoch = 1; epoch <= 3; epoch += 1) {
      await store.applyChannelUpdate(red, group.advance());
    }
    for (const epoch of [1, 2, 3]) await store.postToChannel(group.post({ epoch }));
    await assert.rejects(store.postToChannel(group.post({ epoch: 0 })), badSignature);
    // After a removal older keys have ten minutes.
    await store.applyChannelUpdate(red, group.advance({ removal: true }));
    await store.postToChannel(group.post({ epoch: 3 }));
    const written = group.post({ epoch: 3 });
    await store.postToChannel(written);
    fixture.nowMs += 10 * minuteMs;
    await assert.rejects(store.postToChannel(group.post({ epoch: 3 })), badSignature);
    assert.equal((await store.postToChannel(written)).outcome, 'duplicate', 'a repeat is known');
    await store.postToChannel(group.post({ epoch: 4 }));
    const { head } = await store.fetchChannel(rids[0], { cid, after: 0 }, 1, 1);
    assert.equal(head, 6);
  });

  test('a repeat goes to further domains only when a live key signed it', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const { group } = await channelOf(store, 1);
    const post = group.post();
    await store.postToChannel(post);
    const signature = new Uint8Array(64);
    const forged = await store.postToChannel({ ...post, signature, peers: [blue] });
    assert.equal(forged.outcome, 'duplicate');
    assert.deepEqual(await store.peersWithRows(), []);
    assert.equal((await store.postToChannel({ ...post, peers: [blue] })).outcome, 'duplicate');
    assert.deepEqual(await store.peersWithRows(), [blue]);
  });

  test('the first update of a channel comes from a hub that it names', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const [alice, bob] = await devices(store, 2);
    const group = new TestGroup([red, blue, 'green.example'], 7);
    const add = [alice, systemRandom.bytes(32)].map((rid) => ({ rid, token: new Uint8Array(0) }));
    const first = group.advance({ add });
    await assert.rejects(store.applyChannelUpdate('evil.example', first), peerDenied);
    await assert.rejects(store.applyChannelUpdate(red, group.advance()), unknownChannel);
    // The id says who may begin it: no other domain can, whatever it claims.
    const squat = { add, hubs: ['evil.example'] };
    const otherSeed = { ...squat, seed: systemRandom.bytes(32) };
    for (const claim of [squat, otherSeed]) {
      const forged = signChannelUpdate(group.update(claim), group.writeKey(8));
      await assert.rejects(store.applyChannelUpdate('evil.example', forged), badField);
    }
    await store.applyChannelUpdate(blue, first);
    assert.deepEqual(await store.channelMembers(alice, group.cid), { rids: [alice], epoch: 8 });
    // The next ones from a recorded hub, in order, signed by the epoch before.
    group.epoch = 8;
    const addBob = { add: [{ rid: bob, token: new Uint8Array(0) }] };
    const second = group.advance(addBob);
    await assert.rejects(store.applyChannelUpdate('evil.example', second), peerDenied);
    const forged = signChannelUpdate(
      group.update(addBob),
      signingKeyFromSeed(systemRandom.bytes(32)),
    );
    await assert.rejects(store.applyChannelUpdate(red, forged), badSignature);
    const third = group.advance({ remove: [alice] });
    await assert.rejects(store.applyChannelUpdate(red, third), unknownChannel);
    await store.applyChannelUpdate(red, second);
    await store.applyChannelUpdate(red, second);
    await store.applyChannelUpdate(red, third);
    await store.applyChannelUpdate(red, second);
    assert.deepEqual(await store.channelMembers(bob, group.cid), { rids: [bob], epoch: 10 });
    await assert.rejects(store.channelMembers(alice, group.cid), unknownChannel);
    // Hubs move with an update of the old ones.
    await store.applyChannelUpdate(red, group.advance({ hubs: ['gold.example'] }));
    await assert.rejects(store.applyChannelUpdate(red, group.advance()), peerDenied);
  });

  test('an update that is none is refused', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group } = await channelOf(store, 1);
    group.epoch = 1;
    const sign = (changes: Parameters<TestGroup['update']>[0]) =>
      signChannelUpdate(group.update(changes), group.writeKey(0));
    const none = new Uint8Array(0);
    for (const payload of [
      systemRandom.bytes(40),
      none,
      sign({ cid: new Uint8Array(31) }),
      sign({ hubs: [] }),
      sign({ hubs: [red, blue] }),
      sign({ epoch: 2n ** 60n }),
      sign({ writePub: new Uint8Array(33) }),
      sign({ seed: new Uint8Array(31) }),
      sign({ remove: [new Uint8Array(1)] }),
      sign({ add: [{ rid: new Uint8Array(31), token: none }] }),
      sign({ add: [{ rid: new Uint8Array(32), token: new Uint8Array(15) }] }),
      sign({ remove: Array.from({ length: 1_025 }, () => new Uint8Array(32)) }),
    ]) {
      await assert.rejects(store.applyChannelUpdate(red, payload), badField);
    }
    await store.applyChannelUpdate(red, sign({}));
  });

  test('a joiner reads what came after it joined; who is removed, what came before', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 1);
    const [alice] = rids;
    const before = group.post();
    await store.postToChannel(before);
    const bob = await addDevice(store, 'bob');
    const none = new Uint8Array(0);
    await store.applyChannelUpdate(red, group.advance({ add: [{ rid: bob, token: none }] }));
    const after = group.post();
    await store.postToChannel(after);
    assert.deepEqual(await mids(store, group, bob), midsOf([after]));
    assert.deepEqual(await mids(store, group, alice), midsOf([before, after]));
    await store.ackChannel(alice, group.cid, 2);
    await store.applyChannelUpdate(red, group.advance({ remove: [bob], removal: true }));
    const { cid } = group;
    assert.deepEqual(await store.channelMembers(alice, cid), { rids: [alice], epoch: 2 });
    await assert.rejects(store.channelMembers(bob, cid), unknownChannel);
    await store.postToChannel(group.post());
    const last = await store.fetchChannel(bob, { cid, after: 0 }, 9, 9_999);
    assert.deepEqual([last.head, last.rows.map(({ mid }) => hex(mid))], [2, midsOf([after])]);
    assert.equal((await store.fetchChannel(bob, { cid, after: 2 }, 9, 9_999)).rows.length, 0);
    const badCursor = { reason: 'BAD_CURSOR' };
    await assert.rejects(store.fetchChannel(bob, { cid, after: 3 }, 9, 9_999), badCursor);
    await assert.rejects(store.ackChannel(bob, cid, 3), badCursor);
    // What it has read is kept for nobody.
    await store.ackChannel(bob, cid, 2);
    assert.equal((await store.fetchChannel(alice, { cid, after: 2 }, 1, 1)).floor, 3);
    await assert.rejects(store.fetchChannel(bob, { cid, after: 0 }, 1, 1), unknownChannel);
  });

  test('who is removed and never reads has its lease, and comes back as a joiner', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 3);
    const [alice, bob, carol] = rids;
    const { cid } = group;
    await store.postToChannel(group.post());
    await store.applyChannelUpdate(red, group.advance({ remove: [bob, carol], removal: true }));
    await store.ackChannel(alice, cid, 1);
    const add = [{ rid: carol, token: new Uint8Array(0) }];
    await store.applyChannelUpdate(red, group.advance({ add }));
    const post = group.post();
    await store.postToChannel(post);
    assert.deepEqual(await mids(store, group, carol), midsOf([post]), 'as whoever joins');
    assert.equal((await mids(store, group, bob)).length, 1);
    fixture.nowMs += 31 * 24 * 60 * minuteMs;
    await store.sweep();
    await assert.rejects(store.fetchChannel(bob, { cid, after: 0 }, 1, 1), unknownChannel);
  });

  test('who is taken out and comes back before it has read all is told of a gap, and of no ack', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 2);
    const [alice, bob] = rids;
    const { cid } = group;
    const add = [{ rid: bob, token: new Uint8Array(0) }];
    const fetched = async (after: number) => {
      const { acked, gap, rows } = await store.fetchChannel(bob, { cid, after }, 9, 9_999);
      return [acked, gap, rows.map(({ mid }) => hex(mid))];
    };
    assert.deepEqual(await fetched(0), [0, undefined, []], 'joining is no ack');
    for (let n = 0; n < 2; n += 1) await store.postToChannel(group.post());
    await store.ackChannel(bob, cid, 1);
    await store.applyChannelUpdate(red, group.advance({ remove: [bob], removal: true }));
    await store.postToChannel(group.post());
    await store.applyChannelUpdate(red, group.advance({ add }));
    assert.deepEqual(await fetched(1), [0, { from: 2, to: 3 }, []]);
    const post = group.post();
    await store.postToChannel(post);
    const gap = { from: 2, to: 3 };
    assert.deepEqual(await fetched(1), [0, gap, midsOf([post])]);
    assert.deepEqual(await fetched(3), [0, undefined, midsOf([post])]);
    const none = await store.peekChannel(bob, { cid, after: 0 }, 9);
    assert.equal(none.gap, undefined, 'a store that was never here misses nothing');
    await store.ackChannel(bob, cid, 3);
    assert.deepEqual(await fetched(1), [0, gap, midsOf([post])]);
    await store.ackChannel(bob, cid, 4);
    // Now its own ack speaks: a store that asks for less is an older copy.
    assert.deepEqual((await fetched(1)).slice(0, 2), [4, undefined]);
    await store.ackChannel(alice, cid, 4);
  });

  test('a node whose devices all left takes the group again at a later epoch', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 2);
    const [alice, bob] = rids;
    const { cid } = group;
    const add = [{ rid: alice, token: new Uint8Array(0) }];
    await store.applyChannelUpdate(red, group.advance({ remove: [alice], removal: true }));
    group.advance();
    // Bob is here: an update is missing, and will come.
    await assert.rejects(store.applyChannelUpdate(red, group.advance({ add })), unknownChannel);
    group.epoch -= 2;
    await store.applyChannelUpdate(red, group.advance({ remove: [bob], removal: true }));
    const { epoch } = group;
    group.advance();
    const update = group.advance({ add });
    await assert.rejects(store.applyChannelUpdate(blue, update), peerDenied);
    await assert.rejects(store.applyChannelUpdate(red, group.signed()), unknownChannel);
    const ended = group.signed({ add, writePub: new Uint8Array(0) });
    await assert.rejects(store.applyChannelUpdate(red, ended), unknownChannel);
    const elsewhere = group.signed({ add, seed: systemRandom.bytes(32) });
    await assert.rejects(store.applyChannelUpdate(red, elsewhere), unknownChannel);
    await store.applyChannelUpdate(red, update);
    assert.deepEqual(await store.channelMembers(alice, cid), { rids: [alice], epoch: group.epoch });
    await assert.rejects(store.channelMembers(bob, cid), unknownChannel);
    await assert.rejects(store.postToChannel(group.post({ epoch })), badSignature);
    const post = group.post();
    await store.postToChannel(post);
    assert.deepEqual(await mids(store, group, alice), midsOf([post]));
    await store.applyChannelUpdate(red, group.advance());
  });

  test('a channel ends: nobody writes, members read what was posted, and it begins no more', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 2);
    const [alice, bob] = rids;
    const { cid } = group;
    const post = group.post();
    await store.postToChannel(post);
    const none = new Uint8Array(0);
    const ended = group.advance({ remove: [alice, bob], writePub: none });
    await store.applyChannelUpdate(red, ended);
    for (const epoch of [1, 2]) {
      await assert.rejects(store.postToChannel(group.post({ epoch })), badSignature);
    }
    for (const rid of [alice, bob]) {
      assert.deepEqual(await mids(store, group, rid), midsOf([post]));
      await store.ackChannel(rid, cid, 1);
      await assert.rejects(store.fetchChannel(rid, { cid, after: 0 }, 1, 1), unknownChannel);
    }
    const add = [{ rid: alice, token: none }];
    await assert.rejects(store.applyChannelUpdate(red, group.advance({ add })), badSignature);
    const fresh = new TestGroup();
    const nothing = fresh.advance({ add, writePub: none });
    await assert.rejects(store.applyChannelUpdate(red, nothing), unknownChannel);
  });

  test('a device that leaves keeps nothing in its channels', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const leaving = await addDevice(store, 'leaving@red.example');
    const { group, rids } = await channelOf(store, 1);
    const token = new Uint8Array(0);
    await store.applyChannelUpdate(red, group.advance({ add: [{ rid: leaving, token }] }));
    await store.postToChannel(group.post());
    await store.ackChannel(rids[0], group.cid, 1);
    const userId = 'leaving@red.example';
    const manifest = newManifest();
    await commitEffects(store, { kind: 'close', userId, manifest, manifestSeq: 1 });
    await store.sweep();
    const { floor } = await store.fetchChannel(rids[0], { cid: group.cid, after: 1 }, 1, 1);
    assert.equal(floor, 2);
    const { rids: left } = await store.channelMembers(rids[0], group.cid);
    assert.deepEqual(left, [rids[0]]);
  });

  test('hubs without a token subscribe a device to 50 channels, until it reads them', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const [alice] = await devices(store, 1);
    const token = systemRandom.bytes(16);
    const subscribe = async (given: Uint8Array): Promise<TestGroup> => {
      const group = new TestGroup([blue]);
      await store.applyChannelUpdate(blue, group.advance({ add: [{ rid: alice, token: given }] }));
      return group;
    };
    const none = new Uint8Array(0);
    await store.setDeliveryTokens(alice, [deliveryTokenHash(token)]);
    const strangers: TestGroup[] = [];
    for (let index = 0; index < 50; index += 1) strangers.push(await subscribe(none));
    await assert.rejects(subscribe(none), unknownChannel);
    await subscribe(token);
    await store.fetchChannel(alice, { cid: strangers[0]?.cid ?? none, after: 0 }, 1, 1);
    await subscribe(none);
    await assert.rejects(subscribe(none), unknownChannel);
  });
}
