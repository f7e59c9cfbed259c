/**
 * Commits of a member that wants to stop its group, or to part it: the others go on, on one way, and know who
 * it was. All devices are real; only what the hostile one commits is made by hand.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import {
  commitHash,
  parseEntry,
  signEntry,
  signingKeyFromSeed,
  type ParsedEntry,
  type SigningKey,
} from '@quicprochat/proto';
import { create, GroupEntrySchema } from '@quicprochat/proto/messages';
import { createMls, xwingSuite } from '../../mls/index.ts';
import { groupOf } from '../../test-company.ts';
import { exchange, TestDevice } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';
import { testRuntime } from '../../test-runtime.ts';
import { standingLimits } from '../standings/standing-rules.ts';
import {
  assertOne,
  comeBack,
  commitBadly,
  groupWithMallory,
  headOf,
  hostileMls,
  joinPub,
  joinPubOf,
  keysOf,
  lastOf,
  people,
  submit,
  type HostileGroup,
} from '../test-hostile.ts';
import { commitKeyOf, sealCommit, type OwnCommit } from './group-log.ts';

const { random } = testRuntime;
const them = people();
const company = (): Promise<HostileGroup> => groupWithMallory(them);
after(async () => {
  for (const device of them.all) await device.groups.stop();
});

/** An entry behind another one that leads to a key of mallory's own. */
function alone(
  parent: ParsedEntry,
  key: SigningKey,
  next: Uint8Array,
  rejects: Uint8Array[] = [],
): OwnCommit {
  const envelope = random.bytes(300);
  const entry = create(GroupEntrySchema, {
    group: parent.entry.group,
    parent: parent.hash,
    epoch: BigInt(parent.epoch) + 1n,
    commitHash: commitHash(envelope),
    nextCommitPub: signingKeyFromSeed(next).publicKey,
    joinCommitPub: joinPub,
    rejects,
  });
  return { envelope, entry: signEntry(entry, key) };
}

/** Who is named, by each of these devices. */
function named(type: 'commitRefused' | 'commitDoubted', devices: readonly TestDevice[]) {
  return devices.map(({ events }) =>
    events.flatMap((event) => (event.type === type ? [event.by?.split('@')[0]] : [])),
  );
}

/** They talk, they commit, and they throw mallory out. */
async function assertAlive(where: HostileGroup, devices = where.honest): Promise<void> {
  const { alice, mallory, id, all } = where;
  for (const device of devices) await device.conversations.send(id, `${device.userId} is here`);
  await alice.conversations.removeMembers(id, [mallory.userId]);
  await exchange(...all);
  await assertOne(id, ...devices);
  for (const device of devices) {
    const texts = device.history(id).map(({ text }) => text);
    for (const other of devices) assert.ok(texts.includes(`${other.userId} is here`));
    assert.ok(
      (await groupOf(device, id)).members().every(({ userId }) => userId !== mallory.userId),
    );
  }
}

describe('a member that wants to stop its group', () => {
  test('does not by a commit that is none, and a child with a key of its own', async () => {
    const where = await company();
    const { mallory, honest, id, all } = where;
    const mls = hostileMls(mallory);
    const group = await groupOf(mallory, id);
    const { commit } = await mls.commit(group, { context: { hubs: ['green.example'] } });
    // What it leads to is anybody's guess: nobody sees the new epoch.
    const { pending } = await mls.rekey(group);
    const facts = { commit, pending, isRemoval: false, joinPub };
    const own = await sealCommit(mls, group, headOf(where), facts, random);
    const [first, second] = [random.bytes(32), random.bytes(32)];
    const seen = create(GroupEntrySchema, {
      ...parseEntry(own.entry).entry,
      nextCommitPub: signingKeyFromSeed(first).publicKey,
    });
    const key = await commitKeyOf(mls, group);
    const entry = await submit(where, { ...own, entry: signEntry(seen, key) });
    await submit(where, alone(entry, signingKeyFromSeed(first), second));
    await exchange(...all);
    await assertAlive(where);
    assert.deepEqual(named('commitRefused', honest), [['mallory'], ['mallory'], ['mallory']]);
  });

  test('does not lead those who come back elsewhere by a commit that all can apply', async () => {
    const where = await company();
    const { mallory, honest, id, all } = where;
    const mls = hostileMls(mallory);
    const group = await groupOf(mallory, id);
    const made = await mls.rekey(group);
    // The key of whoever comes back behind it is mallory's own.
    const facts = { ...made, isRemoval: false, joinPub };
    await submit(where, await sealCommit(mls, group, headOf(where), facts, random));
    await exchange(...all);
    for (const one of honest) assert.equal((await groupOf(one, id)).epoch, group.epoch);
    await assertAlive(where);
  });

  test('does not by five junk children, and as many behind them', async () => {
    const where = await company();
    const { mallory, honest, id, all } = where;
    const group = await groupOf(mallory, id);
    const head = headOf(where);
    const key = await commitKeyOf(mallory.mls, group);
    const rejects: Uint8Array[] = [];
    for (let count = 0; count < 5; count += 1) {
      const junk = alone(head, key, random.bytes(32), rejects);
      const { hash } = await submit(where, junk);
      rejects.push(hash);
    }
    await exchange(...all);
    await assertAlive(where);
    // Nobody signed that junk: it has no name on it.
    const unnamed = Array.from({ length: 5 }, () => undefined);
    assert.deepEqual(named('commitRefused', honest), [unnamed, unnamed, unnamed]);
  });

  test('does not by a commit that only its maker can apply', async () => {
    const where = await company();
    const { mallory, alice, honest, id, all } = where;
    const keys = await Promise.all(honest.map((one) => keysOf(one, id)));
    const { pending } = await commitBadly(where, keys.flat());
    // It even goes on: nobody can tell its child from one of a group that left them behind.
    const next = await commitKeyOf(mallory.mls, pending);
    await submit(where, alone(headOf(where), next, random.bytes(32)));
    await exchange(...all);
    assert.deepEqual(named('commitDoubted', honest), [['mallory'], ['mallory'], ['mallory']]);
    await assertAlive(where);
    assert.deepEqual(named('commitRefused', honest), [['mallory'], ['mallory'], ['mallory']]);
    assert.equal(lastOf(alice, 'commitRefused')?.isVoted, true);
    assert.ok(honest.every((one) => lastOf(one, 'leftBehind') === undefined));
  });

  test('does not by a commit that one of the others cannot apply', async () => {
    const where = await company();
    const { carol, alice, bob, id, all } = where;
    await commitBadly(where, await keysOf(carol, id));
    await exchange(...all);
    assert.deepEqual(named('commitDoubted', [alice, bob, carol]), [[], [], ['mallory']]);
    // Two of three took it: the third has lost its place, knows it, and may come back with a new leaf.
    assert.equal(lastOf(carol, 'leftBehind')?.cause, 'BEHIND');
    await bob.conversations.rotateKeys(id);
    await comeBack(where, carol);
    await assertAlive(where);
  });

  test('does not by a commit that only one of the others can apply', async () => {
    const where = await company();
    const { carol, alice, bob, id, all } = where;
    const keys = await Promise.all([alice, bob].map((one) => keysOf(one, id)));
    const ofCarol = await keysOf(carol, id);
    await commitBadly(
      where,
      keys.flat().filter((key) => !ofCarol.includes(key)),
    );
    await exchange(...all);
    assert.deepEqual(named('commitDoubted', [alice, bob, carol]), [['mallory'], ['mallory'], []]);
    // Two of three will not have it, and go on without; the third hears that it has lost its place.
    await bob.conversations.rotateKeys(id);
    await exchange(...all);
    assert.equal(lastOf(carol, 'leftBehind')?.cause, 'BEHIND');
    await comeBack(where, carol);
    await assertAlive(where);
    assert.deepEqual(named('commitRefused', [alice, carol]), [['mallory'], ['mallory']]);
  });
});

describe('a commit that adds whom no log vouches for', () => {
  test('waits until everybody had time to ask, and is passed over then', async () => {
    const where = await company();
    const { mallory, honest, clock, id, all } = where;
    const ghost = new TestDevice('ghost@unheard.example', new TestDirectory(), { clock });
    const made = await ghost.mls.makeKeyPackage({
      suite: xwingSuite,
      identity: { userId: ghost.userId, deviceId: ghost.deviceId },
      signatureKey: ghost.signatureKey,
    });
    const group = await groupOf(mallory, id);
    const { lookup } = mallory.contacts;
    const mls = createMls({
      ...testRuntime,
      manifests: (userId) =>
        userId === ghost.userId
          ? { devices: [{ deviceId: ghost.deviceId, identityPub: ghost.rid }], revoked: [] }
          : lookup(userId),
    });
    const added = await mls.addMembers(group, [made.publicBytes]);
    const facts = { ...added, isRemoval: false, joinPub: await joinPubOf(mallory, added) };
    await submit(where, await sealCommit(mls, group, headOf(where), facts, random));
    await exchange(...all);
    assert.deepEqual(named('commitDoubted', honest), [['mallory'], ['mallory'], ['mallory']]);
    assert.deepEqual(named('commitRefused', honest), [[], [], []]);
    clock.advance(standingLimits.keysMs);
    for (const one of honest) one.groups.standings.start();
    for (const one of honest) await one.settle();
    await exchange(...all);
    await assertAlive(where);
  });
});
