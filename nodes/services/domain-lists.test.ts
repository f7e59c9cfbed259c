/** What a node remembers of posters' domains stays within its bounds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DomainLists } from './domain-lists.ts';

const names = (count: number): string[] => Array.from({ length: count }, (_, n) => `d${n}.example`);

test('the list that was not used for longest goes, by count and by names', () => {
  const lists = new DomainLists({ lists: 3, names: 10 });
  for (const key of ['a', 'b', 'c']) lists.put(key, names(2));
  assert.deepEqual(lists.get('a'), names(2));
  lists.put('d', names(2));
  assert.deepEqual([lists.get('b'), lists.get('a')?.length], [undefined, 2]);
  // The same once more takes no more room.
  for (let n = 0; n < 9; n += 1) lists.put('a', names(3));
  assert.deepEqual(lists.get('c'), names(2));
  lists.put('e', names(8));
  assert.deepEqual(
    ['a', 'c', 'd', 'e'].map((key) => lists.get(key)?.length),
    [undefined, 2, undefined, 8],
  );
  lists.put('f', names(11));
  assert.equal(lists.get('f'), undefined, 'more than fits is named each time');
  lists.put('g', names(10));
  assert.deepEqual(lists.get('g'), names(10));
});
