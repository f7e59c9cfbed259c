/** The bound of answers that wait for their readers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnreadAnswers } from './unread-answers.ts';

function readers(count: number) {
  const ended: number[] = [];
  const list = Array.from({ length: count }, (_, index) => ({
    bytes: 0,
    end: () => void ended.push(index),
  }));
  return { ended, list };
}

test('above the bound the reader with most waiting is ended, and counts no more', () => {
  const unread = new UnreadAnswers(100);
  const { ended, list } = readers(3);
  const [a, b, c] = list;
  assert.ok(a && b && c);
  const taken = unread.hold(a, 30);
  const stale = unread.hold(b, 40);
  unread.hold(c, 30);
  assert.deepEqual(ended, []);
  unread.hold(c, 5);
  assert.deepEqual(ended, [1]);
  // Its answers fail later; that is nobody's gain.
  stale();
  unread.hold(a, 35);
  assert.deepEqual(ended, [1]);
  unread.hold(a, 1);
  assert.deepEqual(ended, [1, 0]);
  taken();
  unread.hold(c, 65);
  assert.deepEqual(ended, [1, 0]);
});

test('what was read counts no more, and one who is alone may go too', () => {
  const unread = new UnreadAnswers(100);
  const { ended, list } = readers(1);
  const [only] = list;
  assert.ok(only);
  for (let n = 0; n < 50; n += 1) unread.hold(only, 90)();
  assert.deepEqual([ended, only.bytes], [[], 0]);
  unread.hold(only, 101);
  assert.deepEqual(ended, [0]);
});

test('answers to one that was ended already count for nobody, in whatever order they fail', () => {
  const unread = new UnreadAnswers(100);
  const { ended, list } = readers(2);
  const [greedy, other] = list;
  assert.ok(greedy && other);
  const early = [unread.hold(greedy, 80), unread.hold(greedy, 40)];
  assert.deepEqual(ended, [0]);
  // Of the same turn: its handler has not heard of the end yet.
  const late = unread.hold(greedy, 10);
  for (const release of [...early, late]) release();
  assert.equal(greedy.bytes, 0);
  // The bound is where it was.
  unread.hold(other, 101);
  assert.deepEqual(ended, [0, 1]);
});
