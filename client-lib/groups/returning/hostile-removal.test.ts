/** A member that lies to whom it removes: the rest of its commit is junk for all others, and the device comes back. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  firstManifest,
  hex,
  methods,
  parseEntry,
  signingKeyFromSeed,
  signStatement,
} from '@quicprochat/proto';
import { create, GroupStandingSchema, toBinary } from '@quicprochat/proto/messages';
import { sealChannel } from '../../crypto/envelope.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import { sealCommit } from '../log/group-log.ts';
import { mandatorySuite, xwingSuite } from '../../mls/index.ts';
import { standingLimits } from '../standings/standing-rules.ts';
import { company as companyOf, groupOf, type Company } from '../../test-company.ts';
import { exchange, handOver, takeRows, TestDevice } from '../../test-devices.ts';
import { testRuntime } from '../../test-runtime.ts';

const { random } = testRuntime;

/** bob is an admin of the group, and hostile. */
async function company(): Promise<Company> {
  const them = await companyOf([mandatorySuite]);
  const { alice, bob, carol, id } = them;
  await alice.conversations.setRole(id, bob.userId, 'admin');
  await exchange(alice, bob, carol);
  return them;
}

/** bob removes carol, in an entry whose key nobody has. */
async function lie({ directory, alice, bob, carol, id }: Company): Promise<Uint8Array> {
  const group = await groupOf(bob, id);
  const leaf = group.members().find(({ userId }) => userId === carol.userId)?.leafIndex;
  const tip = directory.hub.copyOf(id).at(-1)?.parsed;
  assert(leaf !== undefined && tip !== undefined);
  const made = await bob.mls.removeMembers(group, [leaf]);
  const joinPub = signingKeyFromSeed(random.bytes(32)).publicKey;
  const facts = { ...made, isRemoval: true, joinPub };
  const { pending } = await bob.mls.rekey(group);
  const own = await sealCommit(bob.mls, group, tip, { ...facts, pending }, random);
  await directory.callerOf(bob.rid).call(methods.submitCommit, {
    entry: own.entry,
    commit: own.envelope,
    mid: random.bytes(16),
    targets: [alice, carol].map(({ rid }) => ({ rid, domain: 'red.example' })),
  });
  return parseEntry(own.entry).hash;
}

async function assertOne(id: Uint8Array, ...devices: readonly TestDevice[]): Promise<void> {
  const groups = await Promise.all(devices.map((device) => groupOf(device, id)));
  assert.equal(new Set(groups.map(({ epochAuthenticator }) => hex(epochAuthenticator))).size, 1);
}

const endedOf = (device: TestDevice, id: Uint8Array) => device.store.groups.conversation(id)?.ended;

describe('a device whose removal nobody else applies', () => {
  test('believes it, hears from the others that it is in, and loses nothing', async () => {
    const them = await company();
    const { alice, bob, carol, id } = them;
    await lie(them);
    await exchange(alice, bob, carol);
    assert.equal(endedOf(carol, id), 'REMOVED');
    await alice.conversations.send(id, 'before');
    await alice.conversations.rotateKeys(id);
    await alice.conversations.send(id, 'behind');
    await exchange(alice, carol);
    assert.equal(endedOf(carol, id), undefined);
    await assertOne(id, alice, carol);
    await carol.conversations.rotateKeys(id);
    await carol.conversations.send(id, 'here');
    await exchange(alice, carol);
    await assertOne(id, alice, carol);
    assert.deepEqual(
      carol.history(id).map(({ text }) => text),
      ['before', 'behind', 'here'],
    );
    assert.equal(alice.history(id).at(-1)?.text, 'here');
    const refused = carol.events.find(({ type }) => type === 'commitRefused');
    assert.equal(refused?.type === 'commitRefused' && refused.by, bob.userId);
    for (const device of [alice, bob, carol]) await device.groups.stop();
  });

  test('asks whose keys it can get, where a node lies about those of another one', async () => {
    const them = await companyOf([xwingSuite]);
    const { directory, alice, bob, carol, id } = them;
    await alice.conversations.setRole(id, bob.userId, 'admin');
    await exchange(alice, bob, carol);
    await lie(them);
    const manifest = firstManifest(bob.userId, signingKeyFromSeed(random.bytes(32)), bob.rid, 0);
    directory.serve(bob.userId, { manifest });
    await exchange(bob, carol);
    await exchange(alice, bob);
    await alice.conversations.rotateKeys(id);
    takeRows(carol, alice);
    await handOver(alice, carol);
    assert.equal(takeRows(carol, alice).length, 1);
    assert.ok(carol.lies.includes('NOT_IN_LOG'));
    for (const device of [alice, bob, carol]) await device.groups.stop();
  });

  test('finds it in the log where no row tells it, over a restart', async () => {
    const them = await company();
    const { directory, clock, alice, bob, carol, id } = them;
    await lie(them);
    await exchange(bob, carol);
    await exchange(alice, bob);
    await alice.conversations.rotateKeys(id);
    directory.hub.takeRows(alice.rid, carol.rid);
    await exchange(alice, carol);
    assert.equal(endedOf(carol, id), 'REMOVED');
    carol.restart();
    clock.advance(standingLimits.lookMs);
    carol.groups.standings.start();
    await carol.settle();
    await exchange(alice, carol);
    assert.equal(endedOf(carol, id), undefined);
    await assertOne(id, alice, carol);
    for (const device of [alice, bob, carol]) await device.groups.stop();
  });
  test('asks for two days and no more where nobody answers; a late answer counts, also over a crash', async () => {
    const them = await company();
    const { clock, alice, bob, carol, id } = them;
    const junk = await lie(them);
    await exchange(bob, carol);
    await exchange(alice, bob);
    await alice.conversations.rotateKeys(id);
    for (const row of alice.rowsFor(carol)) await carol.receive(row);
    const questions = () => carol.rowsFor(alice).length;
    const rounds = standingLimits.backRounds + 1;
    for (let n = 0; n < rounds; n += 1) {
      clock.advance(standingLimits.askMaxMs);
      carol.groups.standings.start();
      await carol.settle();
    }
    assert.equal(questions(), rounds);
    assert.equal(carol.store.standings.doubt(id, junk)?.askMs, undefined);
    for (const row of carol.rowsFor(alice).slice(-1)) await alice.receive(row);
    // What she says is durable here, and nothing was done about it.
    await carol.groups.removals.stop();
    for (const row of alice.rowsFor(carol)) await carol.receive(row);
    assert.equal(endedOf(carol, id), 'REMOVED');
    carol.restart();
    carol.groups.standings.start();
    await carol.settle();
    assert.equal(endedOf(carol, id), undefined);
    await assertOne(id, alice, carol);
    for (const device of [alice, bob, carol]) await device.groups.stop();
  });
});

describe('a device that was removed', () => {
  test('stays out, whoever writes into the log and says that it is in', async () => {
    const them = await company();
    const { directory, clock, alice, bob, carol, id } = them;
    const options = { clock, suites: [mandatorySuite] };
    const dave = new TestDevice('dave@red.example', directory, options);
    await alice.conversations.addMembers(id, [dave.userId]);
    await exchange(alice, bob, carol, dave);
    const before = await groupOf(bob, id);
    const tip = directory.hub.copyOf(id).at(-1)?.parsed;
    assert(tip !== undefined);
    await alice.conversations.removeMembers(id, [carol.userId]);
    const removal = directory.hub.copyOf(id).at(-1)?.parsed.hash;
    assert(removal !== undefined);
    await exchange(alice, carol, dave);
    assert.equal(endedOf(carol, id), 'REMOVED');
    // Nothing speaks against it: the log is read, and nobody is asked.
    clock.advance(standingLimits.lookMs);
    carol.groups.standings.start();
    await carol.settle();
    const outbox = (): number => carol.rowsFor(dave).length;
    assert.equal(outbox(), 0);
    // bob writes down another child, as if that removal were junk, and says so.
    const made = await bob.mls.rekey(before);
    const joinPub = signingKeyFromSeed(random.bytes(32)).publicKey;
    const facts = { ...made, isRemoval: false, joinPub, rejects: [removal] };
    const own = await sealCommit(bob.mls, before, tip, facts, random);
    await directory.callerOf(bob.rid).call(methods.submitCommit, {
      entry: own.entry,
      commit: own.envelope,
      mid: random.bytes(16),
      targets: [{ rid: carol.rid, domain: 'red.example' }],
    });
    for (const row of directory.hub.takeRows(bob.rid, carol.rid)) await carol.receive(row);
    const said = Buffer.concat([id, removal, Buffer.of(0)]);
    const signature = signStatement('qpc/standing/1', said, bob.identityKey);
    const message = create(GroupStandingSchema, {
      ...{ group: id, epoch: BigInt(tip.epoch + 1), entry: removal, from: bob.rid },
      votes: [{ device: bob.rid, applied: false, signature }],
      id: random.bytes(16),
    });
    const bytes = toBinary(GroupStandingSchema, message);
    const { key } = await envelopeKeyOf(bob.mls, before);
    const payload = sealChannel({ content: { kind: 'groupStanding', bytes }, key, random });
    await carol.receive({ mid: random.bytes(16), payload });
    assert.ok(outbox() > 0);
    await exchange(carol, dave);
    assert.equal(endedOf(carol, id), 'REMOVED');
    const words = carol.store.standings.votes(id, removal).map(({ userId, isApplied }) => ({
      [userId]: isApplied,
    }));
    assert.deepEqual(Object.assign({}, ...words), { [bob.userId]: false, [dave.userId]: true });
    // Half of those who stayed have it: nobody is asked again.
    clock.advance(standingLimits.askMaxMs);
    carol.groups.standings.start();
    await carol.settle();
    assert.equal(outbox(), 0);
    for (const device of [alice, bob, carol, dave]) await device.groups.stop();
  });
});
