/** An invitation that a later one overtook is let go: it waits for nobody, and nothing waits for it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex, systemRandom as random } from '@quicprochat/proto';
import { sealChannel } from '../../crypto/envelope.ts';
import { mandatorySuite } from '../../mls/index.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import { company, groupOf } from '../../test-company.ts';
import { exchange, TestDevice, type TestRow } from '../../test-devices.ts';

/**
 * carol is taken out, invited beside dave, taken out with him, and invited again. Of what the first of these
 * invitations led to she has nothing yet.
 */
async function twiceInvited() {
  const all = await company([mandatorySuite]);
  const { directory, clock, alice, bob, carol, id } = all;
  const options = { clock, suites: [mandatorySuite] } as const;
  const dave = new TestDevice('dave@red.example', directory, options);
  await alice.conversations.removeMembers(id, [carol.userId]);
  await exchange(alice, bob, carol);
  await alice.conversations.addMembers(id, [dave.userId]);
  await exchange(alice, bob, dave);
  await alice.conversations.addMembers(id, [carol.userId]);
  const [first, ...more] = directory.hub.takeRows(alice.rid, carol.rid);
  assert.ok(first !== undefined);
  assert.deepEqual(more, []);
  const { key } = await envelopeKeyOf(alice.mls, await groupOf(alice, id));
  const content = { kind: 'mlsMessage', bytes: random.bytes(64) } as const;
  /** Of the epoch that she was in by the first invitation. */
  const sealed = { mid: random.bytes(16), payload: sealChannel({ content, key, random }) };
  await alice.conversations.removeMembers(id, [carol.userId, dave.userId]);
  directory.hub.takeRows(alice.rid, carol.rid);
  await alice.conversations.addMembers(id, [carol.userId]);
  const [second] = directory.hub.takeRows(alice.rid, carol.rid);
  assert.ok(second !== undefined);
  await exchange(alice, bob);
  return { ...all, dave, first, sealed, second };
}

/** As it lies there while a log does not answer. */
function parkFor(carol: TestDevice, userId: string, row: TestRow, nowMs: number): void {
  const { inbox } = carol.store;
  inbox.park({ ...row, kind: 2, seq: 0, receivedMs: 0 }, 'UNKNOWN_USER', userId, nowMs);
}

test('one that waits for people goes when the later one is here, and nobody is looked up for it', async () => {
  const { alice, bob, carol, dave, clock, id, first, second } = await twiceInvited();
  parkFor(carol, dave.userId, first, clock.now());
  await carol.receive(second);
  await carol.settle();
  assert.deepEqual(carol.store.inbox.parked(), []);
  assert.equal(carol.contacts.get(dave.userId), undefined);
  await alice.conversations.send(id, 'here');
  await exchange(alice, bob, carol);
  assert.deepEqual(
    carol.history(id).map(({ text }) => text),
    ['here'],
  );
  // Nobody has to wonder what became of the row.
  assert.deepEqual(
    carol.store.inbox.undecryptable().map(({ mid, reason }) => [mid, reason]),
    [[first.mid, 'ALREADY_MEMBER']],
  );
  for (const device of [alice, bob, carol, dave]) await device.groups.stop();
});

test('one that is still needed stays, and leads in', async () => {
  const { alice, bob, carol, dave, clock, first, second, id } = await twiceInvited();
  parkFor(carol, dave.userId, second, clock.now());
  // By the first one she is in, and out again: the other one leads further than that.
  await carol.receive(first);
  await carol.settle();
  assert.deepEqual(carol.store.inbox.parked(), []);
  assert.deepEqual(carol.store.inbox.undecryptable(), []);
  assert.equal((await groupOf(carol, id)).epoch, (await groupOf(alice, id)).epoch);
  assert.equal(carol.store.groups.conversation(id)?.ended, undefined);
  for (const device of [alice, bob, carol, dave]) await device.groups.stop();
});

test('one that opens takes along what waits under its key, once, and its KeyPackage is used', async () => {
  const { alice, bob, carol, dave, first, sealed, second, id } = await twiceInvited();
  const used = new Set<string>();
  const { keys } = carol.store;
  const consume = keys.consumeKeyPackage.bind(keys);
  keys.consumeKeyPackage = (ref, nowMs) => {
    used.add(hex(ref));
    consume(ref, nowMs);
  };
  await carol.receive(second);
  await carol.receive(sealed);
  assert.deepEqual(
    carol.store.inbox.parked().map(({ reason }) => reason),
    ['UNKNOWN_KEY'],
  );
  await carol.contacts.resolve(dave.userId, carol.directory);
  const { epoch } = await groupOf(carol, id);
  await carol.receive(first);
  await carol.settle();
  assert.deepEqual(carol.store.inbox.parked(), []);
  assert.deepEqual(
    carol.store.inbox.undecryptable().map(({ mid }) => mid),
    [sealed.mid],
  );
  assert.equal(used.size, 2);
  assert.equal((await groupOf(carol, id)).epoch, epoch);
  for (const device of [alice, bob, carol, dave]) await device.groups.stop();
});
