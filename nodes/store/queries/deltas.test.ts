/** Ascending numbers as differences: small, exact up to 2^53 - 1, refused when they are none. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { decodeDeltas, encodeDeltas } from './deltas.ts';

test('ascending numbers come back', () => {
  const max = Number.MAX_SAFE_INTEGER;
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.nat(300), fc.maxSafeNat()), { maxLength: 50 }), (numbers) => {
      const ascending = numbers.toSorted((a, b) => a - b);
      assert.deepEqual(decodeDeltas(encodeDeltas(ascending)), ascending);
    }),
  );
  assert.deepEqual(decodeDeltas(encodeDeltas([0, 0, max, max])), [0, 0, max, max]);
});

test('neighbours cost a byte each', () => {
  assert.deepEqual([...encodeDeltas([300, 301, 301, 428])], [172, 2, 1, 0, 127]);
});

test('what does not ascend, and bytes that nobody encoded, are refused', () => {
  for (const numbers of [[2, 1], [-1], [0.5], [2 ** 53]]) {
    assert.throws(() => encodeDeltas(numbers), { name: 'TypeError' });
  }
  assert.throws(() => decodeDeltas(Uint8Array.of(1, 128)), /cut off/);
  assert.throws(() => decodeDeltas(new Uint8Array(9).fill(255).with(8, 1)), /out of bounds/);
});
