/** Contract of a NodeStore: channels, who reads and writes them, and what their log keeps. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  deliveryTokenHash,
  signChannelUpdate,
  signingKeyFromSeed,
  systemRandom,
} from '@quicprochat/proto';
import type { RelayApplied, RelayItemIn } from '@quicprochat/federation';
import type { ChannelPostRow } from '../channel-store.ts';
import type { NodeStore } from '../store.ts';
import { TestGroup } from './channel-group.ts';
import {
  addDevice,
  bigLimits,
  dayMs,
  hex,
  minuteMs,
  newManifest,
  smallLimits,
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

  test('the first update of a channel comes from a hub that it names', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const [alice, bob] = await devices(store, 2);
    const group = new TestGroup([red, blue, 'green.example'], 7);
    const add = [alice, systemRandom.bytes(32)].map((rid) => ({ rid, token: new Uint8Array(0) }));
    const first = group.advance({ add });
    await assert.rejects(store.applyChannelUpdate('evil.example', first), peerDenied);
    await assert.rejects(store.applyChannelUpdate(red, group.advance()), unknownChannel);
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
      sign({ remove: [new Uint8Array(1)] }),
      sign({ add: [{ rid: new Uint8Array(31), token: none }] }),
      sign({ add: [{ rid: new Uint8Array(32), token: new Uint8Array(15) }] }),
      sign({ remove: Array.from({ length: 1_025 }, () => new Uint8Array(32)) }),
    ]) {
      await assert.rejects(store.applyChannelUpdate(red, payload), badField);
    }
    await store.applyChannelUpdate(red, sign({}));
  });

  test('a joiner reads what came after it joined; who is removed reads nothing', async () => {
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
    // A removed subscriber keeps nobody's rows.
    await store.ackChannel(alice, group.cid, 2);
    await store.applyChannelUpdate(red, group.advance({ remove: [bob], removal: true }));
    await store.sweep();
    const { floor } = await store.fetchChannel(alice, { cid: group.cid, after: 2 }, 1, 1);
    assert.equal(floor, 3);
    await assert.rejects(store.fetchChannel(bob, { cid: group.cid, after: 0 }, 1, 1), {
      reason: 'UNKNOWN_CHANNEL',
    });
  });

  test('a full log loses its oldest rows; the slow reader finds the gap, nobody is refused', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 2);
    const [fast, slow] = rids;
    const { cid } = group;
    const posts = Array.from({ length: smallLimits.channelRows + 3 }, () => group.post());
    for (const [index, post] of posts.entries()) {
      assert.equal((await store.postToChannel(post)).outcome, 'stored');
      await store.ackChannel(fast, cid, index + 1);
    }
    const fetched = await store.fetchChannel(slow, { cid, after: 0 }, 99, 99_999);
    assert.deepEqual(fetched.gap, { from: 1, to: 3 });
    assert.equal(fetched.floor, 4);
    assert.deepEqual(
      fetched.rows.map(({ mid }) => hex(mid)),
      midsOf(posts.slice(3)),
    );
    // By bytes too: one large post takes the room of many.
    await store.postToChannel(group.post({ payload: systemRandom.bytes(1_900) }));
    const { rows, gap } = await store.fetchChannel(slow, { cid, after: 3 }, 99, 99_999);
    assert.deepEqual([rows.length, gap], [2, { from: 4, to: 10 }]);
    await store.ackChannel(slow, cid, 12);
    await store.postToChannel(group.post({ payload: systemRandom.bytes(5_000) }));
    assert.equal((await mids(store, group, slow)).length, 1, 'beyond the bound, but alone');
  });

  test('a subscriber that is silent for 30 days keeps no rows, and finds a gap', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 2);
    const [alice, silent] = rids;
    const { cid } = group;
    const ttlMs = 300 * dayMs;
    await store.postToChannel(group.post({ ttlMs }));
    // Reading renews the lease, acked or not.
    for (let day = 0; day < 31; day += 1) {
      fixture.nowMs += dayMs;
      await store.fetchChannel(alice, { cid, after: 0 }, 1, 1);
    }
    const kept = group.post({ ttlMs });
    await store.postToChannel(kept);
    await store.ackChannel(alice, cid, 1);
    await store.sweep();
    const back = await store.fetchChannel(silent, { cid, after: 0 }, 9, 9_999);
    assert.deepEqual([back.gap, back.rows.length], [{ from: 1, to: 1 }, 1]);
    // It is back: rows wait for it again.
    await store.ackChannel(alice, cid, 2);
    assert.deepEqual(await mids(store, group, silent), midsOf([kept]));
  });

  test('with nobody left who reads, posts pass and leave a gap', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 1);
    const [alice] = rids;
    const { cid } = group;
    await store.postToChannel(group.post());
    fixture.nowMs += 31 * dayMs;
    await store.sweep();
    const unread = group.post();
    assert.equal((await store.postToChannel(unread)).outcome, 'stored');
    assert.equal((await store.postToChannel(unread)).outcome, 'duplicate');
    const { gap, rows } = await store.fetchChannel(alice, { cid, after: 0 }, 9, 9_999);
    assert.deepEqual([gap, rows], [{ from: 1, to: 2 }, []]);
    const read = group.post();
    await store.postToChannel(read);
    assert.deepEqual(await mids(store, group, alice), midsOf([read]));
  });

  test('a channel without subscribers is remembered for 30 days', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 1);
    const [alice] = rids;
    const none = new Uint8Array(0);
    await store.postToChannel(group.post());
    await store.applyChannelUpdate(red, group.advance({ remove: [alice] }));
    await store.sweep();
    assert.equal((await store.postToChannel(group.post())).outcome, 'stored');
    // Its keys go on, so that another domain cannot take the channel over.
    const stolen = new TestGroup(['evil.example']);
    const theft = signChannelUpdate(
      stolen.update({ cid: group.cid, add: [{ rid: alice, token: none }] }),
      stolen.writeKey(0),
    );
    await assert.rejects(store.applyChannelUpdate('evil.example', theft), peerDenied);
    const add = [{ rid: alice, token: none }];
    await store.applyChannelUpdate(red, group.advance({ add }));
    assert.deepEqual(await mids(store, group, alice), []);
    await store.applyChannelUpdate(red, group.advance({ remove: [alice] }));
    fixture.nowMs += 31 * dayMs;
    await store.sweep();
    await assert.rejects(store.postToChannel(group.post()), unknownChannel);
  });

  test('a post goes to each other domain once, whatever a repeat names', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 1);
    const [alice] = rids;
    const green = 'green.example';
    const post = group.post({ peers: [blue], denied: ['evil.example'], sender: alice });
    await store.postToChannel(post);
    const again = await store.postToChannel({ ...post, peers: [blue, green] });
    assert.equal(again.outcome, 'duplicate');
    for (const peer of [blue, green]) {
      const [row, second] = await store.readOutbox(peer, 'bulk', 0, 9, 9_999);
      assert.equal(second, undefined);
      assert.deepEqual(
        [row?.rids, row?.channel],
        [[group.cid], { epoch: 0, signature: post.signature }],
      );
    }
    const { rows } = await store.fetch(alice, 0, 9, 9_999);
    assert.deepEqual(
      rows.map(({ kind }) => kind),
      [4],
      'one bounce for the denied domain',
    );
  });

  test('a peer whose outbox is full bounces alone', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 1);
    const [alice] = rids;
    for (let index = 0; index < smallLimits.outboxRowsPerPeer; index += 1) {
      await store.postToChannel(group.post({ peers: [blue], sender: alice }));
    }
    const post = group.post({ peers: [blue, 'green.example'], sender: alice });
    await store.postToChannel(post);
    assert.equal((await store.readOutbox('green.example', 'bulk', 0, 9, 9_999)).length, 1);
    const { rows } = await store.fetch(alice, 0, 99, 99_999);
    assert.deepEqual(
      rows.map(({ kind }) => kind),
      [4],
    );
  });

  test('posts and updates of a peer land once; what it may not send is refused by item', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const [alice] = await devices(store, 1);
    const group = new TestGroup([red]);
    const none = new Uint8Array(0);
    const first = group.advance({ add: [{ rid: alice, token: none }] });
    const good = group.post();
    const itemOf = (post: ChannelPostRow): RelayItemIn => {
      const { kind, mid, payload, ttlMs, cid, epoch, signature } = post;
      return { kind, mid, payload, ttlMs, rids: [cid], channel: { epoch, signature } };
    };
    const updateOf = (payload: Uint8Array): RelayItemIn => ({
      ...itemOf(good),
      ...{ kind: 3, mid: systemRandom.bytes(16), payload },
      channel: { epoch: 0, signature: none },
    });
    const relay = (from: string, lane: 'bulk' | 'control', items: readonly RelayItemIn[]) =>
      store.applyRelay(from, {
        ...{ lane, streamId: new Uint8Array(16), acked: 0, firstSeq: 1 },
        items,
      });
    const verdicts = ({ rejects }: RelayApplied) =>
      rejects.map(({ seq, rid, reason, temporary }) => [seq, hex(rid), reason, temporary]);
    const cid = hex(group.cid);

    // The post outran its update.
    const early = await relay(blue, 'bulk', [itemOf(good)]);
    assert.deepEqual(verdicts(early), [[1, cid, 'UNKNOWN_CHANNEL', true]]);
    const updates = await relay(red, 'control', [
      updateOf(first),
      updateOf(first),
      updateOf(systemRandom.bytes(9)),
      updateOf(signChannelUpdate(group.update({ epoch: 2n }), group.writeKey(9))),
      updateOf(signChannelUpdate(group.update({ epoch: 3n }), group.writeKey(1))),
    ]);
    assert.deepEqual(verdicts(updates), [
      [3, cid, 'BAD_FIELD', false],
      [4, cid, 'BAD_SIGNATURE', false],
      [5, cid, 'UNKNOWN_CHANNEL', true],
    ]);
    const evil = await relay('evil.example', 'control', [updateOf(group.advance())]);
    assert.deepEqual(verdicts(evil), [[1, cid, 'PEER_DENIED', false]]);
    group.epoch = 1;
    const posts = await relay('green.example', 'bulk', [
      itemOf(good),
      itemOf(good),
      itemOf({ ...good, mid: systemRandom.bytes(16) }),
      { ...itemOf(good), refused: { reason: 'TOO_LARGE', temporary: false } },
    ]);
    assert.deepEqual(verdicts(posts), [
      [3, cid, 'BAD_SIGNATURE', false],
      [4, cid, 'TOO_LARGE', false],
    ]);
    assert.deepEqual(await mids(store, group, alice), midsOf([good]));
  });

  test('a post that a peer refused can be sent again as it was', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 1);
    const post = group.post({ peers: [blue], sender: rids[0] });
    await store.postToChannel(post);
    const { streamId } = await store.outboundStream(blue, 'bulk');
    const settle = (seq: number, reason: string, temporary: boolean) =>
      store.settleOutbox(blue, 'bulk', streamId, seq, [{ seq, rid: post.cid, reason, temporary }]);
    await settle(1, 'UNKNOWN_CHANNEL', true);
    fixture.nowMs += smallLimits.deferredRetryMs;
    await store.requeueDue();
    await settle(2, 'BAD_SIGNATURE', false);
    const [letter] = await store.deadLetters(0, 9);
    assert.deepEqual([letter?.rid, letter?.reason], [post.cid, 'BAD_SIGNATURE']);
    await store.retryDead([letter?.id ?? 0]);
    const [row] = await store.readOutbox(blue, 'bulk', 2, 9, 9_999);
    assert.deepEqual(
      [row?.rids, row?.channel, row?.mid],
      [[post.cid], { epoch: 0, signature: post.signature }, post.mid],
    );
    const { rows } = await store.fetch(rids[0], 0, 9, 9_999);
    assert.deepEqual(
      rows.map(({ kind }) => kind),
      [4],
      'its poster is told',
    );
    // A channel that stays unknown is not tried for as long as a full queue.
    await settle(3, 'UNKNOWN_CHANNEL', true);
    fixture.nowMs += dayMs;
    await store.requeueDue();
    await settle(4, 'UNKNOWN_CHANNEL', true);
    assert.equal((await store.deadLetters(0, 9)).length, 1);
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

  test('several logs are read at once, within common bounds', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const first = await channelOf(store, 1);
    const [alice] = first.rids;
    const second = new TestGroup();
    await store.createChannel(alice, second.asNew());
    const inbox = { cid: new Uint8Array(0), after: 0 };
    const positions = [inbox, { cid: first.group.cid, after: 0 }, { cid: second.cid, after: 0 }];
    assert.deepEqual(await store.fetchLogs(alice, positions, 9, 9_999), []);
    for (let index = 0; index < 3; index += 1) {
      await store.postToChannel(first.group.post());
      await store.postToChannel(second.post());
    }
    const read = async (maxRows: number, maxBytes: number) =>
      (await store.fetchLogs(alice, positions, maxRows, maxBytes)).map(({ cid, fetched }) => [
        hex(cid),
        fetched.rows.length,
      ]);
    const [a, b] = [hex(first.group.cid), hex(second.cid)];
    assert.deepEqual(await read(99, 99_999), [
      [a, 3],
      [b, 3],
    ]);
    assert.deepEqual(await read(4, 99_999), [
      [a, 3],
      [b, 1],
    ]);
    assert.deepEqual(await read(99, 399), [[a, 3]]);
    assert.deepEqual(await read(99, 1), [[a, 1]], 'at least one row');
    const tooMuch = [{ cid: systemRandom.bytes(32), after: 0 }];
    await assert.rejects(store.fetchLogs(alice, tooMuch, 9, 9_999), unknownChannel);
  });

  test('headers of a channel come without payloads', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, rids } = await channelOf(store, 1);
    const post = group.post({ payload: systemRandom.bytes(77) });
    await store.postToChannel(post);
    const { rows } = await store.peekChannel(rids[0], { cid: group.cid, after: 0 }, 9);
    assert.deepEqual(
      rows.map(({ seq, mid, kind, size }) => [seq, hex(mid), kind, size]),
      [[1, hex(post.mid), 1, 77]],
    );
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

type Many = readonly [Uint8Array, Uint8Array, Uint8Array];

/** Device keys, ascending; three at most. */
async function devices(store: NodeStore, count: number): Promise<Many> {
  const rids: Uint8Array[] = [];
  for (let index = 0; index < count; index += 1) {
    rids.push(await addDevice(store, `user-${hex(systemRandom.bytes(4))}`));
  }
  // Those that the test did not ask for are nobody's.
  const [a, b, c] = rids.toSorted((x, y) => Buffer.compare(x, y));
  const nobody = new Uint8Array(32);
  return [a ?? nobody, b ?? nobody, c ?? nobody];
}

/** A channel of red with subscribers at the store. */
async function channelOf(
  store: NodeStore,
  count: number,
): Promise<{ readonly group: TestGroup; readonly rids: Many }> {
  const rids = await devices(store, count);
  const group = new TestGroup();
  const [creator, ...others] = rids.slice(0, count);
  await store.createChannel(creator ?? new Uint8Array(32), group.asNew());
  if (others.length > 0) {
    const add = others.map((rid) => ({ rid, token: new Uint8Array(0) }));
    await store.applyChannelUpdate(red, group.advance({ add }));
  }
  return { group, rids };
}

async function mids(store: NodeStore, { cid }: TestGroup, rid: Uint8Array): Promise<string[]> {
  const { rows } = await store.fetchChannel(rid, { cid, after: 0 }, 999, 2 ** 20);
  return rows.map(({ mid }) => hex(mid));
}

function midsOf(posts: readonly ChannelPostRow[]): string[] {
  return posts.map(({ mid }) => hex(mid));
}
