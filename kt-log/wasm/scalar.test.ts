/** Numbers modulo the order in WebAssembly against numbers of any size. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { digits } from './curve.ts';
import { at } from './module.ts';
import { digitCount, order } from './scalar.ts';
import { arithmetics } from './test-curve.ts';

const [{ curve } = assert.fail('no arithmetic')] = arithmetics;
const { run, memory } = curve;

const put = (address: number, value: bigint, bytes: number): void => {
  const hex = value.toString(16).padStart(2 * bytes, '0');
  memory.set(Buffer.from(hex, 'hex').reverse(), address);
};
const get = (address: number): bigint =>
  BigInt(
    `0x${Buffer.from(memory.slice(address, address + 32))
      .reverse()
      .toString('hex')}`,
  );
/** Any number of so many bits, often one at the edge or around a multiple of the order. */
function numbers(bits: bigint): fc.Arbitrary<bigint> {
  const max = 2n ** bits - 1n;
  const around = fc
    .tuple(fc.bigInt({ min: 0n, max: max / order + 1n }), fc.bigInt({ min: -2n, max: 2n }))
    .map(([times, off]) => times * order + off)
    .filter((value) => value >= 0n && value <= max);
  const edges = fc.constantFrom(0n, 1n, max, max - 1n, 2n ** (bits - 1n));
  return fc.oneof(edges, around, fc.bigInt({ min: 0n, max }));
}

test('wide + c x modulo the order, at every edge', () => {
  fc.assert(
    fc.property(numbers(512n), numbers(128n), numbers(256n), (wide, c, x) => {
      put(at.wide, wide, 64);
      put(at.challenge, c, 16);
      put(at.scalar, x, 32);
      run.multiplyAdd(at.nonces, at.wide, at.challenge, at.scalar);
      assert.equal(get(at.nonces), (wide + c * x) % order);
    }),
    { numRuns: 2000 },
  );
});

test('digits are from -8 to 7 and make up the number; the opposite ones its opposite', () => {
  fc.assert(
    fc.property(numbers(254n), (value) => {
      put(at.scalar, value, 32);
      for (const [routine, sign] of [
        [run.digits, 1n],
        [run.negativeDigits, -1n],
      ] as const) {
        routine(digits(0), at.scalar);
        const found = Array.from(new Int8Array(memory.buffer, digits(0), digitCount));
        for (const digit of found)
          assert.ok(digit * Number(sign) >= -8 && digit * Number(sign) < 8);
        const sum = found.reduceRight((above, digit) => 16n * above + BigInt(digit), 0n);
        assert.equal(sum, sign * value);
      }
    }),
    { numRuns: 500 },
  );
});
