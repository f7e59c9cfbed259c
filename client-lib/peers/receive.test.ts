/** What comes without a node: taken in once, and nothing written down that does not prove itself. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sealChannel } from '../crypto/envelope.ts';
import { EventBus } from '../events.ts';
import { receiverLimits } from '../receiving/receiver.ts';
import { inboxLog } from '../store/inbox-rows.ts';
import { assertHas, TestDevice } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { testRuntime } from '../test-runtime.ts';
import { Acquaintances } from './acquaintances.ts';

const { random } = testRuntime;

async function pair() {
  const directory = new TestDirectory();
  const alice = new TestDevice('alice@red.example', directory);
  const bob = new TestDevice('bob@blue.example', directory);
  const id = await alice.conversations.create('p2p', [bob.userId]);
  for (const row of alice.rowsFor(bob)) await bob.receive(row);
  return { alice, bob, id };
}

/** What alice sent since `before` rows. */
const sentAfter = (alice: TestDevice, bob: TestDevice, before: number) =>
  alice.rowsFor(bob).slice(before);

test('a message that came from its device is there once, also when a node brings it later', async () => {
  const { alice, bob, id } = await pair();
  const before = alice.rowsFor(bob).length;
  for (const text of ['one', 'two']) await alice.conversations.send(id, text);
  const [one, two] = sentAfter(alice, bob, before);
  assert(one !== undefined && two !== undefined);
  const cursor = bob.store.inbox.cursor(inboxLog);
  assert.equal(await bob.receiver.receivePeer({ ...one, via: 'direct' }), 'stored');
  assert.equal(await bob.receiver.receivePeer({ ...one, via: 'relay' }), 'duplicate');
  assert.deepEqual(bob.store.inbox.cursor(inboxLog), cursor, 'no row of the inbox');
  for (const row of [one, two]) await bob.receive(row);
  assert.equal(await bob.receiver.receivePeer({ ...two, via: 'direct' }), 'duplicate');
  assertHas(bob, id, ['one', 'two']);
  const paths = bob.history(id).map(({ text, paths: came }) => [text, ...came]);
  assert.deepEqual(paths, [
    ['one', 'direct'],
    ['two', 'node'],
  ]);
});

test('what nobody can open is refused by name, leaves nothing, and harms no copy that a node brings', async () => {
  const { alice, bob, id } = await pair();
  const before = alice.rowsFor(bob).length;
  await alice.conversations.send(id, 'one');
  const [one] = sentAfter(alice, bob, before);
  assert(one !== undefined);
  const broken = one.payload.map((byte, at) => (at === one.payload.length - 1 ? byte ^ 1 : byte));
  for (const payload of [random.bytes(100), broken, new Uint8Array(0)]) {
    const delivery = bob.receiver.receivePeer({ mid: one.mid, payload, via: 'direct' });
    await assert.rejects(delivery, { reason: 'BAD_FIELD' });
  }
  assertHas(bob, id, []);
  await bob.receive(one);
  assertHas(bob, id, ['one']);
});

test('what has to wait has places of its own, and beyond them is refused; rows of nodes are parked still', async () => {
  const { bob } = await pair();
  const unknown = () => ({
    mid: random.bytes(16),
    payload: sealChannel({
      content: { kind: 'mlsMessage', bytes: random.bytes(40) },
      key: random.bytes(32),
      random,
    }),
  });
  for (let n = 0; n < receiverLimits.peerRows; n += 1) {
    assert.equal(await bob.receiver.receivePeer({ ...unknown(), via: 'direct' }), 'stored');
  }
  const more = bob.receiver.receivePeer({ ...unknown(), via: 'direct' });
  await assert.rejects(more, { reason: 'QUEUE_FULL' });
  await bob.receive(unknown());
  assert.equal(bob.store.inbox.parkedSize('all').rows, receiverLimits.peerRows + 1);
  assert.equal(bob.store.inbox.parkedSize('peers').rows, receiverLimits.peerRows);
});

test('members may deliver, strangers and blocked people may not, and cannot tell which they are', async () => {
  const { alice, bob, id } = await pair();
  const events = new EventBus();
  const { store, writer } = bob;
  const acquaintances = new Acquaintances({ cardHolder: () => undefined, store, events, writer });
  await acquaintances.admit(alice.rid);
  const carol = new TestDevice('carol@red.example', alice.directory);
  const refused = { reason: 'BLOCKED', message: 'this device takes nothing from you' };
  await assert.rejects(acquaintances.admit(carol.rid), refused);
  const before = alice.rowsFor(bob).length;
  await alice.conversations.addMembers(id, [carol.userId]);
  for (const row of sentAfter(alice, bob, before)) await bob.receive(row);
  const members = await bob.conversations.members(id);
  events.emit({ type: 'membersChanged', conversationId: id, members });
  await acquaintances.admit(carol.rid);
  store.tokens.block(carol.userId, 0);
  await assert.rejects(acquaintances.admit(carol.rid), refused);
  // Taken out of the group, this device knows none of its members any more.
  const last = alice.rowsFor(bob).length;
  await alice.conversations.removeMembers(id, [bob.userId]);
  for (const row of sentAfter(alice, bob, last)) await bob.receive(row);
  events.emit({ type: 'removed', conversationId: id, by: alice.userId });
  await assert.rejects(acquaintances.admit(alice.rid), refused);
});
