/** Channels and posts in the device store: what is read, what is sealed anew, and who could read it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { messageTag } from '@quicprochat/proto';
import { deadPostVerdict } from '../channels/dead-posts.ts';
import { takeBounce } from '../sending/bounces.ts';
import { encodePost } from '../channels/channel.ts';
import { channelRowBounds } from './channel-rows.ts';
import { outboxBounds } from './outbox-bounds.ts';
import type { OutboxRows } from './outbox-copies.ts';
import { openMemoryStore } from './sqlite-store.ts';

const bytes = (value: number, length = 32): Uint8Array => new Uint8Array(length).fill(value);
const cid = bytes(1);
const other = bytes(2);
const group = bytes(3);
const bob = bytes(4);
const carol = bytes(5);

/** A post of the group's epoch 2 to its channel. */
function addPost(outbox: OutboxRows, mid: Uint8Array, resends = 0): void {
  const about = { kind: 'MESSAGE', groupId: group, epoch: 2n, generation: 1, resends } as const;
  const post = { cid, epoch: 2n, signature: bytes(6, 64) };
  outbox.add(
    {
      ...{ mid, payload: bytes(8, 40), messageId: 1, about },
      targets: [{ rid: cid, domain: 'red.example' }],
      post: { bytes: encodePost(post, ['red.example']), readers: [bob] },
    },
    10,
  );
}

test('a group has one channel; the one before is read until it is forgotten', () => {
  using store = openMemoryStore();
  const { channels, inbox } = store;
  channels.follow(group, undefined, 1);
  assert.deepEqual(channels.all(), []);
  channels.follow(group, cid, 2);
  channels.follow(group, cid, 3);
  assert.deepEqual(channels.all(), [{ cid, groupId: group, leftMs: undefined, isCrowded: false }]);
  channels.follow(group, other, 4);
  assert.equal(channels.get(cid)?.leftMs, 4);
  assert.equal(channels.get(other)?.leftMs, undefined);
  channels.follow(bytes(9), undefined, 5);
  assert.equal(channels.get(other)?.leftMs, undefined, 'another group leaves nothing');
  inbox.putCursor(cid, { storeId: bytes(1, 8), seq: 7 });
  channels.startOver(cid);
  assert.equal(inbox.cursor(cid), undefined);
  inbox.putCursor(cid, { storeId: bytes(1, 8), seq: 7 });
  channels.forget(cid);
  assert.deepEqual([channels.get(cid), inbox.cursor(cid)], [undefined, undefined]);
  channels.follow(group, undefined, 6);
  assert.equal(channels.get(other)?.leftMs, 6);
});

test('a channel that was left is forgotten once nothing can lie there any more', () => {
  using store = openMemoryStore();
  const { channels, inbox } = store;
  const { leftKeptMs } = channelRowBounds;
  channels.follow(group, cid, 1);
  channels.follow(group, other, 2);
  for (const log of [cid, other]) inbox.putCursor(log, { storeId: bytes(1, 8), seq: 7 });
  channels.expire(2 + leftKeptMs);
  assert.equal(channels.all().length, 2);
  channels.expire(3 + leftKeptMs);
  assert.deepEqual(channels.all(), [
    { cid: other, groupId: group, leftMs: undefined, isCrowded: false },
  ]);
  assert.deepEqual([inbox.cursor(cid), inbox.cursor(other)?.seq], [undefined, 7]);
});

test('a post is one row that no device gets, and is sealed anew a bounded number of times', () => {
  using store = openMemoryStore();
  const { outbox, channels, inbox } = store;
  const mid = bytes(7, 16);
  addPost(outbox, mid);
  // It is known when it comes back, and nobody but a member of then may ask for it.
  assert.ok(inbox.hasSeen(messageTag(mid, bytes(8, 40))));
  assert.deepEqual(
    [bob, carol].map((rid) => outbox.wasPostedTo(1, rid)),
    [true, false],
  );
  assert.deepEqual(outbox.undeliveredTargets(0).targets, []);
  const target = Buffer.from(cid).toString('hex');
  assert.equal(outbox.undelivered(target, 0, 'device'), undefined);
  const row = outbox.next(target, 0);
  assert.ok(row !== undefined);
  outbox.markAccepted(row.id, bytes(1, 8), 11);
  assert.equal(outbox.nextDueMs('all'), undefined, 'nobody confirms a post');

  // It waits while the group is where it was sealed, and is sealed anew behind that.
  const epochs = { epoch: (): bigint => epoch };
  let epoch = 2n;
  const verdict = () => deadPostVerdict({ channels, groups: epochs }, row);
  assert.equal(verdict(), 'anew', 'the channel is not the group’s');
  channels.follow(group, cid, 12);
  assert.equal(verdict(), 'waits');
  epoch = 3n;
  assert.equal(verdict(), 'anew');
  assert.equal(
    outbox.returnPosts(mid, other, () => 13),
    0,
  );
  assert.equal(
    outbox.returnPosts(mid, cid, () => 13),
    1,
  );
  // Each node of the channel refuses it for itself: what is due already is not lost by that.
  const again = takeBounce(store, mid, cid, 'BAD_SIGNATURE', 20);
  assert.deepEqual(again, { told: [], hasDue: true, stuck: [] });
  assert.equal(outbox.next(target, 0), undefined);
  assert.deepEqual(
    outbox.due(13, 9).map(({ id }) => id),
    [row.id],
  );
  outbox.replaced(row.id);
  addPost(outbox, bytes(9, 16), outboxBounds.repostsMax);
  const last = outbox.next(target, 0);
  assert.equal(outbox.sealPostAnew(last?.id ?? 0, 14), false);
});

test('a post that came back waits while its group stands where it was sealed, longer each time, and no longer', () => {
  using store = openMemoryStore();
  const { outbox, channels } = store;
  const nowMs = 1_000_000;
  const { repostWaitMinMs, repostWaitMaxMs, repostsMax, resendAfterMs } = outboxBounds;
  let epoch = 2n;
  const around = { outbox, channels, groups: { ...store.groups, epoch: () => epoch } };
  const come = (resends: number) => {
    const mid = bytes(20 + resends, 16);
    addPost(outbox, mid, resends);
    const taken = store.transaction(() => takeBounce(around, mid, cid, 'BAD_SIGNATURE', nowMs));
    const dueMs = outbox.nextDueMs('unsealed');
    for (const { id } of outbox.due(nowMs + repostWaitMaxMs, 9)) outbox.replaced(id);
    return { taken, waitMs: dueMs === undefined ? undefined : dueMs - nowMs };
  };
  channels.follow(group, cid, 1);
  const first = resendAfterMs.length;
  const waits = Array.from({ length: repostsMax - first }, (_, times) => come(first + times));
  assert.deepEqual(
    waits.map(({ waitMs }) => waitMs),
    waits.map((_, times) => Math.min(repostWaitMaxMs, repostWaitMinMs * 2 ** times)),
  );
  // Somebody looks after the channel, and at the group's log.
  for (const { taken } of waits) {
    assert.deepEqual(taken, { told: [], hasDue: true, stuck: [{ groupId: group, cid }] });
  }
  const last = come(repostsMax);
  assert.deepEqual(
    [last.waitMs, last.taken.told.map(({ type }) => type)],
    [undefined, ['bounced']],
    'not for ever',
  );

  epoch = 3n;
  assert.deepEqual(come(8), { taken: { told: [], hasDue: true, stuck: [] }, waitMs: 0 });
  epoch = 2n;
  const mid = bytes(90, 16);
  addPost(outbox, mid, 9);
  store.transaction(() => takeBounce(around, mid, cid, 'BAD_SIGNATURE', nowMs));
  assert.deepEqual(outbox.due(nowMs, 9), []);
  assert.equal(outbox.postsDue(bytes(9), nowMs), 0, 'another group');
  assert.equal(outbox.postsDue(group, nowMs), 1);
  assert.equal(outbox.due(nowMs, 9).length, 1);
  assert.equal(outbox.postsDue(group, nowMs), 0);
});

test('an OK to a post that came back from one of its nodes does not keep it from being sealed anew', () => {
  using store = openMemoryStore();
  const { outbox } = store;
  const mid = bytes(7, 16);
  addPost(outbox, mid);
  const sent = outbox.next(Buffer.from(cid).toString('hex'), 0);
  assert.ok(sent !== undefined);
  // The node has had it since before a crash: a peer's refusal comes first, then the node says DUPLICATE.
  store.transaction(() => takeBounce(store, mid, cid, 'BAD_SIGNATURE', 20));
  assert.equal(outbox.markAccepted(sent.id, bytes(1, 8), 30), false);
  assert.deepEqual(
    outbox.due(30, 8).map(({ id }) => id),
    [sent.id],
  );
});
