/** Who lost its place before somebody was removed is told the join key by a member, and comes back; nobody else is told it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sameBytes, systemRandom as random } from '@quicprochat/proto';
import { create, GroupHeadSchema, toBinary } from '@quicprochat/proto/messages';
import { channelKeyId, sealHybrid } from '../../crypto/envelope.ts';
import { controlOf } from '../log/group-walker.ts';
import { mandatorySuite } from '../../mls/index.ts';
import { company, groupOf } from '../../test-company.ts';
import { exchange, type TestDevice, type TestRow } from '../../test-devices.ts';

/** bob misses that carol was taken out, and the hub keeps nothing of it; twice he tried to come back. */
async function behindRemoval() {
  const all = await company([mandatorySuite]);
  const { directory, clock, alice, bob, carol, id } = all;
  await alice.conversations.removeMembers(id, [carol.userId]);
  await exchange(alice, carol);
  await alice.conversations.rotateKeys(id);
  directory.hub.takeRows(alice.rid, bob.rid);
  directory.hub.restore(id, directory.hub.copyOf(id).slice(-1));
  await bob.groups.pull.pull(id);
  for (const device of [alice, bob, carol]) device.groups.forks.start();
  const tryBack = async (): Promise<string | undefined> => {
    clock.advance(3_600_000);
    await bob.groups.resyncs.run();
    await bob.settle();
    const row = bob.store.resync.get(id);
    return row?.isDone === true ? 'back' : row?.reason;
  };
  assert.equal(await tryBack(), 'NO_JOIN_KEY');
  assert.equal(await tryBack(), 'NO_JOIN_KEY');
  const stop = async (): Promise<void> => {
    for (const device of [alice, bob, carol]) await device.groups.stop();
  };
  const key = alice.store.resync.joinKey(id);
  assert.ok(key !== undefined);
  return { ...all, key, tryBack, stop };
}

/** A row with these fields, as anybody can write it who knows a certified entry. */
async function headRow(
  to: TestDevice,
  of: TestDevice,
  id: Uint8Array,
  fields: { readonly joinKeyId?: Uint8Array; readonly joinKey?: Uint8Array },
  from: Uint8Array = of.rid,
): Promise<TestRow> {
  const head = of.store.groupLog.head(id);
  const { entry } = (head && controlOf(head)) ?? {};
  assert.ok(entry !== undefined);
  const bytes = toBinary(GroupHeadSchema, create(GroupHeadSchema, { from, entry, ...fields }));
  const recipientKey = to.store.keys.newestHybridKey()?.publicKey;
  assert.ok(recipientKey !== undefined);
  const mid = random.bytes(16);
  const content = { kind: 'groupHead', bytes } as const;
  return { mid, payload: sealHybrid({ content, recipientKey, rid: to.rid, mid, random }) };
}

test('a device behind a removal asks, is told the key, and is back where the others are', async () => {
  const { alice, bob, id, tryBack, stop } = await behindRemoval();
  await exchange(alice, bob);
  // Due at once: no hour passes.
  await bob.groups.resyncs.run();
  await exchange(alice, bob);
  assert.equal(bob.store.resync.get(id)?.isDone, true);
  assert.equal(bob.store.groups.conversation(id)?.ended, undefined);
  assert.equal((await groupOf(bob, id)).epoch, (await groupOf(alice, id)).epoch);
  await alice.conversations.send(id, 'welcome');
  await exchange(alice, bob);
  assert.equal(bob.history(id).at(-1)?.text, 'welcome');
  assert.equal(await tryBack(), 'back');
  await stop();
});

test('no other key is taken; the right one is, also after a restart', async () => {
  const { alice, bob, id, key, tryBack, stop } = await behindRemoval();
  const known = (): Uint8Array | undefined => bob.store.resync.joinKey(id);
  const before = known();
  for (const joinKey of [random.bytes(32), random.bytes(31), before ?? key]) {
    await bob.receive(await headRow(bob, alice, id, { joinKey }));
    assert.deepEqual(known(), before);
  }
  bob.restart();
  await bob.receive(await headRow(bob, alice, id, { joinKey: key }));
  assert.deepEqual(known(), key);
  assert.equal(await tryBack(), 'back');
  await stop();
});

test('a member tells it once to a device that is in, by its id, and to nobody else', async () => {
  const { alice, bob, carol, id, key, stop } = await behindRemoval();
  const [outdated, current] = [bob.store.resync.joinKey(id), key].map((one) => {
    assert.ok(one !== undefined);
    return channelKeyId(one);
  });
  assert.ok(outdated !== undefined && current !== undefined && !sameBytes(outdated, current));
  const told = async (joinKeyId: Uint8Array, from: TestDevice): Promise<number> => {
    const before = alice.rowsFor(from).length;
    await alice.receive(await headRow(alice, alice, id, { joinKeyId }, from.rid));
    return alice.rowsFor(from).length - before;
  };
  assert.equal(await told(current, carol), 0);
  assert.equal(await told(outdated, bob), 0);
  assert.equal(await told(random.bytes(8), bob), 0);
  assert.equal(await told(current, bob), 1);
  assert.equal(await told(current, bob), 0);
  await stop();
});
