/** The cache keeps what was used last, within both of its bounds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LruCache } from './lru.ts';

test('the longest unused entry goes first when there are too many', () => {
  const cache = new LruCache<string, number>({ countMax: 2, weightMax: 100 }, () => 1);
  cache.set('a', 1);
  cache.set('b', 2);
  assert.equal(cache.get('a'), 1);
  cache.set('c', 3);
  assert.deepEqual([cache.get('a'), cache.get('b'), cache.get('c')], [1, undefined, 3]);
});

test('the weights of all entries stay within the bound', () => {
  const cache = new LruCache<string, string>({ countMax: 9, weightMax: 5 }, (s) => s.length);
  cache.set('a', 'xx');
  cache.set('b', 'xx');
  cache.set('c', 'xxx');
  assert.deepEqual([cache.get('a'), cache.size, cache.weight], [undefined, 2, 5]);
  cache.set('b', 'x');
  assert.equal(cache.weight, 4);
  cache.set('d', 'xxxxxx');
  assert.deepEqual([cache.get('d'), cache.size, cache.weight], [undefined, 0, 0]);
  cache.set('e', 'x');
  cache.delete('e');
  cache.set('f', 'x');
  cache.clear();
  assert.deepEqual([cache.size, cache.weight], [0, 0]);
});
