/** A device that came back on the word of one member asks the others whether they are there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { commitHash, hex, methods, signEntry } from '@quicprochat/proto';
import {
  create,
  GroupEntrySchema,
  GroupStandingSchema,
  toBinary,
} from '@quicprochat/proto/messages';
import { sealChannel } from '../../crypto/envelope.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import { epochJoinKeys, openCommit, sealJoinState } from './group-info.ts';
import { commitKeyOf, sealCommit } from '../log/group-log.ts';
import { mandatorySuite, type MlsGroup } from '../../mls/index.ts';
import { standingLimits } from '../standings/standing-rules.ts';
import { exchange, TestDevice } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';
import { LaterClock, testRuntime } from '../../test-runtime.ts';

const { random } = testRuntime;
const host = 'red.example';
const hourMs = 3_600_000;

const groupOf = (device: TestDevice, id: Uint8Array): Promise<MlsGroup> =>
  device.writer.run(async (batch) => {
    const group = batch.group(id);
    assert(group !== undefined);
    return group;
  });

/** bob lost his place, and mallory put junk at the end of the log beside a state that only she knows. */
async function trap() {
  const clock = new LaterClock();
  const directory = new TestDirectory({ maxBehindMs: 1_000 * hourMs });
  const { hub } = directory;
  const [alice, bob, mallory] = ['alice', 'bob', 'mallory'].map(
    (name) => new TestDevice(`${name}@${host}`, directory, { clock, suites: [mandatorySuite] }),
  );
  assert(alice !== undefined && bob !== undefined && mallory !== undefined);
  const id = await alice.conversations.create('astray', [bob.userId, mallory.userId]);
  await exchange(alice, bob, mallory);
  // bob misses two commits, and the hub keeps none so old.
  await alice.conversations.rotateKeys(id);
  await alice.conversations.rotateKeys(id);
  hub.takeRows(alice.rid, bob.rid);
  await exchange(alice, mallory);
  hub.restore(id, hub.copyOf(id).slice(-1));
  await bob.groups.pull.pull(id);

  // mallory, who is a member and no more, puts an entry there that is junk for all, beside a state that only she knows.
  const tip = hub.copyOf(id).at(-1)?.parsed;
  const key = mallory.store.resync.joinKey(id);
  assert(tip !== undefined && key !== undefined);
  const group = await groupOf(mallory, id);
  const { pending } = await mallory.mls.rekey(group);
  const commit = random.bytes(300);
  const entry = create(GroupEntrySchema, {
    group: id,
    parent: tip.hash,
    epoch: BigInt(tip.epoch) + 1n,
    commitHash: commitHash(commit),
    nextCommitPub: (await commitKeyOf(mallory.mls, pending)).publicKey,
    joinCommitPub: (await epochJoinKeys(mallory.mls, pending)).signing.publicKey,
  });
  await directory.callerOf(mallory.rid).call(methods.submitCommit, {
    entry: signEntry(entry, await commitKeyOf(mallory.mls, group)),
    commit,
    mid: random.bytes(16),
    groupInfo: await sealJoinState(mallory.mls, pending, key, random),
    targets: [{ rid: alice.rid, domain: host }],
  });
  const tryBack = async (): Promise<void> => {
    clock.advance(hourMs);
    await bob.groups.resyncs.run();
    await bob.settle();
  };
  /** mallory goes on where she has bob alone; the group after that. */
  const goOn = async (): Promise<MlsGroup> => {
    const back = hub.copyOf(id).find(({ parsed }) => parsed.epoch === tip.epoch + 2);
    assert(back !== undefined);
    const opened = await openCommit(mallory.mls, pending, back.control.commit);
    assert(opened !== undefined);
    const astray = await mallory.mls.processReturn(pending, opened.bytes);
    const made = await mallory.mls.rekey(astray.next);
    const { signing } = await epochJoinKeys(mallory.mls, made.pending);
    const facts = { ...made, isRemoval: false, joinPub: signing.publicKey };
    const further = await sealCommit(mallory.mls, astray.next, back.parsed, facts, random);
    await directory.callerOf(mallory.rid).call(methods.submitCommit, {
      entry: further.entry,
      commit: further.envelope,
      mid: random.bytes(16),
      targets: [{ rid: bob.rid, domain: host }],
    });
    return made.pending;
  };
  return { clock, directory, alice, bob, mallory, id, tip, tryBack, goOn };
}

test('a member that leads a device back into a history of its own keeps it there for a minute', async () => {
  const { clock, alice, bob, mallory, id, tip, tryBack, goOn } = await trap();
  await tryBack();
  const count = (type: string): number => bob.events.filter((event) => event.type === type).length;
  assert.deepEqual([count('leftBehind'), count('cameBack')], [1, 1]);
  assert.equal((await groupOf(bob, id)).epoch, BigInt(tip.epoch) + 2n);

  // The others go on as if nothing had been, to the epoch in which bob believes to be.
  await exchange(alice, bob);
  await alice.conversations.rotateKeys(id);
  await alice.conversations.rotateKeys(id);
  await exchange(alice, bob);
  assert.equal((await groupOf(alice, id)).epoch, (await groupOf(bob, id)).epoch);
  bob.restart();
  clock.advance(standingLimits.askMs);
  bob.groups.standings.start();
  await bob.settle();
  await exchange(alice, bob);
  assert.deepEqual([count('leftBehind'), count('cameBack')], [2, 1]);
  assert.equal(bob.store.groups.conversation(id)?.ended, 'BEHIND');

  // Nor does that hold him.
  const astray = await goOn();
  await exchange(mallory, bob);
  assert.equal((await groupOf(bob, id)).epoch, astray.epoch);
  assert.equal(bob.store.groups.conversation(id)?.ended, 'BEHIND');
  await alice.conversations.rotateKeys(id);
  await exchange(alice, bob);

  // What the hub keeps now is of an honest commit.
  await tryBack();
  await exchange(alice, bob);
  assert.equal(count('cameBack'), 2);
  // By what he had there he would deny the group's own entries of those epochs.
  for (const epoch of [tip.epoch + 2, tip.epoch + 3]) {
    assert.equal(bob.store.groupLog.headAt(id, epoch), undefined);
  }
  const [one, other] = [await groupOf(alice, id), await groupOf(bob, id)];
  assert.equal(hex(one.epochAuthenticator), hex(other.epochAuthenticator));
  await bob.conversations.send(id, 'here again');
  await exchange(alice, bob);
  assert.deepEqual(
    alice.history(id).map(({ text }) => text),
    ['here again'],
  );
  // alice applied the commit by which bob came; mallory, who is half of the others, says nothing.
  clock.advance(standingLimits.askMs);
  bob.groups.standings.start();
  await bob.settle();
  await exchange(alice, bob);
  assert.equal(count('leftBehind'), 2);
  for (const device of [alice, bob, mallory]) await device.groups.stop();
});

test('a device that was led astray does not say of the commits of the group that it will not have them', async () => {
  const { directory, alice, bob, mallory, id, tip, tryBack, goOn } = await trap();
  await tryBack();
  const astray = await goOn();
  for (const row of directory.hub.takeRows(mallory.rid, bob.rid)) await bob.receive(row);
  assert.equal((await groupOf(bob, id)).epoch, astray.epoch);
  await exchange(alice);
  for (let n = 0; n < 3; n += 1) await alice.conversations.rotateKeys(id);
  const theirs = alice.store.groupLog.headAt(id, tip.epoch + 3);
  assert(theirs !== undefined);
  // With his word and her own she would have more than half of those who vote on it.
  const message = create(GroupStandingSchema, {
    ...{ group: id, epoch: BigInt(theirs.epoch), entry: theirs.hash },
    ...{ from: mallory.rid, asks: true, id: random.bytes(16) },
  });
  const content = { kind: 'groupStanding', bytes: toBinary(GroupStandingSchema, message) } as const;
  const { key } = await envelopeKeyOf(mallory.mls, astray);
  const told = bob.rowsFor(mallory).length;
  await bob.receive({ mid: random.bytes(16), payload: sealChannel({ content, key, random }) });
  assert.equal(bob.rowsFor(mallory).length, told);
  for (const device of [alice, bob, mallory]) await device.groups.stop();
});
