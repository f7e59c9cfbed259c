/**
 * The steps of ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381) that prover and verifier share, over the curve in WebAssembly:
 * the hash to the curve, the challenge and the output.
 */
import { slot } from './wasm/curve.ts';
import type { Curve } from './wasm/curve.ts';
import { at, pointsPerInput } from './wasm/module.ts';
import type { Hash } from './hash.ts';
import { hashBytes } from './hash.ts';
import { VerificationError } from './verification-error.ts';

/** Of a point or a scalar. */
export const bytes32 = 32;
export const challengeBytes = 16;

/** The slots of input `i` of a batch; 0 and 1 are for what was decoded. */
export function slotsOf(i: number): Readonly<Record<'h' | 'gamma' | 'gamma8' | 'u' | 'v', number>> {
  const h = 2 + i * pointsPerInput;
  return { h, gamma: h + 1, gamma8: h + 2, u: h + 3, v: h + 4 };
}
/** What begins the hashes of RFC 9381, suite and domain, and what ends them. */
const frames = {
  candidate: Uint8Array.of(3, 1),
  challenge: Uint8Array.of(3, 2),
  output: Uint8Array.of(3, 3),
  end: Uint8Array.of(0),
} as const;

/**
 * RFC 9381 section 5.4.1.1, encode_to_curve_try_and_increment, into a slot. Two candidates are decoded at a time;
 * `next`: the counter of the first.
 */
export function encodeToCurve(
  curve: Curve,
  to: number,
  publicKey: Uint8Array,
  alpha: Uint8Array,
  next = 0,
): void {
  for (let counter = next; counter < 255; counter += 2) {
    hashCandidate(curve, at.strings, publicKey, alpha, counter);
    hashCandidate(curve, at.strings + bytes32, publicKey, alpha, counter + 1);
    const which = curve.run.decode(slot(0), at.strings);
    for (const number of [0, 1]) {
      if ((which >> number) & 1 && takesAsH(curve, to, number)) return;
    }
  }
  throw new VerificationError('BAD_VRF', 'encode to curve', 'a point within 255 attempts');
}
/** The string of one counter, 32 bytes, to an address; as many behind it are spoiled. */
export function hashCandidate(
  curve: Curve,
  to: number,
  publicKey: Uint8Array,
  alpha: Uint8Array,
  counter: number,
): void {
  curve.hash(to, [frames.candidate, publicKey, alpha, Uint8Array.of(counter), frames.end]);
}
/** The point of slot `number` times the cofactor is H, unless that is the neutral element. */
export function takesAsH(curve: Curve, to: number, number: number): boolean {
  curve.run.double(slot(number), 3);
  if (curve.hasZeroX(number)) return false;
  curve.copy(to, number);
  return true;
}

/** RFC 9381 section 5.2 after the encoding of 8 Gamma, cut to what KEYTRANS uses. */
export function outputOf(curve: Curve, gamma8: Uint8Array): Hash {
  curve.hash(at.strings, [frames.output, gamma8, frames.end]);
  return curve.memory.slice(at.strings, at.strings + hashBytes);
}
/** RFC 9381 section 5.4.3 over encoded points; good until the next hash. */
export function challengeOf(curve: Curve, points: readonly Uint8Array[]): Uint8Array {
  curve.hash(at.strings, [frames.challenge, ...points, frames.end]);
  return curve.memory.subarray(at.strings, at.strings + challengeBytes);
}
