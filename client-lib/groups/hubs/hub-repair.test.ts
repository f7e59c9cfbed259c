/** A hub that was restored from an older copy has its log back before anybody wants a change. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex } from '@quicprochat/proto';
import { repairLimits } from './hub-repair.ts';
import { mandatorySuite } from '../../mls/index.ts';
import { company as companyOf, HastyClock, type Company } from '../../test-company.ts';
import { exchange } from '../../test-devices.ts';

/** Two commits that all members know, of which the hub is to forget some. One for all tests: each gives it back whole. */
const forgetful = (async () => {
  const all = await companyOf([mandatorySuite], new HastyClock());
  const { directory, alice, bob, carol, id } = all;
  const old = directory.hub.copyOf(id);
  await alice.conversations.rotateKeys(id);
  await alice.conversations.updateMetadata(id, { name: 'kept' });
  await exchange(alice, bob, carol);
  return { ...all, old };
})();

/** What was given back in other tests is forgotten. */
async function company() {
  const all = await forgetful;
  all.clock.advance(repairLimits.longestMs + repairLimits.forgetMs);
  return all;
}

const hashesAt = ({ directory, id }: Pick<Company, 'directory' | 'id'>): readonly string[] =>
  directory.hub.copyOf(id).map(({ parsed }) => hex(parsed.hash));

test('who reads the log of a hub that forgot its end gives it back, with the state of the group', async () => {
  const them = await company();
  const { directory, bob, id, old } = them;
  const whole = hashesAt(them);
  directory.hub.restore(id, old);
  directory.hub.putInfo(id, { entry: new Uint8Array(0), bytes: new Uint8Array(0) });
  await bob.groups.pull.pull(id);
  await bob.groups.idle();
  assert.deepEqual(hashesAt(them), whole);
  const info = directory.hub.infoOf(id);
  assert.equal(hex(info.entry), whole.at(-1));
  assert.ok(info.bytes.length > 0, 'who lost their place need no commit of others');
});

test('a group that the hub does not know any more is begun there with the entries that it was', async () => {
  const them = await company();
  const { directory, alice, bob, id } = them;
  const whole = hashesAt(them);
  directory.hub.forget(id);
  // bob came with a later entry.
  for (const device of [bob, alice]) {
    await assert.rejects(device.groups.pull.pull(id), { reason: 'UNKNOWN_GROUP' });
    await device.groups.idle();
  }
  assert.deepEqual(hashesAt(them), whole);
});

test('a hub that forgets it again and again gets it after a minute, and each time after twice as long', async () => {
  const them = await company();
  const { clock, directory, bob, id, old } = them;
  const lost = hashesAt(them).length - old.length;
  let brought = 0;
  directory.hub.beforeSubmit = async () => void (brought += 1);
  const forget = async (): Promise<void> => {
    directory.hub.restore(id, old);
    await bob.groups.pull.pull(id);
    await bob.groups.idle();
  };
  for (const waits of [1, 2, 4]) {
    const before = brought;
    await forget();
    assert.equal(brought, before + lost);
    clock.advance(waits * repairLimits.againMs - 10_000);
    await forget();
    assert.equal(brought, before + lost, 'it is too soon');
    clock.advance(10_000);
  }
  // Whoever wants a change is not made to bring it more often.
  brought = 0;
  for (let times = 0; times < 3; times += 1) {
    directory.hub.restore(id, old);
    const view = await bob.groups.pull.view(id);
    assert(view !== undefined);
    const signal = new AbortController().signal;
    await bob.groups.repair.giveBack({ groupId: id, hub: 'red.example', head: view.head }, signal);
  }
  assert.equal(brought, lost);
  clock.advance(repairLimits.longestMs + repairLimits.forgetMs);
  await forget();
  clock.advance(repairLimits.againMs);
  await forget();
  assert.equal(brought, 3 * lost, 'a day later it is as at first');
});

test('what a member joined after the loss cannot bring, it leaves to others', async () => {
  const them = await company();
  const { directory, alice, bob, id, old } = them;
  const whole = hashesAt(them);
  directory.hub.restore(id, old);
  // As one that joined with the newest entry has it.
  alice.store.transaction(() => alice.store.groups.dropEpochsBelow(id, BigInt(whole.length - 1)));
  await alice.groups.pull.pull(id);
  await alice.groups.idle();
  assert.equal(hashesAt(them).length, old.length);
  await bob.groups.pull.pull(id);
  await bob.groups.idle();
  assert.deepEqual(hashesAt(them), whole);
});
