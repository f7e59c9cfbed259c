/** For tests of the curve: each arithmetic that runs here, and limbs as numbers. */
import fc from 'fast-check';
import { Curve } from './curve.ts';
import { limbBits } from './field.ts';
import { arithmeticHere } from './module.ts';

/** The one of this machine, and the one of machines without a fused product, which runs everywhere. */
export const arithmetics = [...new Set([arithmeticHere() ?? 'plain', 'plain'] as const)].map(
  (name) => ({ name, curve: Curve.load(name) }),
);

/** The bounds that field.ts promises. */
export const reduced = 2 ** 50 + 2 ** 14;
export const wide = 2 ** 51 + 2 ** 15;

export const numberOf = (limbs: readonly number[]): bigint =>
  limbs.reduceRight((sum, limb) => (sum << BigInt(limbBits)) + BigInt(limb), 0n);

/** Five limbs, often the largest, smallest or 0. */
export function limbsAtBounds(bound: number): fc.Arbitrary<number[]> {
  const edges = fc.constantFrom(bound, -bound, bound - 1, 1 - bound, 0, 1, -1);
  const limb = fc.oneof(
    { weight: 3, arbitrary: edges },
    { weight: 1, arbitrary: fc.maxSafeInteger().map((n) => Math.trunc(n % bound)) },
  );
  return fc.array(limb, { minLength: 5, maxLength: 5 });
}

const doublesAt = (memory: Uint8Array, at: number): Float64Array =>
  new Float64Array(memory.buffer, at, 10);
export function putLimbs(
  memory: Uint8Array,
  at: number,
  lane: number,
  limbs: readonly number[],
): void {
  const doubles = doublesAt(memory, at);
  for (const [i, limb] of limbs.entries()) doubles[2 * i + lane] = limb;
}
export function getLimbs(memory: Uint8Array, at: number, lane: number): number[] {
  const doubles = doublesAt(memory, at);
  return Array.from({ length: 5 }, (_, i) => doubles[2 * i + lane] ?? Number.NaN);
}

export function encodingsOf(curve: Curve, ...slots: readonly number[]): Uint8Array[] {
  curve.encode(slots);
  return slots.map((number) => curve.encoding(number).slice());
}
