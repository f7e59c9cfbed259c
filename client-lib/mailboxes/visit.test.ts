/**
 * One visit to a mailbox at a node that does what it likes: rows are taken in once and only where they prove
 * themselves, whatever order or number they come under, and no visit goes on for ever.
 */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { methods, RowKind, TransportError, verifyGuestProof } from '@quicprochat/proto';
import { sealChannel } from '../crypto/envelope.ts';
import { receiverLimits } from '../receiving/receiver.ts';
import { assertHas, type TestDevice } from '../test-devices.ts';
import { testRuntime } from '../test-runtime.ts';
import { MailboxScene, nodeSpki, numbered, type LyingNode, type Sent } from './test-mailbox.ts';

const { random, clock } = testRuntime;
let scene: MailboxScene;
let bob: TestDevice;
let id: Uint8Array;
let node: LyingNode;

beforeEach(async () => {
  scene = await MailboxScene.make();
  ({ bob, id, node } = scene);
});

test('a visit proves the device to this node alone, takes everything in, and then says so', async () => {
  const rows = await scene.sent('one', 'two');
  node.rows = numbered(rows);
  await scene.visit();
  assertHas(bob, id, ['one', 'two']);
  assert.deepEqual([node.acked.at(-1), scene.cursor()], [2, 2]);
  assert(node.asked !== undefined);
  const { issuedMs, signature, device } = node.asked;
  const binding = { clientSpki: node.clientSpki, nodeSpki, issuedMs: Number(issuedMs) };
  assert.deepEqual(device, bob.rid);
  assert(verifyGuestProof(binding, signature, bob.rid, clock.now()));
  assert(!verifyGuestProof({ ...binding, nodeSpki: bob.rid }, signature, bob.rid, clock.now()));
  const vias = bob.history(id).map(({ via }) => via);
  assert.deepEqual(vias, ['mailbox', 'mailbox']);
  // The own node brings the same bytes: they are known.
  for (const row of rows) await bob.receive(row);
  assertHas(bob, id, ['one', 'two']);
});

test('rows that are doubled, reordered, missing or old do no harm, and make no circle', async () => {
  const [one, two, three] = numbered(await scene.sent('one', 'two', 'three'));
  assert(one !== undefined && two !== undefined && three !== undefined);
  node.rows = [three];
  node.fetched = (after) => (after < 3 ? [three, one, one, three] : []);
  await scene.visit();
  assertHas(bob, id, ['three']);
  // What was left out comes by another way; numbers that were passed are no new rows.
  node.fetched = () => [one, two];
  await assert.rejects(scene.visit(), { failure: 'protocol' });
  assertHas(bob, id, ['three']);
  for (const row of [one, two, three]) await bob.receive(row);
  assertHas(bob, id, ['one', 'two', 'three']);
});

test('what is not for this device, or is no message, leaves nothing but a cursor', async () => {
  const [one] = await scene.sent('one');
  assert(one !== undefined);
  const junk = (): Sent => ({ mid: random.bytes(16), payload: random.bytes(200) });
  const broken = one.payload.map((byte, at) => (at === one.payload.length - 1 ? byte ^ 1 : byte));
  const foreign = numbered([junk(), { mid: one.mid, payload: broken }, junk()]);
  // Notices and commits are words of the own node and of hubs.
  const official = [RowKind.Notice, RowKind.GroupControl, RowKind.ChannelUpdate, 99].map(
    (kind, index) => ({ ...junk(), kind, seq: 4 + index }),
  );
  node.rows = [...foreign, ...official];
  await scene.visit();
  assert.equal(scene.cursor(), 7);
  assert.deepEqual(bob.store.inbox.undecryptable(), []);
  assert.equal(bob.store.inbox.parkedSize('all').rows, 0);
  await bob.receive(one);
  assertHas(bob, id, ['one']);
});

test('what would wait for keys for ever has few places, and takes none from devices or the node', async () => {
  const unknown = (): Sent => ({
    mid: random.bytes(16),
    payload: sealChannel({
      content: { kind: 'mlsMessage', bytes: random.bytes(40) },
      ...{ key: random.bytes(32), random },
    }),
  });
  const { peerRows } = receiverLimits;
  const many = Array.from({ length: peerRows + 20 }, unknown);
  const [real] = await scene.sent('still there');
  assert(real !== undefined);
  node.rows = numbered([...many, real]);
  await scene.visit();
  assert.equal(bob.store.inbox.parkedSize('mailbox').rows, peerRows);
  assert.equal(bob.store.inbox.parkedSize('peers').rows, 0);
  const texts = bob.history(id).map(({ text }) => text);
  assert.deepEqual(texts, ['still there']);
});

test('rows without end and changing ids end the visit', async () => {
  let seq = 0;
  node.fetched = () => [{ mid: random.bytes(16), payload: random.bytes(9), seq: (seq += 1) }];
  await assert.rejects(scene.visit({ rowsMax: 20 }), { failure: 'limit' });
  assert.equal(scene.cursor(), 20);
  Object.defineProperty(node, 'storeId', { get: () => random.bytes(8) });
  await assert.rejects(scene.visit(), { failure: 'protocol' });
});

test('a wait that has rows which are not there makes no circle', async () => {
  const [one, two] = numbered(await scene.sent('one', 'two'));
  assert(one !== undefined && two !== undefined);
  node.waited = () => [one];
  // Enough for a circle to show, and not for ever where there is one.
  const isWanted = (): boolean => node.waits < 9;
  await scene.visit({ isWanted });
  assert.equal(node.waits, 1);
  // Rows that are there end no visit.
  node.waits = 0;
  node.waited = () => {
    node.rows = node.waits === 1 ? [one] : [one, two];
    return node.waits < 3 ? node.rows : [];
  };
  await scene.visit({ isWanted });
  assert.equal(node.waits, 3);
  assertHas(bob, id, ['one', 'two']);
});

test('a row under no message id is passed by', async () => {
  const [one] = await scene.sent('one');
  assert(one !== undefined);
  node.rows = numbered([{ ...one, mid: random.bytes(3) }, one]);
  await scene.visit();
  assert.equal(scene.cursor(), 2);
  assertHas(bob, id, ['one']);
});

test('a crash after taking in costs one acknowledgement more; a mailbox made anew is read from its start', async () => {
  const [one, two] = numbered(await scene.sent('one', 'two'));
  assert(one !== undefined && two !== undefined);
  node.rows = [one];
  const gone = new TransportError('closed', 'the device died here');
  node.failing = { id: methods.ack.id, error: gone };
  await assert.rejects(scene.visit(), { failure: 'closed' });
  bob.restart();
  node.failing = undefined;
  await scene.visit();
  assert.deepEqual(node.acked, [1]);
  assertHas(bob, id, ['one']);
  node.storeId = random.bytes(8);
  node.rows = [{ ...two, seq: 1 }];
  await scene.visit();
  assert.deepEqual([scene.cursor(), node.acked.at(-1)], [1, 1]);
  assertHas(bob, id, ['one', 'two']);
});
