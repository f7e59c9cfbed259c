/** Who is removed and invited again goes on reading: also what was sealed while it was in, and comes only now. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { mandatorySuite, xwingSuite, type MlsSuite } from '../../mls/index.ts';
import { company, groupOf, type Company } from '../../test-company.ts';
import { assertHas, exchange, TestDevice, type TestRow } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';

/** What `from` has for `to`, which nobody hands over by himself any more. */
function taken(from: TestDevice, to: TestDevice): readonly TestRow[] {
  const rows: TestRow[] = [];
  for (;;) {
    const entry = from.store.outbox.next(Buffer.from(to.rid).toString('hex'), 0);
    if (entry === undefined) return rows;
    from.store.outbox.markAccepted(entry.id, new Uint8Array(8), from.runtime.clock.now());
    rows.push({ mid: entry.mid, payload: entry.payload });
  }
}

/** bob's text for carol is under way while alice takes her out and invites her again. */
async function throughTheDoor({ alice, bob, carol, id }: Company): Promise<readonly TestRow[]> {
  await bob.conversations.send(id, 'late');
  const late = taken(bob, carol);
  await alice.conversations.removeMembers(id, [carol.userId]);
  await exchange(alice, bob, carol);
  assert.equal(carol.store.groups.conversation(id)?.ended, 'REMOVED');
  await alice.conversations.addMembers(id, [carol.userId]);
  await exchange(alice, bob, carol);
  assert.equal(carol.store.groups.conversation(id)?.ended, undefined);
  return late;
}

/** alice's group with bob and carol, and carol's first invitation, for who starts anew with it. */
async function beginning(suite: MlsSuite) {
  const directory = new TestDirectory();
  const { hub } = directory;
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(
    (name) => new TestDevice(`${name}@red.example`, directory, { suites: [suite] }),
  );
  assert(alice !== undefined && bob !== undefined && carol !== undefined);
  const id = await alice.conversations.create('door', [bob.userId, carol.userId]);
  const [first] = hub.rowsOf(alice.rid, carol.rid);
  assert(first !== undefined);
  await exchange(alice, bob, carol);
  return { hub, first, alice, bob, carol, id };
}

describe('who is removed and invited again', () => {
  for (const suite of [xwingSuite, mandatorySuite]) {
    test(`reads what was sealed for it before (suite ${suite})`, async () => {
      const all = await company([suite]);
      const { bob, carol, alice, id } = all;
      const late = await throughTheDoor(all);
      carol.restart();
      for (const row of late) await carol.receive(row);
      await alice.conversations.send(id, 'new');
      await exchange(alice, bob, carol);
      assertHas(carol, id, ['late', 'new']);
      // Once more, with another epoch's end between.
      const later = await throughTheDoor(all);
      for (const row of later) await carol.receive(row);
      assertHas(carol, id, ['late', 'new', 'late']);
      const { epoch } = await groupOf(carol, id);
      assert.equal(epoch, (await groupOf(alice, id)).epoch);
    });
  }

  for (const suite of [xwingSuite, mandatorySuite]) {
    test(`before it has read that it was out reads all of it, in whatever order it comes (suite ${suite})`, async () => {
      const { hub, first, alice, bob, carol, id } = await beginning(suite);
      await bob.conversations.send(id, 'before');
      await alice.conversations.removeMembers(id, [carol.userId]);
      await exchange(alice, bob);
      await alice.conversations.addMembers(id, [carol.userId]);
      const rows = [...hub.takeRows(alice.rid, carol.rid), ...taken(bob, carol)];
      await exchange(alice, bob);
      await bob.conversations.send(id, 'after');
      rows.push(...taken(bob, carol));
      assert.equal(rows.length, 4);
      await fc.assert(
        fc.asyncProperty(
          fc.shuffledSubarray(rows, { minLength: rows.length }),
          fc.nat(rows.length),
          async (order, restart) => {
            carol.fresh();
            await carol.receive(first);
            for (const [step, row] of order.entries()) {
              if (step === restart) carol.restart();
              await carol.receive(row);
            }
            assertHas(carol, id, ['before', 'after']);
            assert.equal(carol.store.groups.conversation(id)?.ended, undefined);
          },
        ),
        { numRuns: 5 },
      );
    });
  }
});
