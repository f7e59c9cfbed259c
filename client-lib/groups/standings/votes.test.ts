/**
 * What members say of a commit that not of all can apply: whose word counts, once, and as long as what is decided by it
 * is not final. One member is hostile; all devices are real.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { methods, signStatement, type ParsedEntry } from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GroupStandingSchema,
  SubmitCommitRequestSchema,
  toBinary,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { sealChannel } from '../../crypto/envelope.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import type { MlsGroup } from '../../mls/index.ts';
import { groupOf } from '../../test-company.ts';
import { exchange, TestDevice } from '../../test-devices.ts';
import { testRuntime } from '../../test-runtime.ts';
import { sealCommit } from '../log/group-log.ts';
import { epochJoinKeys } from '../returning/group-info.ts';
import { returnRequest } from '../returning/resync-request.ts';
import {
  assertOne,
  comeBack,
  commitBadly,
  groupWithMallory,
  headOf,
  host,
  hostileMls,
  joinPub,
  keysOf,
  lastOf,
  people,
} from '../test-hostile.ts';

const { random } = testRuntime;
const them = people();
const { directory, alice, carol, mallory, all } = them;
after(async () => {
  for (const device of all) await device.groups.stop();
});

/** What a device says of an entry; `device`: in whose name. */
function vote(
  { entry: { group }, hash }: ParsedEntry,
  by: TestDevice,
  applied: boolean,
  device = by.rid,
) {
  const said = Buffer.concat([group, hash, Buffer.of(applied ? 1 : 0)]);
  return { device, applied, signature: signStatement('qpc/standing/1', said, by.identityKey) };
}

/** What is said of an entry, by mallory unless told otherwise, in a row that is sealed as in this state of the group. */
async function tellAlice(
  state: MlsGroup,
  { entry: { group }, hash: entry, epoch }: ParsedEntry,
  changes: MessageInitShape<typeof GroupStandingSchema>,
): Promise<void> {
  const said = { group, epoch: BigInt(epoch), entry, from: mallory.rid, ...changes };
  const message = create(GroupStandingSchema, { ...said, id: random.bytes(16) });
  const bytes = toBinary(GroupStandingSchema, message);
  const { key } = await envelopeKeyOf(alice.mls, state);
  const content = { kind: 'groupStanding', bytes } as const;
  await alice.receive({ mid: random.bytes(16), payload: sealChannel({ content, key, random }) });
}

describe('what devices say of a commit', () => {
  test('counts by its signature, for members that stay, and over a restart', async () => {
    const where = await groupWithMallory(them);
    const { directory, mallory, alice, bob, carol, honest, id } = where;
    const keys = await Promise.all(honest.map((one) => keysOf(one, id)));
    await commitBadly(where, keys.flat());
    const head = headOf(where);
    const { hash, epoch } = head;
    for (const row of directory.hub.takeRows(mallory.rid, alice.rid)) await alice.receive(row);
    const group = await groupOf(alice, id);
    const standing = () => alice.groups.standings.of(group, hash);
    assert.deepEqual(standing(), { decision: 'open', isRefusedHere: true });

    const own = (by: TestDevice, applied: boolean, device?: Uint8Array) =>
      vote(head, by, applied, device);
    const say = (changes: MessageInitShape<typeof GroupStandingSchema>) =>
      tellAlice(group, head, { from: bob.rid, ...changes });
    const stranger = new TestDevice(`stranger@${host}`, directory);
    const told = alice.rowsFor(bob).length;
    const before = alice.store.inbox.undecryptable().length;
    // Of the author; of nobody; in another's name; in both of one's own.
    await say({ votes: [own(mallory, false)] });
    await say({ votes: [own(stranger, false)], from: stranger.rid, asks: true });
    await say({ votes: [own(mallory, false, carol.rid)] });
    await say({ votes: [{ ...own(bob, true), applied: false }] });
    await say({ votes: [], from: bob.rid, asks: true });
    await say({ votes: [], epoch: BigInt(epoch) + 9n });
    await say({ votes: [], entry: random.bytes(32) });
    assert.deepEqual(standing(), { decision: 'open', isRefusedHere: true });
    // It was told to all before anybody asked: nothing is said twice.
    assert.equal(alice.rowsFor(bob).length, told);
    await say({ votes: [], entry: random.bytes(31) });
    // Of a group that this device is not in, or not yet: no message is missing for want of it.
    await say({ votes: [], group: random.bytes(32) });
    await say({ votes: [], epoch: 0n });
    const refused = alice.store.inbox
      .undecryptable()
      .map(({ reason }) => reason)
      .slice(before);
    assert.deepEqual(refused, ['MALFORMED', 'MALFORMED']);

    alice.restart();
    await say({ votes: [own(bob, false)] });
    assert.equal(standing()?.decision, 'rejected');
    // More than half said so: whoever says something else now comes too late.
    await say({ votes: [own(bob, true), own(carol, true)] });
    assert.equal(standing()?.decision, 'rejected');
  });
});

test('whose device comes back has no vote on it, however it is read', async () => {
  const id = await alice.conversations.create('three of us', [carol.userId, mallory.userId]);
  const three = [alice, carol, mallory];
  await exchange(...three);
  const where = { ...them, honest: [alice, carol], all: three, id };
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
  const { keyId: channelKeyId } = await envelopeKeyOf(mls, before);
  const place = {
    ...{ hub: host, tip: headOf(where), groupInfo, keys, channelKeyId },
    writeKey: undefined,
  };
  const parts = { store: mallory.store, mls, random };
  const { request } = await returnRequest(parts, { ...place, key: random.bytes(32) }, back);
  const submitted = fromBinary(SubmitCommitRequestSchema, request);
  await directory.callerOf(mallory.rid).call(methods.submitCommit, submitted);
  const head = headOf(where);
  const { hash } = head;
  for (const to of [alice, carol]) {
    for (const row of directory.hub.takeRows(mallory.rid, to.rid)) await to.receive(row);
    assert.deepEqual(to.store.standings.doubt(id, hash)?.voters, [alice.userId, carol.userId]);
  }
  // It tells alice that it will not have it either: with that vote alice alone would pass it over.
  await tellAlice(before, head, { votes: [vote(head, mallory, false)] });
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
  await tellAlice(before, entry, { votes: [vote(entry, mallory, false)] });
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
