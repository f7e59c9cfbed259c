/** What nobody applies at the end of a log is followed by one commit, and by no more than that. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { commitHash, hex, methods, signEntry, signingKeyFromSeed } from '@quicprochat/proto';
import { create, GroupEntrySchema } from '@quicprochat/proto/messages';
import { commitKeyOf } from '../log/group-log.ts';
import { junkDutyLimits } from './junk-duty.ts';
import { mandatorySuite } from '../../mls/index.ts';
import { company as companyOf, groupOf, type Company } from '../../test-company.ts';
import { exchange } from '../../test-devices.ts';
import { testRuntime } from '../../test-runtime.ts';

const { random } = testRuntime;

async function putJunk({ directory, alice, bob, carol, id }: Company): Promise<void> {
  const tip = directory.hub.copyOf(id).at(-1)?.parsed;
  assert(tip !== undefined);
  const commit = random.bytes(200);
  const key = signingKeyFromSeed(random.bytes(32)).publicKey;
  const entry = create(GroupEntrySchema, {
    ...{ group: id, parent: tip.hash, epoch: BigInt(tip.epoch) + 1n },
    ...{ commitHash: commitHash(commit), nextCommitPub: key, joinCommitPub: key },
  });
  await directory.callerOf(bob.rid).call(methods.submitCommit, {
    entry: signEntry(entry, await commitKeyOf(bob.mls, await groupOf(bob, id))),
    commit,
    mid: random.bytes(16),
    targets: [alice, carol].map(({ rid }) => ({ rid, domain: 'red.example' })),
  });
}

test('junk at the end of a log has one member commit behind it, later each time', async () => {
  const them = await companyOf([mandatorySuite]);
  const { directory, clock, alice, bob, carol, id } = them;
  const duties = () =>
    [alice, carol].map(({ store }) =>
      store.groupLog.openIntents(id).filter(({ kind }) => kind === 'overJunk'),
    );
  const waits: number[] = [];
  for (let round = 0; round < 3; round += 1) {
    await putJunk(them);
    const nowMs = clock.now();
    await exchange(alice, bob, carol);
    const [first, second, ...more] = duties().flat();
    assert(first !== undefined && second !== undefined);
    assert.deepEqual(more, []);
    waits.push(Math.min(first.dueMs, second.dueMs) - nowMs);
    // Whoever is first does it; the other one's duty is over with that.
    clock.advance(Math.max(first.dueMs, second.dueMs) - clock.now() + 1);
    const { epoch } = await groupOf(alice, id);
    alice.groups.committer.kick();
    await alice.settle();
    await exchange(alice, bob, carol);
    assert.deepEqual(duties(), [[], []]);
    const groups = await Promise.all([alice, bob, carol].map((one) => groupOf(one, id)));
    assert.deepEqual(new Set(groups.map((group) => group.epoch)), new Set([epoch + 1n]));
    assert.equal(new Set(groups.map((group) => hex(group.epochAuthenticator))).size, 1);
    // And who lost its place finds the group there.
    assert.deepEqual(directory.hub.infoOf(id).entry, directory.hub.copyOf(id).at(-1)?.parsed.hash);
  }
  const { waitMs } = junkDutyLimits;
  waits.forEach((wait, round) => assert.ok(wait >= waitMs * 2 ** round - 1_000, String(waits)));
  for (const device of [alice, bob, carol]) await device.groups.stop();
});
