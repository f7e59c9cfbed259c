/** Contract of a NodeStore: what the log of a channel keeps, for whom, and what peers send to it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { signChannelUpdate, systemRandom } from '@quicprochat/proto';
import type { RelayApplied, RelayItemIn } from '@quicprochat/federation';
import type { ChannelPostRow } from '../channel-store.ts';
import { TestGroup } from './channel-group.ts';
import { channelOf, devices, mids, midsOf } from './channel-members.ts';
import { bigLimits, dayMs, hex, smallLimits, storeFixture, type OpenStore } from './fixture.ts';

const red = 'red.example';
const blue = 'blue.example';
const unknownChannel = { name: 'NotFoundError', reason: 'UNKNOWN_CHANNEL' };
const peerDenied = { name: 'PermissionDeniedError', reason: 'PEER_DENIED' };

export function channelLogContract(open: OpenStore): void {
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
      await store.postToChannel(group.post({ peers: [blue] }));
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
    // Its update is on its way: it does not wait as long as for room in an inbox.
    assert.equal((await store.requeueDue()).dueInMs, 1_000);
    fixture.nowMs += 1_000;
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
}
