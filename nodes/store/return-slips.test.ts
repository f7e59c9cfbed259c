/** A message that expires unread at its recipient's node: its sender hears of it, and nobody else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RelayItemIn } from '@quicprochat/federation';
import { RowKind, systemRandom } from '@quicprochat/proto';
import { fromBinary, NoticeSchema, NoticeType, type Notice } from '@quicprochat/proto/messages';
import {
  addDevice,
  bigLimits,
  newRow,
  storeFixture,
  type StoreFixture,
} from './contract/fixture.ts';
import { openNodeStoreInThread } from './open.ts';
import type { NodeStore } from './store.ts';

const names = { red: 'red.example', blue: 'blue.example' } as const;

interface Pair extends AsyncDisposable {
  readonly red: NodeStore;
  readonly blue: NodeStore;
  readonly fixtures: readonly [StoreFixture, StoreFixture];
  readonly alice: Uint8Array;
  readonly bob: Uint8Array;
}

async function pair(): Promise<Pair> {
  const { fixture: redFixture, store: red } = await storeFixture(openNodeStoreInThread, bigLimits);
  const { fixture: blueFixture, store: blue } = await storeFixture(
    openNodeStoreInThread,
    bigLimits,
  );
  return {
    red,
    blue,
    fixtures: [redFixture, blueFixture],
    alice: await addDevice(red, 'alice'),
    bob: await addDevice(blue, 'bob'),
    async [Symbol.asyncDispose]() {
      await redFixture[Symbol.asyncDispose]();
      await blueFixture[Symbol.asyncDispose]();
    },
  };
}

/** What waits in a lane, as the other side gets it. */
async function waiting(
  store: NodeStore,
  peer: string,
  lane: 'bulk' | 'control',
): Promise<RelayItemIn[]> {
  const rows = await store.readOutbox(peer, lane, 0, 9, 99_999);
  return rows.map(({ kind, mid, payload, rids, ttlLeftMs: ttlMs, slips }) => {
    return { kind, mid, payload, rids, ttlMs, ...(slips === undefined ? {} : { slips }) };
  });
}

const apply = (
  store: NodeStore,
  peer: string,
  lane: 'bulk' | 'control',
  items: readonly RelayItemIn[],
) =>
  store.applyRelay(peer, {
    ...{ lane, acked: 0, firstSeq: 1, items },
    streamId: systemRandom.bytes(16),
  });

async function noticesOf(store: NodeStore, rid: Uint8Array): Promise<Notice[]> {
  const { rows } = await store.fetch(rid, 0, 99, 99_999);
  return rows
    .filter(({ kind }) => kind === RowKind.Notice)
    .map(({ payload }) => fromBinary(NoticeSchema, payload));
}

/** Alice's message lies at blue until it expires; returns what blue has to say about it. */
async function expire({ red, blue, fixtures, alice, bob }: Pair): Promise<RelayItemIn[]> {
  await red.enqueueRemote(names.blue, newRow(bob, { sender: alice, ttlMs: 60_000 }));
  await apply(blue, names.red, 'bulk', await waiting(red, names.blue, 'bulk'));
  for (const fixture of fixtures) fixture.nowMs += 60_001;
  await blue.sweep();
  return waiting(blue, names.red, 'control');
}

test('the sending device gets a notice, once, however often it is told', async () => {
  await using both = await pair();
  const { red, alice, bob } = both;
  const reports = await expire(both);
  assert.equal(reports.length, 1);
  for (let times = 0; times < 2; times += 1) {
    assert.deepEqual((await apply(red, names.blue, 'control', reports)).rejects, []);
  }
  const [notice, second] = await noticesOf(red, alice);
  assert.equal(second, undefined);
  assert.equal(notice?.type, NoticeType.EXPIRED);
  assert.deepEqual([notice.rid, notice.domain], [new Uint8Array(bob), names.blue]);
  assert.equal(notice.mids.length, 1);
});

test('blue holds nothing by which it could know the sender, and two slips are not alike', async () => {
  await using both = await pair();
  const { red, bob, alice } = both;
  for (let sent = 0; sent < 2; sent += 1) {
    await red.enqueueRemote(names.blue, newRow(bob, { sender: alice }));
  }
  const [first, second] = (await waiting(red, names.blue, 'bulk')).map(({ slips }) => slips?.[0]);
  assert.ok(first !== undefined && second !== undefined);
  assert.notDeepEqual(first, second);
  for (const slip of [first, second]) {
    assert.equal(Buffer.from(slip).includes(Buffer.from(alice.subarray(0, 8))), false);
  }
});

test('a report of another peer, of another message or without its slip tells nobody', async () => {
  await using both = await pair();
  const { red, alice } = both;
  const [report] = await expire(both);
  assert.ok(report !== undefined);
  await apply(red, 'green.example', 'control', [report]);
  // In mid, tag, device, and the three parts of the slip.
  for (const at of [5, 25, 45, 75, 95, 120]) {
    const payload = Uint8Array.from(report.payload);
    payload[at] = (payload[at] ?? 0) ^ 1;
    await apply(red, names.blue, 'control', [{ ...report, payload }]);
  }
  await apply(red, names.blue, 'control', [{ ...report, payload: systemRandom.bytes(40) }]);
  assert.deepEqual(await noticesOf(red, alice), []);
  await apply(red, names.blue, 'control', [report]);
  assert.equal((await noticesOf(red, alice)).length, 1);
});

test('a message without a sender has no slip, and what is read in time is not reported', async () => {
  await using both = await pair();
  const { red, blue, fixtures, alice, bob } = both;
  await red.enqueueRemote(names.blue, newRow(bob, { ttlMs: 60_000 }));
  await red.enqueueRemote(names.blue, newRow(bob, { sender: alice, ttlMs: 60_000 }));
  const items = await waiting(red, names.blue, 'bulk');
  assert.deepEqual(
    items.map(({ slips }) => slips === undefined),
    [true, false],
  );
  await apply(blue, names.red, 'bulk', items);
  await blue.ack(bob, 2);
  for (const fixture of fixtures) fixture.nowMs += 60_001;
  await blue.sweep();
  assert.deepEqual(await waiting(blue, names.red, 'control'), []);
});
