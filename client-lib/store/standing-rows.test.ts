/** What is kept of junk in a group's log is bounded, what decides something is never what goes, and when it is said. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openMemoryStore } from './sqlite-store.ts';
import { standingBounds, type DoubtRow } from './standing-rows.ts';

const [groupId, other] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
const { junk } = standingBounds;

const rowOf = (n: number, changes: Partial<DoubtRow> = {}): DoubtRow => ({
  ...{ groupId, hash: new Uint8Array(32).fill(n), epoch: 5, cause: 'VOID', author: '' },
  ...{ voters: [], seenMs: n, voteMs: undefined, askMs: undefined, round: 0 },
  ...changes,
});

test('nothing is said later than it may be, and nothing that was not to be said', () => {
  using store = openMemoryStore();
  const { standings } = store;
  standings.putDoubt(rowOf(1, { voteMs: 900, askMs: 50 }));
  standings.putDoubt(rowOf(2, { askMs: 900 }));
  standings.putDoubt(rowOf(3));
  standings.putForward(100);
  assert.deepEqual(
    [1, 2, 3].map((n) => {
      const row = standings.doubt(groupId, new Uint8Array(32).fill(n));
      return [row?.voteMs, row?.askMs];
    }),
    [
      [100, 50],
      [undefined, 100],
      [undefined, undefined],
    ],
  );
});

test('the oldest junk makes room for that of a later epoch, and none for more of its own', () => {
  using store = openMemoryStore();
  const { standings } = store;
  const knows = (n: number) => standings.doubt(groupId, new Uint8Array(32).fill(n)) !== undefined;
  // By these it is known that this device is in, who asks is to be answered, and a question is open.
  standings.putDoubt(rowOf(200, { epoch: 1, voters: ['bob@red.example'] }));
  standings.putDoubt(rowOf(201, { epoch: 1, cause: 'PATH', voters: ['bob@red.example'] }));
  standings.putDoubt(rowOf(202, { epoch: 1, cause: 'APPLIED', askMs: 7 }));
  const room = junk - 2;
  for (let n = 0; n < room; n += 1) assert.equal(standings.addDoubt(rowOf(n)), true);
  assert.equal(standings.addDoubt(rowOf(100)), false);
  assert.equal(standings.addDoubt(rowOf(0, { groupId: other })), true, 'another group has its own');
  for (let n = 100; n < 100 + room; n += 1) {
    assert.equal(standings.addDoubt(rowOf(n, { epoch: 6 })), true);
    assert.deepEqual([knows(n), knows(n - 100), knows(n - 99)], [true, false, n - 99 < room]);
  }
  assert.equal(standings.addDoubt(rowOf(199, { epoch: 6 })), false);
  // What may yet be valid goes before what is not.
  assert.equal(standings.addDoubt(rowOf(199, { epoch: 6, cause: 'PATH' })), true);
  assert.equal(knows(100), false);
  assert.ok([200, 201, 202].every(knows));
});
