/**
 * A Welcome that a hub wrote and that found no room: its committer's device hears of it, at whatever node it is, and
 * nobody else hears of anything.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Reject, RelayItemIn } from '@quicprochat/federation';
import { deliveryTokenHash, RowKind, systemRandom } from '@quicprochat/proto';
import {
  create,
  ExpiredReportSchema,
  fromBinary,
  NoticeSchema,
  NoticeType,
  toBinary,
} from '@quicprochat/proto/messages';
import { addDevice, bigLimits, hex, minuteMs, newRow, storeFixture } from './contract/fixture.ts';
import { TestCommitter } from './contract/group-committer.ts';
import type { GroupTarget, OfferedCommit } from './group-store.ts';
import { openNodeStoreInThread } from './open.ts';
import type { NodeStore } from './store.ts';

const [red, blue, green] = ['red.example', 'blue.example', 'green.example'];
const none = new Uint8Array(0);
const bytes = (length: number): Uint8Array => systemRandom.bytes(length);

/** Red is the hub, bob at blue commits. */
async function rig(stack: AsyncDisposableStack) {
  const limits = { ...bigLimits, strangerRows: 1 };
  const ofRed = await storeFixture(openNodeStoreInThread, limits);
  const ofBlue = await storeFixture(openNodeStoreInThread, limits);
  stack.use(ofRed.fixture);
  stack.use(ofBlue.fixture);
  const [hub, home] = [ofRed.store, ofBlue.store];
  const bob = await addDevice(home, 'bob');
  const group = new TestCommitter(red);
  const first = group.newGroup(await addDevice(hub, 'alice'));
  await hub.createGroup(first);
  /** A Welcome with bob's slip for a device. */
  const welcomeFor = async (rid: Uint8Array, peer?: string, mid = bytes(16)) => {
    const [slip] = await home.welcomeSlips(bob, [{ mid, rid }]);
    assert.ok(slip !== undefined);
    const target: GroupTarget = { rid, token: none, slip, ...(peer === undefined ? {} : { peer }) };
    return { target, mid, welcome: bytes(50) };
  };
  let head = first.parsed;
  const commit = async (changes: Partial<OfferedCommit>): Promise<void> => {
    const offer = group.offer(head, { returnTo: blue, ...changes });
    await hub.submitCommit(offer);
    head = offer.parsed;
  };
  return { hub, home, bob, welcomeFor, commit, clock: ofRed.fixture };
}

/** A device whose inbox has no room for strangers. */
async function crowded(store: NodeStore, name: string): Promise<Uint8Array> {
  const rid = await addDevice(store, name);
  await store.setDeliveryTokens(rid, [deliveryTokenHash(bytes(16))]);
  await store.enqueue(newRow(rid));
  return rid;
}

/** What waits for a peer, as it gets it. */
async function waiting(store: NodeStore, peer: string): Promise<RelayItemIn[]> {
  const rows = await store.readOutbox(peer, 'control', 0, 99, 2 ** 20);
  return rows.map(({ kind, mid, payload, rids, ttlLeftMs: ttlMs }) => {
    return { kind, mid, payload, rids, ttlMs };
  });
}

const apply = (store: NodeStore, peer: string, items: readonly RelayItemIn[]) =>
  store.applyRelay(peer, {
    ...{ lane: 'control', acked: 0, firstSeq: 1, items },
    streamId: bytes(16),
  });

async function bounces(store: NodeStore, rid: Uint8Array): Promise<unknown[]> {
  const { rows } = await store.fetch(rid, 0, 99, 99_999);
  return rows
    .filter(({ kind }) => kind === RowKind.Notice)
    .map(({ payload }) => fromBinary(NoticeSchema, payload))
    .map(({ type, mids, rid: of, reason, domain }) => [
      ...[type, mids.map(hex), hex(of), reason],
      domain,
    ]);
}

async function settle(store: NodeStore, peer: string, rejects: readonly Omit<Reject, 'seq'>[]) {
  const { streamId, nextSeq } = await store.outboundStream(peer, 'control');
  const seq = nextSeq - 1;
  const all = rejects.map((one) => ({ ...one, seq }));
  await store.settleOutbox(peer, 'control', streamId, seq, all);
}

test('one for a device of the hub: told once, however often and by whatever copy of the report', async () => {
  await using stack = new AsyncDisposableStack();
  const { hub, home, bob, welcomeFor, commit } = await rig(stack);
  const carol = await crowded(hub, 'carol');
  const welcome = await welcomeFor(carol);
  await commit({ welcomes: [welcome, await welcomeFor(await addDevice(hub, 'dave'))] });
  const reports = await waiting(hub, blue);
  assert.deepEqual(
    reports.map(({ kind, payload }) => [kind, Buffer.from(payload).includes(Buffer.from(bob))]),
    [[RowKind.ExpiredReport, false]],
  );
  const told = [[NoticeType.BOUNCE, [hex(welcome.mid)], hex(carol), 'QUEUE_FULL', red]];
  for (let times = 0; times < 2; times += 1) {
    assert.deepEqual((await apply(home, red, reports)).rejects, []);
    assert.deepEqual(await bounces(home, bob), told);
  }
});

test('one for devices of a third node: who refused it is told of, also when it was put off before', async () => {
  await using stack = new AsyncDisposableStack();
  const { hub, home, bob, welcomeFor, commit, clock } = await rig(stack);
  const mid = bytes(16);
  const devices = [bytes(32), bytes(32), bytes(32)];
  const welcomes = [];
  for (const rid of devices) welcomes.push(await welcomeFor(rid, green, mid));
  await commit({ welcomes, sharedWelcome: bytes(60) });
  const [here, later, unknown] = devices as [Uint8Array, Uint8Array, Uint8Array];
  const full = (rid: Uint8Array, temporary: boolean) => ({ rid, reason: 'QUEUE_FULL', temporary });
  await settle(hub, green, [
    full(here, false),
    full(later, true),
    { rid: unknown, reason: 'UNKNOWN_DEVICE', temporary: false },
  ]);
  assert.equal((await waiting(hub, blue)).length, 1, 'nothing of the others');
  clock.nowMs += 5 * minuteMs;
  assert.deepEqual((await hub.requeueDue()).requeuedPeers, [green]);
  await settle(hub, green, [full(later, false)]);
  await apply(home, red, await waiting(hub, blue));
  assert.deepEqual(
    await bounces(home, bob),
    [here, later].map((rid) => [NoticeType.BOUNCE, [hex(mid)], hex(rid), 'QUEUE_FULL', red]),
  );
});

test("one for a device of the committer's own node: the stream that it came back by goes on with the report", async () => {
  await using stack = new AsyncDisposableStack();
  const { hub, home, bob, welcomeFor, commit } = await rig(stack);
  const carol = await crowded(home, 'carol');
  const welcome = await welcomeFor(carol, blue);
  await commit({ welcomes: [welcome] });
  const streamId = bytes(16);
  const { rejects } = await home.applyRelay(red, {
    ...{ lane: 'control', acked: 0, firstSeq: 1, streamId },
    items: await waiting(hub, blue),
  });
  assert.deepEqual(
    rejects.map(({ rid, reason }) => [hex(rid), reason]),
    [[hex(carol), 'QUEUE_FULL']],
  );
  await settle(hub, blue, rejects);
  const [report, ...more] = await hub.readOutbox(blue, 'control', 1, 9, 9_999);
  assert.deepEqual([report?.seq, report?.kind, more.length], [2, RowKind.ExpiredReport, 0]);
  const { acked, nextSeq } = await hub.outboundStream(blue, 'control');
  assert.deepEqual([acked, nextSeq], [1, 3]);
  await home.applyRelay(red, {
    ...{ lane: 'control', acked: 1, firstSeq: 2, streamId },
    items: await waiting(hub, blue),
  });
  const told = [NoticeType.BOUNCE, [hex(welcome.mid)], hex(carol), 'QUEUE_FULL', red];
  assert.deepEqual(await bounces(home, bob), [told]);
  await settle(hub, blue, []);
  assert.deepEqual(await waiting(hub, blue), []);
});

test('a slip of something else, or a report with another reason, tells nobody', async () => {
  await using stack = new AsyncDisposableStack();
  const { hub, home, bob, welcomeFor, commit } = await rig(stack);
  await commit({ welcomes: [await welcomeFor(await crowded(hub, 'carol'))] });
  const [report] = await waiting(hub, blue);
  assert.ok(report !== undefined);
  const whole = fromBinary(ExpiredReportSchema, report.payload);
  const { slip, mid, rid } = whole;
  const changed = Uint8Array.from(slip);
  changed[20] = (changed[20] ?? 0) ^ 1;
  await home.enqueueRemote(red, newRow(rid, { sender: bob, mid }));
  const [sent] = await home.readOutbox(red, 'bulk', 0, 9, 9_999);
  const lies = [
    { mid: bytes(16) },
    { rid: bytes(32) },
    { slip: none },
    { slip: changed },
    { slip: sent?.slips?.[0] ?? none },
    { reason: '' },
    { reason: 'UNKNOWN_DEVICE' },
  ];
  for (const lie of lies) {
    const payload = toBinary(
      ExpiredReportSchema,
      create(ExpiredReportSchema, { ...whole, ...lie }),
    );
    await apply(home, red, [{ ...report, payload }]);
  }
  assert.deepEqual(await bounces(home, bob), []);
  // A slip is of one database.
  await apply(hub, red, [report]);
  await apply(home, red, [report]);
  assert.equal((await bounces(home, bob)).length, 1);
});

test('a hub tells its own device itself, also of a commit that another hub brought', async () => {
  await using stack = new AsyncDisposableStack();
  const { hub, welcomeFor, commit } = await rig(stack);
  const erin = await addDevice(hub, 'erin');
  const carol = await crowded(hub, 'carol');
  const mids = [bytes(16), bytes(16)] as const;
  await commit({ sender: erin, welcomes: [await welcomeFor(carol, undefined, mids[0])] });
  const [slip] = await hub.welcomeSlips(erin, [{ mid: mids[1], rid: carol }]);
  assert.ok(slip !== undefined);
  const target = { rid: carol, token: none, slip };
  await commit({ returnTo: red, welcomes: [{ target, mid: mids[1], welcome: bytes(50) }] });
  assert.deepEqual(
    await bounces(hub, erin),
    mids.map((mid) => [NoticeType.BOUNCE, [hex(mid)], hex(carol), 'QUEUE_FULL', '']),
  );
  assert.deepEqual(await waiting(hub, blue), []);
  assert.deepEqual(await hub.welcomeSlips(bytes(32), [{ mid: mids[1], rid: carol }]), []);
});
