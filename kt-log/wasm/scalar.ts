/**
 * Numbers modulo the order L of the prime subgroup, as WebAssembly: `wide + c x mod L`, which is the nonce of a
 * proof (c = 0) and its response, and the digits by which a point is multiplied. Straight code over
 * 64-bit integers: nothing depends on the numbers but the numbers.
 *
 * A number is limbs of 28 bits, L = 2^252 + delta, and 252 = 9 * 28: what is above the ninth limb, times delta,
 * is taken off below. Products of limbs have 56 bits and at most five of them meet in a column; with signs the
 * columns stay below 2^59.
 */
import type { Body, Callable, I32, I64, Module } from './assembler.ts';
import { i32, i64 } from './assembler.ts';

export const order = 2n ** 252n + 27742317777372353535851937790883648493n;
const limbBits = 28;
const mask = 2n ** 28n - 1n;
/** Limbs below 2^252. */
const lowCount = 9;
const delta = [0, 1, 2, 3, 4].map((i) => ((order - 2n ** 252n) >> BigInt(i * limbBits)) & mask);
/** All of L in nine limbs, of which the last one has 29 bits. */
const orderLimbs = Array.from({ length: lowCount }, (_, i) =>
  i < delta.length ? (delta[i] ?? 0n) : i === lowCount - 1 ? 2n ** 28n : 0n,
);

/** Digits of a number of 256 bits. */
export const digitCount = 64;

export interface ScalarRoutines {
  /** `(out, wide, c, x)`: 32 bytes of 64, 16 and 32; out below L. */
  readonly multiplyAdd: Callable;
  /** `(out, scalar)`: 64 signed bytes of 32: digits from -8 to 7 of a number below 2^254, lowest first. */
  readonly digits: Callable;
  /** The same for digits of the opposite sign. */
  readonly negativeDigits: Callable;
}

/** Limbs of a string of bytes; reads up to seven bytes behind it. */
function load(body: Body, address: I32, bytes: number): I64[] {
  return Array.from({ length: Math.ceil((8 * bytes) / limbBits) }, (_, i) => {
    const bit = i * limbBits;
    const word = body.load('i64', address, bit >> 3);
    const width = Math.min(limbBits, 8 * bytes - bit);
    return body.let(i64.and(i64.ushr(word, bit & 7), i64.const(2n ** BigInt(width) - 1n)));
  });
}

/** Each column but the last to 28 bits, what is above to the next one. */
function carry(body: Body, columns: readonly I64[]): I64[] {
  let over = i64.const(0n);
  return columns.map((column, i) => {
    const sum = body.let(i64.add(column, over));
    if (i === columns.length - 1) return sum;
    over = body.let(i64.shr(sum, limbBits));
    return body.let(i64.and(sum, i64.const(mask)));
  });
}

/** `low - delta high`, where `high` is what is above 2^252. */
function fold(body: Body, limbs: readonly I64[]): I64[] {
  const columns = limbs.slice(0, lowCount);
  for (const [i, high] of limbs.slice(lowCount).entries()) {
    for (const [j, factor] of delta.entries()) {
      const term = i64.mul(high, i64.const(factor));
      const at = columns[i + j] ?? i64.const(0n);
      columns[i + j] = body.let(i64.sub(at, term));
    }
  }
  return carry(body, columns);
}

/** Adds L if the last limb is negative. */
function addOrder(body: Body, limbs: readonly I64[]): I64[] {
  const sign = body.let(i64.shr(limbs.at(-1) ?? i64.const(0n), 63));
  const sums = limbs.map((limb, i) => i64.add(limb, i64.and(sign, i64.const(orderLimbs[i] ?? 0n))));
  return carry(body, sums);
}

export function defineScalars(module: Module): ScalarRoutines {
  const multiplyAdd = module.define('multiplyAdd', 4, (body, out, wide, c, x) => {
    const columns = load(body, wide, 64);
    const factor = load(body, x, 32);
    for (const [i, digit] of load(body, c, 16).entries()) {
      for (const [j, limb] of factor.entries()) {
        columns[i + j] = body.let(i64.add(columns[i + j] ?? digit, i64.mul(digit, limb)));
      }
    }
    // 19 limbs to 14: below 2^385 and negative perhaps; to 9, of which the last has what is above 2^252 too.
    const nine = fold(body, fold(body, carry(body, columns)));
    const last = nine[lowCount - 1] ?? i64.const(0n);
    const split = [...nine.slice(0, -1), i64.and(last, i64.const(mask)), i64.shr(last, limbBits)];
    // From -2^132 to 2^252 + 2^132.
    const positive = addOrder(body, fold(body, split));
    const less = positive.map((limb, i) => i64.sub(limb, i64.const(orderLimbs[i] ?? 0n)));
    const [l0, l1, l2, l3, l4, l5, l6, l7, l8] = addOrder(body, carry(body, less));
    if (!l0 || !l1 || !l2 || !l3 || !l4 || !l5 || !l6 || !l7 || !l8) {
      throw new TypeError('scalar: nine limbs');
    }
    const words = [
      [l0, i64.shl(l1, 28), i64.shl(l2, 56)],
      [i64.ushr(l2, 8), i64.shl(l3, 20), i64.shl(l4, 48)],
      [i64.ushr(l4, 16), i64.shl(l5, 12), i64.shl(l6, 40)],
      [i64.ushr(l6, 24), i64.shl(l7, 4), i64.shl(l8, 32)],
    ];
    words.forEach((parts, i) => body.store(out, 8 * i, parts.reduce(i64.or)));
  });

  const defineDigits = (name: string, isNegative: boolean): Callable =>
    module.define(name, 2, (body, out, scalar) => {
      // With 8 added to every digit they are those of base 16, and 8 is taken off each again.
      const eights = i64.const(0x8888_8888_8888_8888n);
      let over = i64.const(0n);
      for (let word = 0; word < 4; word++) {
        const first = body.let(i64.add(body.load('i64', scalar, 8 * word), over));
        const sum = body.let(i64.add(first, eights));
        // Of the two sums one at most carries: a word of ones that takes a carry is 0.
        over = body.let(i64.or(i64.isLess(first, over), i64.isLess(sum, first)));
        for (let digit = 0; digit < 16; digit++) {
          const shifted = i32.and(i32.of(i64.ushr(sum, 4 * digit)), i32.const(15));
          const eight = i32.const(8);
          const value = isNegative ? i32.sub(eight, shifted) : i32.sub(shifted, eight);
          body.storeByte(out, 16 * word + digit, value);
        }
      }
    });
  return {
    multiplyAdd,
    digits: defineDigits('digits', false),
    negativeDigits: defineDigits('negativeDigits', true),
  };
}
