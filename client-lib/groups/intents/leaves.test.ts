/** Who waits to be taken out of a group says so again when what it said may have been missed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TransportError } from '@quicprochat/proto';
import { leaveLimits } from './leaves.ts';
import { mandatorySuite } from '../../mls/index.ts';
import type { IntentRow } from '../../store/group-log-rows.ts';
import { company, type Company } from '../../test-company.ts';
import { exchange, type TestDevice, testStoreId } from '../../test-devices.ts';

/** Wants to leave and says so: how that ends, or undefined while it is open. */
async function leave(device: TestDevice, id: Uint8Array): Promise<() => IntentRow | undefined> {
  const { committer } = device.groups;
  const intentId = await committer.add(id, { kind: 'leave' });
  await device.settle();
  return () => device.store.groupLog.intent(intentId);
}

/** Who may remove somebody waits no longer; until nobody has anything to say. */
async function carryOut({ clock, alice, bob, carol, id }: Company): Promise<void> {
  const devices = [alice, bob, carol];
  await exchange(...devices);
  clock.advance(leaveLimits.spreadMs);
  for (const device of devices) {
    device.groups.committer.wake(id);
    await device.settle();
    await exchange(...devices);
  }
}

/** Its copies are gone. */
function loseOutbox(device: TestDevice, ...others: readonly TestDevice[]): number {
  let count = 0;
  const { outbox } = device.store;
  for (const { rid } of others) {
    for (;;) {
      const entry = outbox.next(Buffer.from(rid).toString('hex'), 0);
      if (entry === undefined) break;
      outbox.markAccepted(entry.id, testStoreId, device.runtime.clock.now());
      count += 1;
    }
  }
  return count;
}

test('it is asked again before nobody can read any more what was said', async () => {
  const all = await company([mandatorySuite]);
  const { alice, bob, carol, id } = all;
  const leaving = await leave(carol, id);
  assert.equal(loseOutbox(carol, alice, bob), 2);
  for (let epochs = 0; epochs < 4; epochs += 1) {
    await alice.conversations.rotateKeys(id);
    await exchange(alice, bob, carol);
  }
  await carryOut(all);
  assert.equal(leaving()?.state, 'DONE');
  assert.deepEqual(await alice.conversations.members(id), [alice.userId, bob.userId]);
});

test('it is asked again after ten minutes, and then ever more seldom, down to once a day', async () => {
  const all = await company([mandatorySuite]);
  const { clock, alice, bob, carol, id } = all;
  const leaving = await leave(carol, id);
  const asked: number[] = [];
  for (let minutes = 0; minutes < 4 * 24 * 60; minutes += 5) {
    if (loseOutbox(carol, alice, bob) > 0) asked.push(minutes);
    clock.advance(5 * 60_000);
    carol.groups.committer.wake(id);
    await carol.settle();
  }
  const waits = asked.map((minute, at) => minute - (asked[at - 1] ?? 0)).slice(1);
  // Looked at every five minutes.
  const isNear = (minutes: number | undefined, expected: number): boolean =>
    minutes !== undefined && minutes >= expected && minutes <= expected + 5;
  assert(isNear(waits[0], 10) && isNear(waits.at(-1), 24 * 60), waits.join());
  assert.deepEqual(
    waits,
    waits.toSorted((a, b) => a - b),
  );
  assert(waits.length >= 8 && waits.length <= 14, waits.join());
  clock.advance(leaveLimits.againMaxMs);
  carol.groups.committer.wake(id);
  await carol.settle();
  await carryOut(all);
  assert.equal(leaving()?.state, 'DONE');
});

test('whoever never heard that it is out reads so in the log when it asks again', async () => {
  const all = await company([mandatorySuite]);
  const { directory, clock, alice, bob, carol, id } = all;
  const leaving = await leave(carol, id);
  await exchange(alice, bob, carol);
  clock.advance(leaveLimits.spreadMs);
  for (const one of [alice, bob]) {
    one.groups.committer.wake(id);
    await one.settle();
    // As with the disk of a node that had them for another one.
    directory.hub.takeRows(one.rid, carol.rid);
  }
  await exchange(alice, bob, carol);
  assert.deepEqual(await alice.conversations.members(id), [alice.userId, bob.userId]);
  assert.equal(leaving()?.state, 'OPEN');

  // While no hub answers, the members are asked all the same.
  const wakeLater = async (): Promise<void> => {
    clock.advance(leaveLimits.againMaxMs);
    carol.groups.committer.wake(id);
    await carol.settle();
  };
  directory.hub.beforeLog = () => Promise.reject(new TransportError('timeout', 'nobody answers'));
  loseOutbox(carol, alice, bob);
  await wakeLater();
  assert.equal(loseOutbox(carol, alice, bob), 2);
  directory.hub.beforeLog = undefined;
  await wakeLater();
  assert.equal(leaving()?.state, 'DONE');
  assert.equal(loseOutbox(carol, alice, bob), 0);
});

test('of two owners that leave at once the second one is told that it is the last', async () => {
  const all = await company([mandatorySuite]);
  const { alice, bob, carol, id } = all;
  await alice.conversations.setRole(id, carol.userId, 'owner');
  await exchange(alice, bob, carol);
  const leaving = [await leave(alice, id), await leave(carol, id)];
  await carryOut(all);
  const ends = leaving.map((end) => `${end()?.state} ${end()?.reason}`);
  assert.deepEqual(ends.toSorted(), ['DONE undefined', 'REFUSED LAST_OWNER']);
});

test('who may remove members since then is asked too', async () => {
  const all = await company([mandatorySuite]);
  const { alice, bob, carol, id } = all;
  const leaving = await leave(carol, id);
  // Its owner does not hear of it, bob has no right to do it yet.
  assert.equal(loseOutbox(carol, alice), 1);
  await exchange(bob, carol);
  await alice.conversations.setRole(id, bob.userId, 'admin');
  await exchange(alice, bob, carol);
  await carryOut(all);
  assert.equal(leaving()?.state, 'DONE');
});

test('who comes back into a group that it wanted to leave says so again', async () => {
  const all = await company([mandatorySuite]);
  const { directory, clock, alice, bob, carol, id } = all;
  const leaving = await leave(carol, id);
  assert.equal(loseOutbox(carol, alice, bob), 2);
  // Commits that carol never hears of, and that the hub keeps no entry of any more.
  await alice.conversations.rotateKeys(id);
  await alice.conversations.rotateKeys(id);
  directory.hub.takeRows(alice.rid, carol.rid);
  directory.hub.restore(id, directory.hub.copyOf(id).slice(-1));
  await carol.groups.pull.pull(id);
  assert.equal(carol.store.groups.conversation(id)?.ended, 'BEHIND');
  clock.advance(3_600_000);
  await carol.groups.resyncs.run();
  assert.equal(carol.store.resync.get(id)?.isDone, true);
  await carryOut(all);
  assert.equal(leaving()?.state, 'DONE');
});
