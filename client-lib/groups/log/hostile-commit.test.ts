/**
 * Commits of a member that wants to stop its group, or to part it: the others go on, on one way, and know who
 * it was. All devices are real; only what the hostile one commits is made by hand.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import {
  commitHash,
  hex,
  methods,
  parseEntry,
  signEntry,
  signingKeyFromSeed,
  signStatement,
  type ParsedEntry,
  type SigningKey,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GroupEntrySchema,
  GroupStandingSchema,
  SubmitCommitRequestSchema,
  toBinary,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { sealChannel } from '../../crypto/envelope.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import type { CryptoProvider } from 'ts-mls';
import { createMlsCryptoProvider } from '../../crypto/provider.ts';
import type { ClientEvent } from '../../events.ts';
import { epochJoinKeys } from '../returning/group-info.ts';
import { commitKeyOf, sealCommit, type OwnCommit } from './group-log.ts';
import {
  createMls,
  xwingSuite,
  type Mls,
  type MlsGroup,
  type PendingCommit,
} from '../../mls/index.ts';
import { nodeKeyAt, stateOf } from '../../mls/group.ts';
import { returnRequest } from '../returning/resync-request.ts';
import { standingLimits } from '../standings/standing-rules.ts';
import { exchange, TestDevice } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';
import { LaterClock, testRuntime } from '../../test-runtime.ts';

const { random } = testRuntime;
const host = 'red.example';

interface Company {
  readonly directory: TestDirectory;
  readonly clock: LaterClock;
  readonly alice: TestDevice;
  readonly bob: TestDevice;
  readonly carol: TestDevice;
  readonly mallory: TestDevice;
  readonly honest: readonly TestDevice[];
  readonly all: readonly TestDevice[];
  readonly id: Uint8Array;
}

const clock = new LaterClock();
const directory = new TestDirectory({ maxBehindMs: 24 * 3_600_000 });
const [alice, bob, carol, mallory] = ['alice', 'bob', 'carol', 'mallory'].map(
  (name) => new TestDevice(`${name}@${host}`, directory, { clock, suites: [xwingSuite] }),
);
assert(alice && bob && carol && mallory);
const people = { alice, bob, carol, mallory };
const all = [alice, bob, carol, mallory];
after(async () => {
  for (const device of all) await device.groups.stop();
});

/** Another group of alice's; mallory is an admin there. */
async function company(): Promise<Company> {
  const others = [people.bob, people.carol, people.mallory].map(({ userId }) => userId);
  const id = await people.alice.conversations.create('open to all', others);
  await exchange(...all);
  await people.alice.conversations.setRole(id, people.mallory.userId, 'admin');
  await exchange(...all);
  for (const { events } of all) events.length = 0;
  const honest = [people.alice, people.bob, people.carol];
  return { directory, clock, ...people, honest, all, id };
}

const groupOf = (device: TestDevice, id: Uint8Array): Promise<MlsGroup> =>
  device.writer.run(async (batch) => {
    const group = batch.group(id);
    assert(group !== undefined);
    return group;
  });

/** Keys that this device opens paths with. */
async function keysOf(device: TestDevice, id: Uint8Array): Promise<readonly string[]> {
  const { ratchetTree, privatePath } = stateOf(await groupOf(device, id));
  return Object.keys(privatePath.privateKeys).flatMap((index) => {
    const key = nodeKeyAt(ratchetTree, Number(index));
    return key === undefined ? [] : [hex(key)];
  });
}

/** What mallory commits with: path secrets for these keys are garbage, and rules are for others. */
function hostileMls(mallory: TestDevice, garbageFor: readonly string[] = []): Mls {
  const honest = createMlsCryptoProvider({ random });
  const provider: CryptoProvider = {
    async getCiphersuiteImpl(id) {
      const suite = await honest.getCiphersuiteImpl(id);
      const { hpke } = suite;
      return {
        ...suite,
        hpke: {
          ...hpke,
          seal: async (key, plaintext, info, aad) => {
            const isMeant = garbageFor.includes(hex(await hpke.exportPublicKey(key)));
            return hpke.seal(key, isMeant ? random.bytes(plaintext.length) : plaintext, info, aad);
          },
        },
      };
    },
  };
  const manifests = mallory.contacts.lookup;
  return createMls({ ...testRuntime, manifests, provider, mayCommit: () => true });
}

const joinPub = signingKeyFromSeed(random.bytes(32)).publicKey;

const headOf = ({ directory, id }: Company): ParsedEntry => {
  const head = directory.hub.copyOf(id).at(-1)?.parsed;
  assert(head !== undefined);
  return head;
};

/** Straight to the hub, which cannot look into it. */
async function submit({ directory, mallory, all }: Company, own: OwnCommit): Promise<ParsedEntry> {
  await directory.callerOf(mallory.rid).call(methods.submitCommit, {
    entry: own.entry,
    commit: own.envelope,
    mid: random.bytes(16),
    targets: all.filter((one) => one !== mallory).map(({ rid }) => ({ rid, domain: host })),
  });
  return parseEntry(own.entry);
}

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

/** The key of external commits behind this one. */
async function joinPubOf({ pending }: Pick<PendingCommit, 'pending'>): Promise<Uint8Array> {
  return (await epochJoinKeys(people.mallory.mls, pending)).signing.publicKey;
}

/** New keys of mallory's, with garbage for whom these keys open. */
async function commitBadly(where: Company, garbageFor: readonly string[]): Promise<PendingCommit> {
  const { mallory, id } = where;
  const mls = hostileMls(mallory, garbageFor);
  const group = await groupOf(mallory, id);
  const made = await mls.rekey(group);
  const facts = { ...made, isRemoval: false, joinPub: await joinPubOf(made) };
  await submit(where, await sealCommit(mls, group, headOf(where), facts, random));
  return made;
}

function lastOf<T extends ClientEvent['type']>(
  { events }: TestDevice,
  type: T,
): Extract<ClientEvent, { type: T }> | undefined {
  const isOf = (event: ClientEvent): event is Extract<ClientEvent, { type: T }> =>
    event.type === type;
  return events.filter(isOf).at(-1);
}

async function assertOne(id: Uint8Array, ...devices: readonly TestDevice[]): Promise<void> {
  const groups = await Promise.all(devices.map((device) => groupOf(device, id)));
  assert.equal(new Set(groups.map((group) => hex(group.epochAuthenticator))).size, 1);
}

/** Who is named, by each of these devices. */
function named(type: 'commitRefused' | 'commitDoubted', devices: readonly TestDevice[]) {
  return devices.map(({ events }) =>
    events.flatMap((event) => (event.type === type ? [event.by?.split('@')[0]] : [])),
  );
}

/** The hub keeps a sealed state of the group since the last honest commit. */
async function comeBack({ clock, all }: Company, device: TestDevice): Promise<void> {
  clock.advance(3_600_000);
  await device.groups.resyncs.run();
  await exchange(...all);
}

/** They talk, they commit, and they throw mallory out. */
async function assertAlive(where: Company, devices = where.honest): Promise<void> {
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

describe('what devices say of a commit', () => {
  test('counts by its signature, for members that stay, and over a restart', async () => {
    const where = await company();
    const { directory, mallory, alice, bob, carol, honest, id } = where;
    const keys = await Promise.all(honest.map((one) => keysOf(one, id)));
    await commitBadly(where, keys.flat());
    const { hash, epoch } = headOf(where);
    for (const row of directory.hub.takeRows(mallory.rid, alice.rid)) await alice.receive(row);
    const group = await groupOf(alice, id);
    const standing = () => alice.groups.standings.of(group, hash);
    assert.deepEqual(standing(), { decision: 'open', isRefusedHere: true });

    const vote = (by: SigningKey, applied: boolean, device = by.publicKey) => {
      const said = Buffer.concat([id, hash, Buffer.of(applied ? 1 : 0)]);
      return { device, applied, signature: signStatement('qpc/standing/1', said, by) };
    };
    const say = async (changes: MessageInitShape<typeof GroupStandingSchema>): Promise<void> => {
      const said = { group: id, epoch: BigInt(epoch), entry: hash, from: bob.rid, ...changes };
      const message = create(GroupStandingSchema, { ...said, id: random.bytes(16) });
      const bytes = toBinary(GroupStandingSchema, message);
      const { key } = await envelopeKeyOf(alice.mls, await groupOf(alice, id));
      const content = { kind: 'groupStanding', bytes } as const;
      await alice.receive({
        mid: random.bytes(16),
        payload: sealChannel({ content, key, random }),
      });
    };
    const stranger = new TestDevice(`stranger@${host}`, directory);
    const told = alice.rowsFor(bob).length;
    const before = alice.store.inbox.undecryptable().length;
    // Of the author; of nobody; in another's name; in both of one's own.
    await say({ votes: [vote(mallory.identityKey, false)] });
    await say({ votes: [vote(stranger.identityKey, false)], from: stranger.rid, asks: true });
    await say({ votes: [vote(mallory.identityKey, false, carol.rid)] });
    await say({ votes: [{ ...vote(bob.identityKey, true), applied: false }] });
    await say({ votes: [], from: bob.rid, asks: true });
    await say({ votes: [], epoch: BigInt(epoch) + 9n });
    await say({ votes: [], entry: random.bytes(32) });
    assert.deepEqual(standing(), { decision: 'open', isRefusedHere: true });
    // It was told to all before anybody asked: nothing is said twice.
    assert.equal(alice.rowsFor(bob).length, told);
    await say({ votes: [], entry: random.bytes(31) });
    await say({ votes: [], group: random.bytes(32) });
    await say({ votes: [], epoch: 0n });
    const refused = alice.store.inbox
      .undecryptable()
      .map(({ reason }) => reason)
      .slice(before);
    assert.deepEqual(refused, ['MALFORMED', 'UNKNOWN_GROUP', 'MALFORMED']);

    alice.restart();
    await say({ votes: [vote(bob.identityKey, false)] });
    assert.equal(standing()?.decision, 'rejected');
    // More than half said so: whoever says something else now comes too late.
    await say({ votes: [vote(bob.identityKey, true), vote(carol.identityKey, true)] });
    assert.equal(standing()?.decision, 'rejected');
  });
});

test('whose device comes back has no vote on it, however it is read', async () => {
  const id = await alice.conversations.create('three of us', [carol.userId, mallory.userId]);
  const three = [alice, carol, mallory];
  await exchange(...three);
  const where = { directory, clock, ...people, honest: [alice, carol], all: three, id };
  const ofCarol = await keysOf(carol, id);
  const garbageFor = (await keysOf(alice, id)).filter((key) => !ofCarol.includes(key));
  // mallory takes a new leaf, with path secrets that carol can open and alice cannot.
  const mls = hostileMls(mallory, garbageFor);
  const { userId, deviceId, signatureKey } = mallory;
  const before = await groupOf(mallory, id);
  const groupInfo = await mls.groupInfoOf(before);
  const own = { identity: { userId, deviceId }, signatureKey };
  const back = await mls.comeBack(groupInfo, before, own);
  const keys = await epochJoinKeys(mls, before);
  const place = { hub: host, tip: headOf(where), groupInfo, keys, writeKey: undefined };
  const parts = { store: mallory.store, mls, random };
  const { request } = await returnRequest(parts, { ...place, key: random.bytes(32) }, back);
  const submitted = fromBinary(SubmitCommitRequestSchema, request);
  await directory.callerOf(mallory.rid).call(methods.submitCommit, submitted);
  const { hash, epoch } = headOf(where);
  for (const to of [alice, carol]) {
    for (const row of directory.hub.takeRows(mallory.rid, to.rid)) await to.receive(row);
    assert.deepEqual(to.store.standings.doubt(id, hash)?.voters, [alice.userId, carol.userId]);
  }
  // It tells alice that it will not have it either: with that vote alice alone would pass it over.
  const said = Buffer.concat([id, hash, Buffer.of(0)]);
  const signature = signStatement('qpc/standing/1', said, mallory.identityKey);
  const message = create(GroupStandingSchema, {
    ...{ group: id, epoch: BigInt(epoch), entry: hash, from: mallory.rid },
    votes: [{ device: mallory.rid, applied: false, signature }],
    id: random.bytes(16),
  });
  const { key } = await envelopeKeyOf(mls, before);
  const content = { kind: 'groupStanding', bytes: toBinary(GroupStandingSchema, message) } as const;
  await alice.receive({ mid: random.bytes(16), payload: sealChannel({ content, key, random }) });
  await exchange(alice, carol);
  assert.equal(alice.groups.standings.of(await groupOf(alice, id), hash)?.decision, 'taken');
  await carol.conversations.rotateKeys(id);
  await exchange(alice, carol);
  await comeBack({ ...where, all: [alice, carol] }, alice);
  await assertOne(id, alice, carol);
});

test('who was removed does not undo that by refusing what was before', async () => {
  const id = await alice.conversations.create('two of us', [mallory.userId]);
  await exchange(...all);
  const before = await groupOf(mallory, id);
  const parent = directory.hub.copyOf(id).at(-1)?.parsed;
  assert(parent !== undefined);
  await alice.conversations.rotateKeys(id);
  const entry = directory.hub.copyOf(id).at(-1)?.parsed;
  assert(entry !== undefined);
  alice.events.length = 0;
  await alice.conversations.removeMembers(id, [mallory.userId]);
  // mallory alone had a vote on alice's keys, and goes on from before them.
  const said = Buffer.concat([id, entry.hash, Buffer.of(0)]);
  const signature = signStatement('qpc/standing/1', said, mallory.identityKey);
  const message = create(GroupStandingSchema, {
    ...{ group: id, epoch: BigInt(entry.epoch), entry: entry.hash, from: mallory.rid },
    votes: [{ device: mallory.rid, applied: false, signature }],
    id: random.bytes(16),
  });
  const { key } = await envelopeKeyOf(mallory.mls, before);
  const content = { kind: 'groupStanding', bytes: toBinary(GroupStandingSchema, message) } as const;
  await alice.receive({ mid: random.bytes(16), payload: sealChannel({ content, key, random }) });
  const made = await mallory.mls.rekey(before);
  const facts = { ...made, isRemoval: false, joinPub, rejects: [entry.hash] };
  const own = await sealCommit(mallory.mls, before, parent, facts, random);
  await directory.callerOf(mallory.rid).call(methods.submitCommit, {
    entry: own.entry,
    commit: own.envelope,
    mid: random.bytes(16),
    targets: [{ rid: alice.rid, domain: host }],
  });
  for (const row of directory.hub.takeRows(mallory.rid, alice.rid)) await alice.receive(row);
  await alice.settle();
  const now = await groupOf(alice, id);
  assert.deepEqual(
    now.members().map(({ userId }) => userId),
    [alice.userId],
  );
  assert.equal(lastOf(alice, 'leftBehind'), undefined);
  await alice.conversations.rotateKeys(id);
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
    const facts = { ...added, isRemoval: false, joinPub: await joinPubOf(added) };
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
