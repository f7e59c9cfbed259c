/** Who hears from a hub that it is an older copy makes the others bring back what that lost, before it forks the group. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex, type Timer } from '@quicprochat/proto';
import { restoredHubLimits, RestoredHubs } from './restored-hub.ts';
import { forkLimits } from './fork-watch.ts';
import { forgottenHubLimits } from './forgotten-hubs.ts';
import { pullLimits } from '../log/group-pull.ts';
import { mandatorySuite, xwingSuite } from '../../mls/index.ts';
import { company, groupOf, HastyClock } from '../../test-company.ts';
import { exchange } from '../../test-devices.ts';
import { LaterClock, testRuntime } from '../../test-runtime.ts';

test('a member that fell behind does not fork the group at a restored hub: another one brings back what it lost', async () => {
  const { directory, alice, bob, carol, id } = await company([mandatorySuite], new HastyClock());
  const old = directory.hub.copyOf(id);
  await alice.conversations.rotateKeys(id);
  const lost = directory.hub.copyOf(id).at(-1)?.parsed.hash;
  // bob and carol never hear of it, and the hub forgets it.
  for (const one of [bob, carol]) directory.hub.takeRows(alice.rid, one.rid);
  directory.hub.restore(id, old);
  directory.hub.isRestored = true;
  for (const one of [alice, bob, carol]) one.groups.start();
  const changed = bob.conversations.rotateKeys(id);
  // bob tells where he stands; only alice knows that there was more.
  let isDone = false;
  void changed.finally(() => (isDone = true));
  const rounds = async (): Promise<void> => {
    while (!isDone) {
      for (const row of bob.rowsFor(alice)) await alice.receive(row);
      await testRuntime.clock.sleep(1);
      const isBack = directory.hub.copyOf(id).length > old.length;
      if (isBack) directory.hub.isRestored = false;
    }
  };
  await rounds();
  await changed;
  assert.equal(hex(directory.hub.copyOf(id)[old.length]?.parsed.hash ?? id), hex(lost ?? id));
  await exchange(alice, bob, carol);
  const groups = await Promise.all([alice, bob, carol].map((one) => groupOf(one, id)));
  assert.equal(new Set(groups.map((group) => hex(group.epochAuthenticator))).size, 1);
  const parents = directory.hub.copyOf(id).map(({ parsed }) => hex(parsed.entry.parent));
  assert.ok(parents.length >= old.length + 2, 'what was lost, and the change');
  assert.equal(new Set(parents).size, parents.length, 'one child of each entry');
  for (const one of [alice, bob, carol]) await one.groups.stop();
});

/** Waits take no time, and time stands still. */
class StillClock extends LaterClock {
  override timer(ms: number, callback: () => void): Timer {
    return super.timer(Math.min(ms, 1), callback);
  }
}

test('a change waits until who has the first entry brought a forgotten group back to its hub', async () => {
  const { directory, alice, bob, carol, id } = await company([mandatorySuite], new StillClock());
  const whole = directory.hub.copyOf(id).map(({ parsed }) => hex(parsed.hash));
  directory.hub.forget(id);
  // Until bob has asked again and again.
  const asked = Promise.withResolvers<void>();
  let questions = 0;
  directory.hub.beforeLog = async () => {
    questions += 1;
    if (questions === 3) asked.resolve();
  };
  bob.groups.start();
  // bob came with a later entry, so he cannot bring it back himself.
  const changed = bob.conversations.rotateKeys(id);
  await asked.promise;
  // alice made the group, and sees that her node has another store.
  await assert.rejects(alice.groups.pull.pull(id), { reason: 'UNKNOWN_GROUP' });
  await alice.groups.idle();
  await changed;
  const now = directory.hub.copyOf(id).map(({ parsed }) => hex(parsed.hash));
  assert.deepEqual(now.slice(0, whole.length), whole, 'the history that it had');
  assert.equal(now.length, whole.length + 1);
  for (const one of [alice, bob, carol]) await one.groups.stop();
});

test('a change of a group that nobody brings back is refused after a while', async () => {
  const clock = new StillClock();
  const { directory, alice, bob, carol, id } = await company([mandatorySuite], clock);
  directory.hub.forget(id);
  bob.groups.start();
  const changed = bob.conversations.rotateKeys(id);
  const refused = assert.rejects(changed, { reason: 'UNKNOWN_GROUP' });
  let isDone = false;
  void refused.finally(() => (isDone = true));
  await testRuntime.clock.sleep(20);
  assert.equal(isDone, false, 'alice may bring it back');
  clock.advance(forgottenHubLimits.waitMs);
  bob.groups.committer.kick();
  await refused;
  for (const one of [alice, bob, carol]) await one.groups.stop();
});

test('who missed an entry that its hub forgot gets it, though nobody wants anything changed', async () => {
  class Clock extends LaterClock {
    override timer(ms: number, callback: () => void): Timer {
      // What is looked at once after a Welcome is not what this is about.
      if (ms === pullLimits.joinedMs) return { cancel: () => undefined };
      return super.timer(ms === forkLimits.readMs ? 1 : ms, callback);
    }
  }
  const clock = new Clock();
  const { directory, alice, bob, carol, id } = await company([xwingSuite], clock);
  const all = [alice, bob, carol];
  const old = directory.hub.copyOf(id);
  await alice.conversations.rotateKeys(id);
  directory.hub.takeRows(alice.rid, bob.rid);
  await exchange(alice, carol);
  directory.hub.restore(id, old);
  await carol.conversations.send(id, 'of an epoch that the hub knows no more');
  await exchange(carol, bob);
  clock.advance(2 * forkLimits.unknownKeyMs);
  for (const one of all) one.groups.forks.start();
  while (bob.history(id).length === 0) {
    // As every ten minutes: it tells where it stands, and reads a minute later.
    bob.groups.forks.sweep();
    clock.advance(forkLimits.readMs);
    await bob.settle();
    await exchange(...all);
    for (const one of all) await one.settle();
    await testRuntime.clock.sleep(2);
  }
  const texts = bob.history(id).map(({ text }) => text);
  assert.deepEqual(texts, ['of an epoch that the hub knows no more']);
  assert.equal(directory.hub.copyOf(id).length, old.length + 1);
  for (const one of all) await one.groups.stop();
});

/** Nothing waits, and time passes all the same. */
class QuickClock extends LaterClock {
  override async sleep(ms: number): Promise<void> {
    this.advance(ms);
  }
}

/** What is told and looked at; `hears`: whether there is somebody who can be told. */
function restoredHubs() {
  const clock = new QuickClock();
  const at = { clock, done: [] as string[], hears: true };
  const hubs = new RestoredHubs({
    runtime: { ...testRuntime, clock },
    tell: async (groupId) => {
      at.done.push(`tell ${groupId[0]}`);
      return at.hears;
    },
    look: (groupId) => void at.done.push(`look ${groupId[0]}`),
  });
  const heard = async (groupId: Uint8Array): Promise<readonly string[]> => {
    hubs.heard(groupId);
    await hubs.idle();
    return at.done.splice(0);
  };
  return { hubs, at, heard, one: new Uint8Array(32).fill(1) };
}

test('what nobody could be told is tried again while the hub waits, and is not told', async () => {
  const { at, heard, one } = restoredHubs();
  at.hears = false;
  const { triedForMs, backOffMaxMs, tellMs } = restoredHubLimits;
  const tries = (await heard(one)).filter((what) => what === 'tell 1');
  assert.ok(tries.length >= triedForMs / backOffMaxMs, `${tries.length} tries`);
  assert.ok(at.clock.monotonic() < tellMs);
  at.hears = true;
  assert.deepEqual(await heard(one), ['look 1', 'tell 1']);
  assert.deepEqual(await heard(one), ['look 1']);
});

test('a hub that says so again and again, and members that do, cost little', async () => {
  const { hubs, at, heard, one } = restoredHubs();
  const { done } = at;
  assert.deepEqual(await heard(one), ['look 1', 'tell 1']);
  assert.deepEqual(await heard(one), ['look 1']);
  hubs.isBehind(one);
  hubs.isBehind(one);
  assert.deepEqual(done.splice(0), ['look 1']);
  at.clock.advance(restoredHubLimits.tellMs);
  assert.deepEqual(await heard(one), ['look 1', 'tell 1']);
  hubs.isBehind(one);
  assert.deepEqual(done.splice(0), ['look 1']);
  // Of so many others it knows no more that it told them.
  for (let n = 0; n < restoredHubLimits.groups; n += 1) hubs.heard(testRuntime.random.bytes(32));
  await hubs.idle();
  done.splice(0);
  assert.deepEqual(await heard(one), ['look 1', 'tell 1']);
});
