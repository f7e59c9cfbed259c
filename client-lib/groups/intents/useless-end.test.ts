/**
 * A log that ends with what nobody applies keeps whoever comes back waiting, whoever else has seen it: members hear of
 * it from the one that waits, and one of them commits over it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  commitHash,
  methods,
  signEntry,
  signingKeyFromSeed,
  systemRandom as random,
  type SigningKey,
} from '@quicprochat/proto';
import { create, GroupEntrySchema } from '@quicprochat/proto/messages';
import { junkDutyLimits } from './junk-duty.ts';
import { commitKeyOf } from '../log/group-log.ts';
import { resyncLimits } from '../returning/resync.ts';
import { mandatorySuite } from '../../mls/index.ts';
import { company, groupOf } from '../../test-company.ts';
import { exchange } from '../../test-devices.ts';

const minuteMs = 60_000;

/** bob lost his place; carol has the keys that sign children of the last two entries, and tells nobody of hers. */
async function behind() {
  const all = await company([mandatorySuite]);
  const { directory, clock, alice, bob, carol, id } = all;
  const { hub } = directory;
  const keys: SigningKey[] = [];
  for (let n = 0; n < 3; n += 1) {
    await alice.conversations.rotateKeys(id);
    await exchange(alice, carol);
    keys.unshift(await commitKeyOf(carol.mls, await groupOf(carol, id)));
  }
  hub.takeRows(alice.rid, bob.rid);
  // The hub keeps nothing older.
  hub.restore(id, hub.copyOf(id).slice(-2));
  await bob.groups.pull.pull(id);
  assert.equal(bob.store.groups.conversation(id)?.ended, 'BEHIND');

  /** An entry behind the newest one, or behind the one before and rejecting it, with garbage for who comes back. */
  const putJunk = async (back: 0 | 1): Promise<void> => {
    const entries = hub.copyOf(id);
    const parent = entries.at(-1 - back)?.parsed;
    const key = keys[back];
    assert(parent !== undefined && key !== undefined);
    const commit = random.bytes(200);
    const { publicKey } = signingKeyFromSeed(random.bytes(32));
    const entry = create(GroupEntrySchema, {
      ...{ group: id, parent: parent.hash, epoch: BigInt(parent.epoch) + 1n },
      ...{ commitHash: commitHash(commit), nextCommitPub: publicKey, joinCommitPub: publicKey },
      rejects: entries.slice(entries.length - back).map(({ parsed }) => parsed.hash),
    });
    await directory.callerOf(carol.rid).call(methods.submitCommit, {
      ...{ entry: signEntry(entry, key), commit, mid: random.bytes(16) },
      groupInfo: random.bytes(300),
    });
  };
  const tryBack = async (): Promise<void> => {
    clock.advance(minuteMs);
    await bob.groups.resyncs.run();
    await bob.groups.forks.idle();
    await bob.settle();
  };
  return { ...all, putJunk, tryBack };
}

for (const back of [0, 1] as const) {
  const where = back === 0 ? 'behind the newest entry' : 'behind an older one';
  test(`junk ${where} that nobody was told of is followed by a commit, and that lets a device come back`, async () => {
    const { clock, alice, bob, carol, id, putJunk, tryBack } = await behind();
    for (const device of [alice, bob]) device.groups.forks.start();
    await putJunk(back);
    const duties = () =>
      alice.store.groupLog.openIntents(id).filter(({ kind }) => kind === 'overJunk');
    await tryBack();
    await exchange(alice, bob);
    assert.deepEqual(duties(), [], 'one try may have come at a bad moment');
    await tryBack();
    await exchange(alice, bob);
    assert.equal(duties().length, 1);
    // Told once, however often he tries.
    await tryBack();
    assert.deepEqual(bob.rowsFor(alice), []);

    const { spreadMs, waitMs } = junkDutyLimits;
    clock.advance(waitMs + spreadMs);
    alice.groups.committer.kick();
    await alice.settle();
    assert.deepEqual(duties(), []);
    // By now he would wait for an hour; the row of that commit says that there is news.
    const late = bob.store.resync.get(id);
    assert(late !== undefined);
    bob.store.resync.put({ ...late, dueMs: clock.now() + 60 * minuteMs });
    await exchange(alice, bob);
    const { dueMs = Infinity } = bob.store.resync.get(id) ?? {};
    const { newsMs, backOffMinMs } = resyncLimits;
    assert.ok(dueMs - clock.now() <= newsMs + backOffMinMs);
    await tryBack();
    await exchange(alice, bob);
    assert.equal(bob.store.groups.conversation(id)?.ended, undefined);
    assert.deepEqual(
      (await groupOf(bob, id)).epochAuthenticator,
      (await groupOf(alice, id)).epochAuthenticator,
    );
    for (const device of [alice, bob, carol]) await device.groups.stop();
  });
}

test('a hub that ends its log with another history is told as such, and nobody commits over that', async () => {
  const { directory, alice, bob, carol, id } = await company([mandatorySuite]);
  const { hub } = directory;
  const before = hub.copyOf(id);
  const key = await commitKeyOf(carol.mls, await groupOf(carol, id));
  await alice.conversations.rotateKeys(id);
  await exchange(alice, bob, carol);
  hub.restore(id, before);
  const parent = before.at(-1)?.parsed;
  assert(parent !== undefined);
  const commit = random.bytes(200);
  const { publicKey } = signingKeyFromSeed(random.bytes(32));
  const entry = create(GroupEntrySchema, {
    ...{ group: id, parent: parent.hash, epoch: BigInt(parent.epoch) + 1n },
    ...{ commitHash: commitHash(commit), nextCommitPub: publicKey, joinCommitPub: publicKey },
  });
  await directory.callerOf(carol.rid).call(methods.submitCommit, {
    ...{ entry: signEntry(entry, key), commit, mid: random.bytes(16) },
  });
  await alice.groups.pull.pull(id);
  assert.equal(alice.events.filter(({ type }) => type === 'fork').length, 1);
  assert.deepEqual(alice.store.groupLog.openIntents(id), []);
  for (const device of [alice, bob, carol]) await device.groups.stop();
});
