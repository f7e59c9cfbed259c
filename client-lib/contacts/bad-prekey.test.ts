/**
 * A prekey that nothing can be sealed to, from a hostile member or its node: no prekey, so that only its device gets
 * nothing. Also where a store has kept one.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hasReason } from '@quicprochat/proto';
import { fetchPrekeys } from '../account/prekeys.ts';
import { mandatorySuite, xwingSuite } from '../mls/index.ts';
import { company } from '../test-company.ts';
import { exchange, prekeyOf, takeRows, TestDevice } from '../test-devices.ts';

const refused =
  (...reasons: string[]) =>
  (error: unknown) =>
    hasReason(error, ...reasons);

/** An ML-KEM key that is not reduced; an X25519 point of small order beside a sound one. */
const unreduced = new Uint8Array(1216).fill(0xff);
const smallOrder = new Uint8Array(1216).fill(9, 0, 1184);

/** As a store may have it from before keys were looked at. */
function keep(at: TestDevice, of: TestDevice): void {
  const notAfterMs = at.runtime.clock.now() + 8 * 24 * 3_600_000;
  at.store.contacts.putPrekey(of.rid, unreduced, notAfterMs);
}

describe('a prekey that nothing can be sealed to', () => {
  test('is not taken in, and takes the place of no other', async () => {
    const { directory, alice, bob, carol } = await company([mandatorySuite]);
    const before = alice.contacts.prekey(bob.rid);
    assert(before !== undefined);
    for (const key of [unreduced, smallOrder]) {
      const prekey = prekeyOf(bob, key);
      assert.throws(() => alice.contacts.acceptPrekey(bob.rid, prekey), refused('BAD_FIELD'));
      directory.serve(bob.userId, { prekey });
      const fresh = prekeyOf(carol);
      directory.serve(carol.userId, { prekey: fresh });
      const { contacts } = alice;
      await fetchPrekeys({ contacts, caller: directory }, [bob.userId, carol.userId]);
      assert.deepEqual(contacts.prekey(bob.rid), before);
      assert.deepEqual(contacts.prekey(carol.rid), contacts.acceptPrekey(carol.rid, fresh));
    }
  });

  test('is fetched anew where a store has one, before a message is sealed', async () => {
    const { directory, alice, bob, carol, id } = await company([mandatorySuite]);
    keep(alice, bob);
    directory.serve(bob.userId, { prekey: prekeyOf(bob) });
    await alice.conversations.send(id, 'sealed');
    assert.deepEqual([takeRows(alice, bob).length, takeRows(alice, carol).length], [1, 1]);
  });

  test('holds up its own copy of a message and no other', async () => {
    const { directory, alice, bob, carol, id } = await company([mandatorySuite]);
    keep(alice, bob);
    directory.serve(bob.userId, { prekey: undefined });
    await alice.conversations.send(id, 'sealed for one');
    assert.deepEqual([takeRows(alice, bob).length, takeRows(alice, carol).length], [0, 1]);
  });

  test('keeps nobody from asking others for what is missing, nor does a group that cannot be read', async () => {
    const { clock, directory, alice, bob, carol, id } = await company([xwingSuite]);
    const broken = await alice.conversations.create('broken', [bob.userId]);
    await exchange(alice, bob, carol);
    takeRows(bob, alice);
    keep(bob, carol);
    directory.serve(carol.userId, { prekey: undefined });
    const nowMs = clock.now();
    const holes = [
      { groupId: broken, sender: alice.rid, nextMs: nowMs - 3 },
      { groupId: id, sender: carol.rid, nextMs: nowMs - 2 },
      { groupId: id, sender: alice.rid, nextMs: nowMs - 1 },
    ];
    for (const hole of holes) {
      const missing = { from: 1, to: 3, state: 'OPEN', foundMs: nowMs, asks: 0 } as const;
      bob.store.resend.putHole({ ...hole, ...missing });
    }
    bob.store.groups.putHot(broken, new Uint8Array(3));
    bob.restart();
    await bob.holes.askDue();
    assert.equal(takeRows(bob, alice).length, 1);
    const after = holes.flatMap(({ groupId, sender }) => bob.store.resend.holesOf(groupId, sender));
    assert.deepEqual(
      after.map(({ asks, nextMs = 0 }) => [asks, nextMs > clock.now()]),
      [
        [0, true],
        [0, true],
        [1, true],
      ],
    );
  });

  test('does not hold up the commit that invites its device', async () => {
    const { directory, clock, alice, bob, carol, id } = await company([xwingSuite]);
    const [dave, erin] = ['dave', 'erin'].map(
      (name) => new TestDevice(`${name}@red.example`, directory, { clock, suites: [xwingSuite] }),
    );
    assert(dave !== undefined && erin !== undefined);
    // Between making and merging.
    directory.hub.beforeSubmit = async () => keep(alice, dave);
    await alice.conversations.addMembers(id, [dave.userId, erin.userId]);
    await exchange(alice, bob, carol, dave, erin);
    await alice.conversations.send(id, 'welcome');
    await exchange(alice, bob, carol, dave, erin);
    for (const one of [bob, dave, erin]) assert.equal(one.history(id).at(-1)?.text, 'welcome');
  });

  test('is none of a device that is invited', async () => {
    const { directory, clock, alice, id } = await company([xwingSuite]);
    const dave = new TestDevice('dave@red.example', directory, { clock, suites: [xwingSuite] });
    directory.serve(dave.userId, { prekey: prekeyOf(dave, unreduced) });
    await assert.rejects(
      alice.conversations.addMembers(id, [dave.userId]),
      refused('NO_KEY_PACKAGE'),
    );
  });
});
