/** A hub of one whose database went back to an older copy accepts nothing new before members could bring back what it lost. */
import assert from 'node:assert/strict';
import { copyFileSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { addDevice, bigLimits, StoreFixture, minuteMs } from './contract/fixture.ts';
import { TestCommitter } from './contract/group-committer.ts';
import { openNodeStore } from './open.ts';
import { groupBounds } from './queries/groups-log.ts';

const held = { name: 'UnavailableError', reason: 'HUB_RESTORED' };
const conflict = { reason: 'EPOCH_CONFLICT' };

/** A store that accepted two commits, and was put back to where it knew only the first. */
async function restored() {
  const fixture = new StoreFixture();
  await fixture.create();
  const open = () => fixture.open(openNodeStore, bigLimits);
  let store = await open();
  const alice = await addDevice(store, 'alice');
  const group = new TestCommitter();
  const made = group.newGroup(alice);
  await store.createGroup(made);
  const first = group.offer(made.parsed);
  await store.submitCommit(first);
  await store[Symbol.asyncDispose]();
  copyFileSync(fixture.path, `${fixture.path}.old`);
  store = await open();
  const second = group.offer(first.parsed);
  await store.submitCommit(second);
  await store[Symbol.asyncDispose]();
  const restore = async () => {
    copyFileSync(`${fixture.path}.old`, fixture.path);
    for (const end of ['-wal', '-shm']) rmSync(`${fixture.path}${end}`, { force: true });
    return open();
  };
  return { fixture, open, restore, alice, group, made, first, second };
}

test('what it lost comes back with its own word, and what another member made meanwhile has lost', async () => {
  const { fixture, restore, group, first, second } = await restored();
  await using _ = fixture;
  const store = await restore();
  assert.equal(await store.restoredGroups(), 1);
  // carol did not see the second commit.
  const late = group.offer(first.parsed);
  await assert.rejects(store.submitCommit(late), held);
  assert.equal(await store.holdGroup(group.groupId), groupBounds.heldMs);
  // A repeat of what it knows is no change.
  assert.equal((await store.submitCommit(first)).isNew, false);
  const back = await store.submitCommit({ ...second, wasCertified: true });
  assert.equal(back.isNew, true);
  await assert.rejects(store.submitCommit(late), conflict);
  // There may be more behind it.
  const third = group.offer(second.parsed);
  await assert.rejects(store.submitCommit(third), held);
  fixture.nowMs += groupBounds.heldMs;
  assert.equal((await store.submitCommit(third)).isNew, true);
  assert.equal(await store.restoredGroups(), 0);
  assert.equal((await store.submitCommit(group.offer(third.parsed))).isNew, true, 'as ever');
});

test('the time begins with the first who wants a change, goes on over a restart, and ends', async () => {
  const { fixture, open, restore, group, first } = await restored();
  await using _ = fixture;
  let store = await restore();
  // Nobody asked for hours: nobody was told.
  fixture.nowMs += 100 * minuteMs;
  const late = group.offer(first.parsed);
  await assert.rejects(store.submitCommit(late), held);
  assert.equal(await store.holdGroup(group.groupId), groupBounds.heldMs);
  fixture.nowMs += groupBounds.heldMs - 1;
  await store[Symbol.asyncDispose]();
  store = await open();
  assert.equal(await store.holdGroup(group.groupId), 1);
  await assert.rejects(store.submitCommit(late), held);
  fixture.nowMs += 1;
  assert.equal(await store.holdGroup(group.groupId), 0);
  assert.equal((await store.submitCommit(late)).isNew, true);
  // Restored once more: it does not know again.
  await store[Symbol.asyncDispose]();
  store = await restore();
  assert.equal(await store.restoredGroups(), 1);
  await assert.rejects(store.submitCommit(group.offer(first.parsed)), held);
});

test('a group that it does not know at all is begun anew and held, one that was made since is not', async () => {
  const { fixture, restore, alice } = await restored();
  await using _ = fixture;
  const store = await restore();
  const lost = new TestCommitter();
  const begun = lost.newGroup(alice);
  await store.createGroup({ ...begun, wasCertified: true });
  await assert.rejects(store.submitCommit(lost.offer(begun.parsed)), held);
  const fresh = new TestCommitter();
  const made = fresh.newGroup(alice);
  await store.createGroup(made);
  assert.equal((await store.submitCommit(fresh.offer(made.parsed))).isNew, true);
  assert.equal(await store.holdGroup(fresh.groupId), 0);
  await assert.rejects(store.holdGroup(new Uint8Array(32)), { reason: 'UNKNOWN_GROUP' });
});
