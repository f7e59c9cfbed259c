/**
 * A first conversation while no node answers: the group stands before its hub has heard of it, for two people
 * who hold each other's card, and for nobody else; the hub's word comes later, and changes nothing.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  parseEntry,
  PermissionDeniedError,
  RowKind,
  signEntry,
  TransportError,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GroupControlSchema,
  GroupEntrySchema,
  SubmitCommitRequestSchema,
  toBinary,
  type SignedGroupEntry,
} from '@quicprochat/proto/messages';
import { cardsOf, cardTimes, follow, ready } from '../cards/test-cards.ts';
import { sealHybrid } from '../crypto/envelope.ts';
import { isUncertified, mayFollow } from './first-contact.ts';
import { controlOf } from '../groups/log/group-walker.ts';
import { inspectWelcome } from '../mls/index.ts';
import { TestDevice, type TestRow } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { testRuntime } from '../test-runtime.ts';

const { random } = testRuntime;
const red = 'red.example';

/** Devices of as many people, who hold the cards that `has` says, and no node. */
async function inTheDark(
  names: readonly string[],
  has: (holder: string, of: string) => boolean = () => true,
) {
  const directory = new TestDirectory(cardTimes);
  const devices = names.map((name) => new TestDevice(`${name}@${red}`, directory));
  for (const device of devices) {
    await ready(device);
    await device.knowItself();
  }
  for (const device of devices) {
    await follow(device, red);
    device.cards = cardsOf(device);
  }
  for (const holder of devices) {
    for (const of of devices) {
      if (holder === of) continue;
      if (!has(holder.userId, of.userId)) {
        // Met in the log, and given no card by.
        await holder.contacts.resolve(of.userId, directory);
        continue;
      }
      const card = of.cards?.export();
      if (card !== undefined) await holder.cards?.import(card);
    }
  }
  directory.isDown = true;
  const [alice, bob, carol] = devices;
  assert(alice !== undefined && bob !== undefined);
  return { directory, alice, bob, carol };
}

/** What a device has for another one, straight to it. */
async function pass(from: TestDevice, to: TestDevice, rows = from.rowsFor(to)): Promise<void> {
  for (const { mid, payload } of rows) {
    await to.receiver.receivePeer({ mid, payload, via: 'direct' });
    await to.settle();
  }
}

const texts = (device: TestDevice, id: Uint8Array): readonly string[] =>
  device.history(id).map(({ text }) => text);

/** The first commit as the hub will get it. */
function submitted({ store }: TestDevice, groupId: Uint8Array) {
  const [pending] = store.groupLog.pendings(groupId);
  assert(pending !== undefined);
  return { pending, ...fromBinary(SubmitCommitRequestSchema, pending.request) };
}

describe('a conversation that begins in the dark', () => {
  test('flows at once, and is the hub’s when it is back, the same after a restart', async () => {
    const { directory, alice, bob, carol } = await inTheDark(['alice', 'bob', 'carol']);
    assert(carol !== undefined);
    const id = await alice.conversations.create('dark', [bob.userId]);
    await alice.conversations.send(id, 'one');
    await pass(alice, bob);
    await bob.conversations.send(id, 'two');
    await pass(bob, alice);
    for (const device of [alice, bob]) {
      assert.deepEqual(texts(device, id), ['one', 'two']);
      assert.equal(isUncertified(device.store, id), true);
    }
    // It comes again by another way, and what bob wants changed waits.
    await pass(alice, bob);
    const wanted = await bob.groups.committer.add(id, { kind: 'rekey' });
    await bob.settle();
    assert.equal(bob.store.groupLog.intent(wanted)?.state, 'OPEN');
    alice.restart();
    await alice.conversations.send(id, 'three');
    await pass(alice, bob);

    directory.isDown = false;
    alice.groups.committer.kick();
    await alice.settle();
    assert.equal(isUncertified(alice.store, id), false);
    assert.deepEqual(alice.store.groupLog.pendings(id), []);
    assert.deepEqual(alice.store.groupLog.openIntents(id), []);
    // The hub's Welcome is nothing new, except for its word.
    for (const row of directory.hub.takeRows(alice.rid, bob.rid)) await bob.receive(row);
    assert.equal(isUncertified(bob.store, id), false);
    await bob.groups.committer.ended(wanted);
    for (const row of directory.hub.takeRows(bob.rid, alice.rid)) await alice.receive(row);
    await alice.conversations.addMembers(id, [carol.userId]);
    for (const device of [alice, bob]) {
      assert.deepEqual(texts(device, id), ['one', 'two', 'three']);
      assert.deepEqual(device.store.inbox.undecryptable(), []);
      assert.equal(device.store.groups.conversations().length, 1);
      assert.equal(
        device.events.filter(({ type }) => type === 'joined').length,
        device === bob ? 1 : 0,
      );
    }
  });

  test('that its hub refuses for good goes on as it is: told once, and nothing is tried for ever', async () => {
    const { directory, alice, bob, carol } = await inTheDark(['alice', 'bob', 'carol']);
    assert(carol !== undefined);
    const id = await alice.conversations.create('dark', [bob.userId]);
    await alice.conversations.send(id, 'one');
    await pass(alice, bob);
    const waiting = await alice.groups.committer.add(id, { kind: 'rekey' });
    directory.isDown = false;
    directory.hub.beforeSubmit = () => Promise.reject(new PermissionDeniedError('BLOCKED', 'no'));
    alice.groups.committer.kick();
    await alice.settle();
    const refusals = (): unknown[] =>
      alice.events.flatMap((event) => (event.type === 'hubRefused' ? [event.reason] : []));
    assert.deepEqual(refusals(), ['BLOCKED']);
    await assert.rejects(alice.groups.committer.ended(waiting), { reason: 'HUB_REFUSED' });
    assert.deepEqual(alice.store.groupLog.openIntents(id), []);
    const again = alice.conversations.addMembers(id, [carol.userId]);
    await assert.rejects(again, { reason: 'HUB_REFUSED' });
    alice.restart();
    await assert.rejects(alice.conversations.addMembers(id, [carol.userId]), {
      reason: 'HUB_REFUSED',
    });
    await alice.settle();
    assert.deepEqual(refusals(), ['BLOCKED'], 'once');
    // The two can talk, and begin another one where their node wants it.
    await alice.conversations.send(id, 'two');
    await pass(alice, bob);
    await bob.conversations.send(id, 'three');
    await pass(bob, alice);
    for (const device of [alice, bob]) assert.deepEqual(texts(device, id), ['one', 'two', 'three']);
    directory.hub.beforeSubmit = undefined;
    assert.notDeepEqual(await alice.conversations.create('anew', [bob.userId]), id);
  });

  test('with nobody, with several, or with somebody without a card, waits for the node', async () => {
    const { alice, bob, carol } = await inTheDark(['alice', 'bob', 'carol'], (_, of) =>
      of.startsWith('bob'),
    );
    assert(carol !== undefined);
    for (const members of [[carol.userId], [bob.userId, carol.userId]]) {
      await assert.rejects(alice.conversations.create('dark', members), TransportError);
    }
    assert.deepEqual(alice.store.groups.conversations(), []);
  });
});

describe('a Welcome without a hub’s word', () => {
  /** Bob gets the Welcome beside an entry that alice changed, in an envelope as she seals it. */
  async function refusedWith(
    change: (entry: SignedGroupEntry, alice: TestDevice) => SignedGroupEntry,
    has?: (holder: string, of: string) => boolean,
  ): Promise<void> {
    const { alice, bob } = await inTheDark(['alice', 'bob'], has);
    const id = await alice.conversations.create('dark', [bob.userId]);
    const { pending, entry } = submitted(alice, id);
    assert(entry !== undefined);
    const mid = random.bytes(16);
    const recipientKey = alice.contacts.prekey(bob.rid);
    assert(recipientKey !== undefined);
    const { entry: changed } = create(GroupControlSchema, {
      entry: { entry: change(entry, alice) },
    });
    const payload = sealHybrid({
      content: { kind: 'welcome', bytes: pending.welcome, ...(changed && { entry: changed }) },
      ...{ recipientKey, rid: bob.rid, mid, random },
    });
    const row: TestRow = { mid, payload };
    await assert.rejects(pass(alice, bob, [row]), { reason: 'BAD_FIELD' });
    assert.deepEqual(bob.store.groups.conversations(), []);
    // A node that brings it does not make it better.
    await bob.receive(row);
    const reasons = bob.store.inbox.undecryptable().map(({ reason }) => reason);
    assert.deepEqual(reasons, ['UNCERTIFIED']);
  }

  test('leads nobody anywhere whose card is not here', async () => {
    await refusedWith(
      (entry) => entry,
      (holder) => holder.startsWith('alice'),
    );
  });

  test('counts for the first epoch of its group and its own state alone', async () => {
    const spoil = (fields: object) => (signed: SignedGroupEntry, alice: TestDevice) =>
      signEntry(
        create(GroupEntrySchema, { ...parseEntry(signed).entry, ...fields }),
        alice.identityKey,
      );
    for (const fields of [
      { epoch: 2n },
      { group: random.bytes(32) },
      { nextCommitPub: random.bytes(32) },
    ]) {
      await refusedWith(spoil(fields));
    }
  });

  test('is of two people at the node of who invites', async () => {
    const { alice, bob, carol } = await inTheDark(['alice', 'bob', 'carol']);
    assert(carol !== undefined);
    const id = await alice.conversations.create('dark', [bob.userId]);
    const { pending, entry } = submitted(alice, id);
    const control = create(GroupControlSchema, { entry: { ...(entry && { entry }) } });
    assert(control.entry !== undefined);
    const { entry: certified } = control;
    const join = async () => {
      const rows = inspectWelcome(pending.welcome).refs.flatMap(
        (ref) => bob.store.keys.keyPackage(ref) ?? [],
      );
      return bob.mls.joinFromWelcome(pending.welcome, rows, bob.signatureKey);
    };
    const rules = { mls: bob.mls, userId: bob.userId, cards: bob.cards };
    const joined = await join();
    assert.equal(await mayFollow(rules, joined, certified), true);
    assert.equal(await mayFollow({ ...rules, cards: undefined }, joined, certified), false);
    assert.equal(await mayFollow({ ...rules, userId: alice.userId }, joined, certified), false);
    const members = joined.group.members();
    for (const [name, value] of [
      ['hubs', ['blue.example']],
      ['hubs', [red, 'blue.example', 'green.example']],
      ['members', () => [...members, { ...members[0], userId: carol.userId }]],
    ] as const) {
      const other = await join();
      Object.defineProperty(other.group, name, { value });
      assert.equal(await mayFollow(rules, other, certified), false, name);
    }
  });

  test('is not made better by a certificate of no hub', async () => {
    const { directory, alice, bob } = await inTheDark(['alice', 'bob']);
    const id = await alice.conversations.create('dark', [bob.userId]);
    await pass(alice, bob);
    const { entry, welcomes } = submitted(alice, id);
    const welcome = welcomes[0]?.welcome;
    assert(entry !== undefined && welcome !== undefined);
    const certified = directory.hub.certify([red], parseEntry(entry), entry);
    certified.signatures[0]?.signature.set([1, 2, 3], 5);
    directory.isDown = false;
    const mid = welcomes[0]?.mid ?? random.bytes(16);
    const payload = toBinary(
      GroupControlSchema,
      create(GroupControlSchema, { entry: certified, welcome }),
    );
    await bob.receive({ mid, payload, kind: RowKind.GroupControl });
    assert.equal(isUncertified(bob.store, id), true);
    const head = bob.store.groupLog.head(id);
    assert(head !== undefined);
    assert.deepEqual(controlOf(head).entry?.signatures, []);
  });
});
