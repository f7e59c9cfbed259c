/** Holes against a model: whatever order numbers come in, what is missing below the newest is known. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { holeLimits, noteNumber, rangesOf, takeOut, without } from './number-ranges.ts';
import { openEnd } from '../sending/resend-request.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';

const groupId = new Uint8Array(32).fill(1);
const sender = new Uint8Array(32).fill(2);

describe('the numbers of a sender', () => {
  test('leave as holes exactly what is missing below the newest one', () => {
    const numbers = fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 60 });
    fc.assert(
      fc.property(numbers, fc.option(fc.nat(60)), fc.nat(1), (arriving, openAt, asks) => {
        using store = openMemoryStore();
        const rows = store.resend;
        const seen = new Set<number>();
        let openFrom: number | undefined;
        for (const [index, n] of arriving.entries()) {
          if (index === openAt) {
            openFrom = rows.top(groupId, sender) + 1;
            const hole = { groupId, sender, from: openFrom, to: openEnd, state: 'OPEN' } as const;
            rows.putHole({ ...hole, foundMs: 0, asks, nextMs: 0 });
          }
          noteNumber(rows, { groupId, sender, n }, index);
          if (n > 0) seen.add(n);
        }
        const top = Math.max(0, ...seen);
        assert.equal(rows.top(groupId, sender), top);
        const isMissing = (n: number): boolean => n <= top && !seen.has(n);
        for (let n = 1; n <= 45; n += 1) {
          const isHole = rows.holeAt(groupId, sender, n) !== undefined;
          // A question that was asked ends with the first that comes.
          const isOpen = openFrom !== undefined && (asks === 0 || top < openFrom);
          const isAhead = openFrom !== undefined && isOpen && n > top && n >= openFrom;
          assert.equal(isHole, isMissing(n) || isAhead, `number ${n}`);
        }
        const holes = rows.holesOf(groupId, sender);
        for (const [index, { from, to }] of holes.entries()) {
          assert(from <= to && (index === 0 || from > (holes[index - 1]?.to ?? 0)), 'overlap');
        }
      }),
      { numRuns: 60 },
    );
  });

  test('that leave more holes than the bound are recorded and not asked for', () => {
    using store = openMemoryStore();
    for (let n = 2; n <= 4 * holeLimits.openPerSender; n += 2) {
      noteNumber(store.resend, { groupId, sender, n }, 0);
    }
    const holes = store.resend.holesOf(groupId, sender);
    assert.equal(holes.length, 2 * holeLimits.openPerSender);
    assert.equal(holes.filter(({ state }) => state === 'OPEN').length, holeLimits.openPerSender);
    noteNumber(store.resend, { groupId, sender, n: openEnd }, 0);
    assert.equal(store.resend.top(groupId, sender), openEnd);
    const [first] = holes;
    assert(first !== undefined);
    assert.deepEqual(takeOut(store.resend, first, { from: 1, to: 1 }), { from: 1, to: 1 });
    assert.equal(takeOut(store.resend, first, { from: 5, to: 9 }), undefined);
  });

  test('that split one hole again and again are bounded alike', () => {
    using store = openMemoryStore();
    const { resend } = store;
    noteNumber(resend, { groupId, sender, n: 2 ** 50 }, 0);
    for (let n = 2; n <= 4 * holeLimits.openPerSender; n += 2) {
      noteNumber(resend, { groupId, sender, n }, 0);
    }
    const holes = resend.holesOf(groupId, sender);
    assert.equal(holes.length, 2 * holeLimits.openPerSender + 1);
    const open = holes.filter(({ state }) => state === 'OPEN');
    assert.equal(open.length, holeLimits.openPerSender);
    assert.equal(open.at(-1)?.to, 2 ** 50 - 1, 'the part that is left is asked for');
    assert(holes.every(({ state, nextMs }) => (state === 'OPEN') === (nextMs !== undefined)));
  });

  test('are told apart as ranges', () => {
    const numbers = fc.uniqueArray(fc.integer({ min: 1, max: 30 }));
    fc.assert(
      fc.property(numbers, (some) => {
        const sorted = [...some].sort((a, b) => a - b);
        const listed = (ranges: readonly { from: number; to: number }[]): number[] =>
          ranges.flatMap(({ from, to }) =>
            Array.from({ length: to - from + 1 }, (_, i) => from + i),
          );
        assert.deepEqual(listed(rangesOf(sorted)), sorted);
        assert.deepEqual(
          listed(without({ from: 1, to: 30 }, sorted)),
          Array.from({ length: 30 }, (_, i) => i + 1).filter((n) => !some.includes(n)),
        );
      }),
    );
  });
});
