/** The walk along a group log: whatever commits win, members that read the same log are one group. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  commitHash,
  parseEntry,
  signCertificate,
  signingKeyFromSeed,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  GroupControlSchema,
  type GroupControl,
  type SignedGroupEntry,
} from '@quicprochat/proto/messages';
import {
  firstEntry,
  sealCommit,
  walkLog,
  type LogView,
  type OwnCommit,
  type Walk,
  type WalkParts,
} from './group-log.ts';
import { epochJoinKeys } from '../returning/group-info.ts';
import { createMls, mandatorySuite, type MlsGroup, type PendingCommit } from '../../mls/index.ts';
import { groupOf, keyPackageOf, TestWorld, type TestDevice } from '../../mls/test-members.ts';

const hub = 'red.example';
const hubSigning = signingKeyFromSeed(systemRandom.bytes(32));
const random = systemRandom;
const joinPub = signingKeyFromSeed(systemRandom.bytes(32)).publicKey;

function certify(entry: SignedGroupEntry, commit: Uint8Array): GroupControl {
  const { hash } = parseEntry(entry);
  const signatures = [signCertificate(hash, 0, { domain: hub, signing: hubSigning })];
  const certified = create(CertifiedEntrySchema, { entry, term: 0n, signatures });
  return create(GroupControlSchema, { entry: certified, commit });
}

interface Member {
  readonly device: TestDevice;
  view: LogView;
}

/** A commit of a member, with the group after it. */
interface PendingOwn {
  readonly own: OwnCommit;
  readonly pending: MlsGroup;
}

const hasWon = ({ steps }: Walk): boolean => steps.some(({ isOwn }) => isOwn);

const walk = (
  { device: { mls }, view }: Member,
  controls: readonly GroupControl[],
  own?: PendingOwn,
  standingOf: WalkParts['standingOf'] = () => undefined,
): Promise<Walk> =>
  walkLog(
    {
      mls,
      standingOf,
      keysOf: () => [hubSigning.publicKey],
      pendingOf: (hash) =>
        own !== undefined && Buffer.compare(commitHash(own.own.envelope), hash) === 0
          ? own.pending
          : undefined,
    },
    view,
    controls,
  );

/** Members of one group at the entry of its epoch, whatever led there. */
const membersOf = (...names: readonly [string, ...string[]]) =>
  membersIn(new TestWorld({ mayCommit: () => true }), ...names);

async function membersIn(world: TestWorld, ...names: readonly [string, ...string[]]) {
  const [creator, ...rest] = names.map((name) => world.device(name));
  assert.ok(creator !== undefined);
  const groups = await groupOf(mandatorySuite, [creator, ...rest]);
  const [group] = groups;
  const first = parseEntry(await firstEntry(creator.mls, group, joinPub));
  // The log begins here: what brought the others in came before it.
  const head = { ...first, epoch: Number(group.epoch) };
  const members = [creator, ...rest].map((device, index): Member => {
    const own = groups[index];
    assert.ok(own !== undefined);
    return { device, view: { group: own, head } };
  });
  const [one, ...others] = members;
  assert.ok(one !== undefined);
  const all: readonly [Member, ...Member[]] = [one, ...others];
  return { world, members: all };
}

/** A commit of a member as it goes to the hub. */
async function commitOf(
  { device: { mls }, view: { group, head } }: Member,
  made: PendingCommit,
  rejects: readonly Uint8Array[] = [],
): Promise<PendingOwn & { readonly control: GroupControl }> {
  const { commit, pending, removed } = made;
  const ofNext = (await epochJoinKeys(mls, pending)).signing.publicKey;
  const facts = { commit, pending, isRemoval: removed.length > 0, joinPub: ofNext, rejects };
  const own = await sealCommit(mls, group, head, facts, random);
  return { own, pending, control: certify(own.entry, own.envelope) };
}

const authenticators = (members: readonly Member[]): Set<string> =>
  new Set(members.map(({ view }) => Buffer.from(view.group.epochAuthenticator).toString('hex')));

async function take(member: Member, controls: readonly GroupControl[], own?: PendingOwn) {
  const walked = await walk(member, controls, own);
  member.view = walked;
  for (const { wipe } of walked.steps) wipe();
  return walked;
}

test('the loser of an epoch applies the winner, and commits again on it', async () => {
  const { members } = await membersOf('alice', 'bob', 'carol');
  const [alice, bob, carol] = members;
  assert.ok(bob !== undefined && carol !== undefined);
  const ofAlice = await commitOf(alice, await alice.device.mls.rekey(alice.view.group));
  const ofBob = await commitOf(bob, await bob.device.mls.rekey(bob.view.group));
  assert.equal(hasWon(await take(bob, [ofAlice.control], ofBob)), false);
  const again = await commitOf(bob, await bob.device.mls.rekey(bob.view.group));
  const log = [ofAlice.control, again.control];
  assert.equal(hasWon(await take(alice, log, ofAlice)), true);
  assert.equal(hasWon(await take(bob, [...log], again)), true);
  const { steps } = await take(carol, log);
  assert.equal(steps.length, 2);
  assert.equal(authenticators(members).size, 1);
  // What was applied before is passed over.
  assert.deepEqual((await take(carol, log)).steps, []);
});

test('an entry that nobody can apply is passed over for the one that rejects it', async () => {
  const { members } = await membersOf('alice', 'bob', 'carol');
  const [alice, bob, carol] = members;
  assert.ok(bob !== undefined && carol !== undefined);
  const honest = [alice, carol];
  // Bob names a key that the commit does not lead to: his commit is invalid for everybody.
  const made = await bob.device.mls.rekey(bob.view.group);
  const other = await bob.device.mls.rekey(bob.view.group);
  const broken = await commitOf(bob, { ...made, pending: other.pending });
  const junk = await commitOf(bob, { ...made, commit: systemRandom.bytes(80) });
  const seen = await take(alice, [broken.control, junk.control]);
  assert.deepEqual([seen.steps.length, seen.invalid.length], [0, 2]);
  assert.equal(seen.isLeftBehind, false);
  // What is behind it says nothing: its committer can go on alone, with a key of its own.
  const onBroken: Member = {
    device: bob.device,
    view: { group: other.pending, head: parseEntry(broken.own.entry) },
  };
  const ahead = await commitOf(onBroken, await bob.device.mls.rekey(other.pending));
  const alone = await walk(alice, [broken.control, ahead.control]);
  assert.deepEqual([alone.isLeftBehind, alone.isBeyond, alone.invalid.length], [false, false, 1]);
  const rejects = seen.invalid.map(({ hash }) => hash);
  const mended = await commitOf(alice, await alice.device.mls.rekey(alice.view.group), rejects);
  const log = [broken.control, junk.control, mended.control];
  for (const member of honest) {
    const own = member === alice ? mended : undefined;
    assert.deepEqual((await take(member, log, own)).invalid, []);
  }
  assert.equal(authenticators(honest).size, 1);
  // Bob does not know his own one any more: any member can write one in his name, which must not hold him up.
  const lost = await walk(bob, [broken.control, junk.control]);
  assert.deepEqual([lost.steps.length, lost.invalid.length, lost.doubts[0]?.cause], [0, 1, 'OWN']);
  // He asks the others: what they took leads on without him, what they refused they go past.
  const hearing =
    (decision: 'taken' | 'rejected'): WalkParts['standingOf'] =>
    (hash) =>
      Buffer.compare(hash, parseEntry(broken.own.entry).hash) === 0
        ? { decision, isRefusedHere: false }
        : undefined;
  assert.equal((await walk(bob, [broken.control], undefined, hearing('taken'))).isLeftBehind, true);
  assert.deepEqual((await walk(bob, log)).steps, []);
  const passed = await walk(bob, log, undefined, hearing('rejected'));
  assert.deepEqual([passed.steps.length, passed.doubts], [1, []]);
  // A bogus rejection of a valid commit changes nothing: the first valid one stands.
  const good = await commitOf(alice, await alice.device.mls.rekey(alice.view.group));
  const hash = parseEntry(good.own.entry).hash;
  const bogus = await commitOf(carol, await carol.device.mls.rekey(carol.view.group), [hash]);
  for (const member of honest) {
    const own = member === alice ? good : bogus;
    const walked = await take(member, [good.control, bogus.control], own);
    assert.deepEqual([walked.steps.length, hasWon(walked)], [1, member === alice]);
  }
  assert.equal(authenticators(honest).size, 1);
});

test('an entry that rejects another one counts for nobody who did not see that one', async () => {
  const { members } = await membersOf('alice', 'bob', 'mallory');
  const [alice, bob, mallory] = members;
  assert.ok(bob !== undefined && mallory !== undefined);
  const good = await commitOf(alice, await alice.device.mls.rekey(alice.view.group));
  const { hash } = parseEntry(good.own.entry);
  const made = await mallory.device.mls.rekey(mallory.view.group);
  const parting = await commitOf(mallory, made, [hash]);
  // The hub took both, and the first one did not reach Bob yet.
  const alone = await take(bob, [parting.control]);
  assert.deepEqual([alone.steps.length, alone.invalid.length, alone.isBeyond], [0, 0, true]);
  await take(alice, [good.control], good);
  const { steps, isBeyond } = await take(bob, [good.control, parting.control]);
  assert.deepEqual([steps.length, isBeyond], [1, false]);
  assert.equal(authenticators([alice, bob]).size, 1);
});

test('the own commit beside an entry that it does not lead to is as invalid as for all others', async () => {
  const { members } = await membersOf('alice', 'bob');
  const [alice, bob] = members;
  assert.ok(bob !== undefined);
  const made = await alice.device.mls.rekey(alice.view.group);
  const other = await alice.device.mls.rekey(alice.view.group);
  const { own, control } = await commitOf(alice, { ...made, pending: other.pending });
  const seen = [
    await take(alice, [control], { own, pending: made.pending }),
    await take(bob, [control]),
  ];
  for (const { steps, invalid } of seen) assert.deepEqual([steps.length, invalid.length], [0, 1]);
  assert.equal(authenticators([alice, bob]).size, 1);
});

test('a commit beyond the rights of its author is passed over, also by who it would throw out', async () => {
  const { world, members } = await membersIn(new TestWorld(), 'alice', 'bob', 'carol');
  const [alice, bob, carol] = members;
  assert.ok(bob !== undefined && carol !== undefined);
  // Bob's client knows no rules; the hub cannot see what he commits.
  const { manifests } = world;
  const lawless = createMls({
    clock: systemClock,
    random,
    manifests: (userId) => manifests.get(userId),
    mayCommit: () => true,
  });
  const coup = { info: { ...bob.view.group.info, name: 'mine now' } };
  const seized = await commitOf(bob, await lawless.commit(bob.view.group, { context: coup }));
  const ousting = await commitOf(bob, await lawless.removeMembers(bob.view.group, [0]));
  const seen = await take(alice, [seized.control, ousting.control]);
  assert.deepEqual([seen.steps.length, seen.invalid.length], [0, 2]);
  const rejects = seen.invalid.map(({ hash }) => hash);
  const info = { ...alice.view.group.info, name: 'still ours' };
  const made = await alice.device.mls.commit(alice.view.group, { context: { info } });
  const lawful = await commitOf(alice, made, rejects);
  const log = [seized.control, ousting.control, lawful.control];
  await take(alice, log, lawful);
  await take(carol, log);
  assert.equal(carol.view.group.info.name, 'still ours');
  assert.deepEqual(carol.view.group.members().length, 3);
  assert.equal(authenticators([alice, carol]).size, 1);
});

test('who comes late to a valid commit that the others will not apply passes over it too', async () => {
  const { members } = await membersOf('alice', 'bob', 'carol');
  const [alice, bob, carol] = members;
  assert.ok(bob !== undefined && carol !== undefined);
  const refused = await commitOf(alice, await alice.device.mls.rekey(alice.view.group));
  const { hash } = parseEntry(refused.own.entry);
  const next = await commitOf(bob, await bob.device.mls.rekey(bob.view.group), [hash]);
  const standingOf: WalkParts['standingOf'] = (one) =>
    Buffer.compare(one, hash) === 0 ? { decision: 'rejected', isRefusedHere: false } : undefined;
  const { steps } = await walk(carol, [refused.control, next.control], undefined, standingOf);
  assert.deepEqual(
    steps.map(({ entry }) => entry.hash),
    [parseEntry(next.own.entry).hash],
  );
});

test('who is added begins at its entry, who is removed ends there', async () => {
  const { world, members } = await membersOf('alice', 'bob');
  const [alice, bob] = members;
  assert.ok(bob !== undefined);
  const dave = world.device('dave');
  const row = await keyPackageOf(dave, mandatorySuite);
  const adding = await alice.device.mls.addMembers(alice.view.group, [row.publicBytes]);
  const added = await commitOf(alice, adding);
  await take(alice, [added.control], added);
  await take(bob, [added.control]);
  const joined = await dave.mls.joinFromWelcome(
    adding.welcome ?? new Uint8Array(0),
    [row],
    dave.signatureKey,
  );
  const newcomer: Member = { device: dave, view: { group: joined.group, head: alice.view.head } };
  const gone = bob.view.group.ownLeafIndex;
  const removing = await dave.mls.removeMembers(newcomer.view.group, [gone]);
  const removal = await commitOf(newcomer, removing);
  assert.equal(parseEntry(removal.own.entry).entry.removal, true);
  const after = await commitOf(
    newcomer,
    await dave.mls.rekey((await take(newcomer, [removal.control], removal)).group),
  );
  for (const member of [alice, bob]) await take(member, [removal.control, after.control]);
  await take(newcomer, [after.control], after);
  assert.equal(bob.view.group.isActive, false);
  assert.equal(authenticators([alice, newcomer]).size, 1);
  assert.equal(authenticators([alice, bob]).size, 2);
});

test('what no honest hub sends is an error, and the view stays', async () => {
  const { members } = await membersOf('alice', 'bob');
  const [alice, bob] = members;
  assert.ok(bob !== undefined);
  const good = await commitOf(bob, await bob.device.mls.rekey(bob.view.group));
  const other = await membersOf('eve');
  const [eve] = other.members;
  const foreign = await commitOf(eve, await eve.device.mls.rekey(eve.view.group));
  const { entry } = good.control;
  assert.ok(entry !== undefined);
  const bad: readonly (readonly [GroupControl, string])[] = [
    [{ ...good.control, commit: systemRandom.bytes(50) }, 'BAD_FIELD'],
    [foreign.control, 'BAD_FIELD'],
    [create(GroupControlSchema, { commit: good.control.commit }), 'BAD_FIELD'],
    [{ ...good.control, entry: { ...entry, signatures: [] } }, 'BAD_SIGNATURE'],
    [{ ...good.control, entry: { ...entry, term: 7n } }, 'BAD_SIGNATURE'],
  ];
  for (const [control, reason] of bad) {
    await assert.rejects(walk(alice, [control]), { reason });
  }
  assert.equal((await take(alice, [good.control])).steps.length, 1);
});
