/** The field in WebAssembly against numbers of any size: at the bounds of its limbs, and at those of p. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  arithmetics,
  getLimbs,
  limbsAtBounds,
  numberOf,
  putLimbs,
  reduced,
  wide,
} from './test-curve.ts';
import { prime } from './field.ts';
import { at } from './module.ts';

/** Pairs of elements. */
const [a, b, out] = [at.pairs, at.pairs + 80, at.pairs + 160];
const modulo = (value: bigint): bigint => ((value % prime) + prime) % prime;
function power(base: bigint, exponent: bigint): bigint {
  let [result, square] = [1n, base];
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = modulo(result * square);
    square = modulo(square * square);
  }
  return result;
}
const bytesOf = (value: bigint): Uint8Array =>
  Uint8Array.from(Buffer.from(value.toString(16).padStart(64, '0'), 'hex').reverse());
const numberIn = (bytes: Uint8Array): bigint =>
  BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`);

for (const { name, curve } of arithmetics) {
  const { run, memory } = curve;
  const lanes = [0, 1] as const;

  test(`${name}: products and squares of limbs at their bounds are right, and reduced`, () => {
    const [small, large] = [limbsAtBounds(reduced), limbsAtBounds(wide)];
    fc.assert(
      fc.property(large, large, small, small, (a0, a1, b0, b1) => {
        for (const [lane, limbs] of [a0, a1].entries()) putLimbs(memory, a, lane, limbs);
        for (const [lane, limbs] of [b0, b1].entries()) putLimbs(memory, b, lane, limbs);
        const expected = [numberOf(a0) * numberOf(b0), numberOf(a1) * numberOf(b1)];
        const check = (wanted: readonly bigint[]): void => {
          for (const lane of lanes) {
            const limbs = getLimbs(memory, out, lane);
            assert.equal(modulo(numberOf(limbs)), modulo(wanted[lane] ?? 0n));
            for (const limb of limbs) assert.ok(Math.abs(limb) <= reduced, `${limb}`);
          }
        };
        run.multiply(out, a, b);
        check(expected);
        run.squares(out, b, 1);
        check([numberOf(b0) ** 2n, numberOf(b1) ** 2n]);
      }),
      { numRuns: 400 },
    );
  });

  test(`${name}: bytes of any number below 2^255 come back as the number below p`, () => {
    const edges = [0n, 1n, 2n, prime - 1n, prime, prime + 1n, 2n ** 255n - 1n, 2n ** 254n];
    const numbers = fc.oneof(
      fc.constantFrom(...edges),
      fc.bigInt({ min: 0n, max: 2n ** 255n - 1n }),
    );
    fc.assert(
      fc.property(numbers, numbers, fc.boolean(), (first, second, hasSign) => {
        memory.set(bytesOf(first + (hasSign ? 2n ** 255n : 0n)), at.strings);
        memory.set(bytesOf(second), at.strings + 32);
        run.thaw(out, at.strings);
        for (const lane of lanes) {
          for (const limb of getLimbs(memory, out, lane)) assert.ok(Math.abs(limb) <= reduced);
        }
        run.freeze(at.encoded, out);
        assert.equal(numberIn(memory.subarray(at.encoded, at.encoded + 32)), first % prime);
        assert.equal(numberIn(memory.subarray(at.encoded + 32, at.encoded + 64)), second % prime);
      }),
      { numRuns: 300 },
    );
  });

  test(`${name}: limbs at their bounds have canonical bytes`, () => {
    fc.assert(
      fc.property(limbsAtBounds(reduced), limbsAtBounds(reduced), (first, second) => {
        putLimbs(memory, a, 0, first);
        putLimbs(memory, a, 1, second);
        run.freeze(at.encoded, a);
        for (const [lane, limbs] of [first, second].entries()) {
          const from = at.encoded + 32 * lane;
          assert.equal(numberIn(memory.subarray(from, from + 32)), modulo(numberOf(limbs)));
        }
      }),
      { numRuns: 300 },
    );
  });

  test(`${name}: inverses and roots, of 0 too`, () => {
    for (const value of [0n, 1n, 2n, prime - 1n, 2n ** 254n + 12345n]) {
      memory.set(bytesOf(value), at.strings);
      memory.set(bytesOf(prime - value), at.strings + 32);
      run.thaw(a, at.strings);
      for (const [routine, exponent] of [
        [run.invert, prime - 2n],
        [run.power, 2n ** 252n - 3n],
      ] as const) {
        routine(out, a);
        assert.equal(modulo(numberOf(getLimbs(memory, out, 0))), power(value, exponent));
        assert.equal(modulo(numberOf(getLimbs(memory, out, 1))), power(modulo(-value), exponent));
      }
    }
  });

  test(`${name}: a long chain of products stays right`, () => {
    const start = [7n, prime - 11n];
    const expected = start.slice();
    for (const lane of lanes) memory.set(bytesOf(start[lane] ?? 0n), at.strings + 32 * lane);
    run.thaw(out, at.strings);
    for (let step = 0; step < 2000; step++) {
      run.squares(a, out, 1 + (step % 3));
      run.multiply(out, out, a);
      for (const lane of lanes) {
        const value = expected[lane] ?? 0n;
        let square = value;
        for (let i = 0; i <= step % 3; i++) square = modulo(square * square);
        expected[lane] = modulo(value * square);
      }
    }
    for (const lane of lanes) {
      assert.equal(modulo(numberOf(getLimbs(memory, out, lane))), expected[lane]);
    }
  });
}
