/**
 * ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381) over our own curve arithmetic in WebAssembly (edwards/). Byte for byte
 * the proofs of vrf.ts, and its verdicts: what this engine does not accept is judged by the portable one, which
 * words the error too.
 *
 * Secrets are the scalar x, the nonce k and the prefix that k is derived from. They are bytes in arrays of ours and
 * numbers in the module's memory, never JavaScript numbers; instructions and addresses there do not depend on
 * them, and what is computed of them is wiped after each call.
 */
import { vrfInput } from './codec.ts';
import { Curve, digits, nonce, slot, table } from './edwards/curve.ts';
import type { Arithmetic } from './edwards/module.ts';
import {
  at,
  baseTables,
  batchMax,
  keyTables,
  pointsPerInput,
  splitWindows,
} from './edwards/module.ts';
import { tableBytes } from './edwards/point.ts';
import { digitCount } from './edwards/scalar.ts';
import type { Hash } from './hash.ts';
import { hashBytes, sameBytes, vrfProofBytes } from './hash.ts';
import { VerificationError } from './verification-error.ts';
import type { ImmediateVrfProver, VrfEngine, VrfEvaluation, VrfPlace, VrfVerifier } from './vrf.ts';
import { checkSeed, EcvrfPublicKey, isScalar } from './vrf.ts';

const bytes32 = 32;
const challengeBytes = 16;

/** The slots of input `i` of a batch; 0 and 1 are for what was decoded. */
function slotsOf(i: number): Readonly<Record<'h' | 'gamma' | 'gamma8' | 'u' | 'v', number>> {
  const h = 2 + i * pointsPerInput;
  return { h, gamma: h + 1, gamma8: h + 2, u: h + 3, v: h + 4 };
}
/** Bases that two products of one point share: 192 doublings for both, and 60 for each. */
const sharedBases = 4;

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
function encodeToCurve(
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
function hashCandidate(
  curve: Curve,
  to: number,
  publicKey: Uint8Array,
  alpha: Uint8Array,
  counter: number,
): void {
  curve.hash(to, [frames.candidate, publicKey, alpha, Uint8Array.of(counter), frames.end]);
}
/** The point of slot `number` times the cofactor is H, unless that is the neutral element. */
function takesAsH(curve: Curve, to: number, number: number): boolean {
  curve.run.double(slot(number), 3);
  if (curve.hasZeroX(number)) return false;
  curve.copy(to, number);
  return true;
}

/** RFC 9381 section 5.2 after the encoding of 8 Gamma, cut to what KEYTRANS uses. */
function outputOf(curve: Curve, gamma8: Uint8Array): Hash {
  curve.hash(at.strings, [frames.output, gamma8, frames.end]);
  return curve.memory.slice(at.strings, at.strings + hashBytes);
}
/** RFC 9381 section 5.4.3 over encoded points; good until the next hash. */
function challengeOf(curve: Curve, points: readonly Uint8Array[]): Uint8Array {
  curve.hash(at.strings, [frames.challenge, ...points, frames.end]);
  return curve.memory.subarray(at.strings, at.strings + challengeBytes);
}

/** A secret key that proves; `seed` as in `VrfEngine`. */
export class WasmProver implements ImmediateVrfProver {
  readonly publicKey: Uint8Array;
  readonly #curve: Curve;
  /** x of RFC 8032 section 5.1.5, modulo the order: whatever it is multiplied with is of that order. */
  readonly #scalar: Uint8Array;
  /** The prefix of RFC 8032, which nonces are hashes of. */
  readonly #prefix: Uint8Array;

  constructor(curve: Curve, seed: Uint8Array) {
    checkSeed(seed);
    const { memory, run } = curve;
    this.#curve = curve;
    try {
      curve.hash(at.wide, [seed]);
      this.#prefix = memory.slice(at.wide + bytes32, at.wide + 2 * bytes32);
      memory.fill(0, at.wide + bytes32, at.wide + 2 * bytes32);
      memory[at.wide] = (memory[at.wide] ?? 0) & 0xf8;
      memory[at.wide + 31] = ((memory[at.wide + 31] ?? 0) & 0x7f) | 0x40;
      run.multiplyAdd(at.scalar, at.wide, at.challenge, at.scalar);
      this.#scalar = memory.slice(at.scalar, at.scalar + bytes32);
      run.digits(digits(0), at.scalar);
      this.#timesBase(0, 0);
      curve.encode([0]);
      this.publicKey = curve.encoding(0).slice();
    } finally {
      curve.wipe();
    }
  }

  prove(
    label: Uint8Array,
    versions: readonly number[],
    places: readonly (VrfPlace | undefined)[] = [],
  ): VrfEvaluation[] {
    const inputs = versions.map((version) => vrfInput(label, version));
    return inBatches(inputs, (batch, from) =>
      this.evaluate(batch, places.slice(from, from + batchMax)),
    );
  }

  places(label: Uint8Array, versions: readonly number[]): VrfPlace[] {
    const inputs = versions.map((version) => vrfInput(label, version));
    return inBatches(inputs, (batch) => this.#placesOf(batch));
  }

  /** One product each, and nothing of the proofs. */
  #placesOf(inputs: readonly Uint8Array[]): VrfPlace[] {
    const curve = this.#curve;
    try {
      this.#loadScalar();
      for (const [i, alpha] of inputs.entries()) {
        const { h, gamma } = slotsOf(i);
        encodeToCurve(curve, h, this.publicKey, alpha);
        this.#multiply(h, [[gamma, 0]]);
        this.#clearCofactor(i);
      }
      curve.encode(inputs.flatMap((_, i) => [slotsOf(i).h, slotsOf(i).gamma, slotsOf(i).gamma8]));
      return inputs.map((_, i) => {
        const { h, gamma, gamma8 } = slotsOf(i);
        const points = new Uint8Array(2 * bytes32);
        points.set(curve.encoding(h));
        points.set(curve.encoding(gamma), bytes32);
        return { output: outputOf(curve, curve.encoding(gamma8)), points };
      });
    } finally {
      curve.wipe();
    }
  }

  /**
   * RFC 9381 section 5.1 with the nonce of section 5.4.2.2, of up to `batchMax` inputs, and from their places where
   * there are any.
   */
  evaluate(
    inputs: readonly Uint8Array[],
    places: readonly (VrfPlace | undefined)[] = [],
  ): VrfEvaluation[] {
    const curve = this.#curve;
    try {
      this.#loadScalar();
      for (const [i, alpha] of inputs.entries()) {
        const { h } = slotsOf(i);
        const place = places[i];
        if (place === undefined) encodeToCurve(curve, h, this.publicKey, alpha);
        else takePoint(curve, h, place);
      }
      // A nonce is a hash of H.
      const fresh = [...inputs.keys()].filter((i) => places[i] === undefined);
      if (fresh.length > 0) curve.encode(fresh.map((i) => slotsOf(i).h));
      for (const i of inputs.keys()) {
        const { h, gamma, u, v } = slotsOf(i);
        this.#loadNonce(i, places[i]?.points.subarray(0, bytes32) ?? curve.encoding(h));
        if (places[i] === undefined) {
          this.#multiply(h, [
            [gamma, 0],
            [v, 1],
          ]);
          this.#clearCofactor(i);
        } else this.#multiply(h, [[v, 1]]);
        this.#timesBase(u, 1);
      }
      const made = inputs.flatMap((_, i) => {
        const { gamma, gamma8, u, v } = slotsOf(i);
        return places[i] === undefined ? [gamma, gamma8, u, v] : [u, v];
      });
      curve.encode(made);
      return inputs.map((_, i) => this.#evaluationOf(i, places[i]));
    } finally {
      curve.wipe();
    }
  }

  /** x and its digits, number 0. */
  #loadScalar(): void {
    this.#curve.memory.set(this.#scalar, at.scalar);
    this.#curve.run.digits(digits(0), at.scalar);
  }
  /** k of input `i` and its digits, number 1. */
  #loadNonce(i: number, h: Uint8Array): void {
    const { memory, run } = this.#curve;
    this.#curve.hash(at.wide, [this.#prefix, h]);
    memory.fill(0, at.challenge, at.challenge + challengeBytes);
    run.multiplyAdd(nonce(i), at.wide, at.challenge, at.scalar);
    run.digits(digits(1), nonce(i));
  }
  /** Products of a point, which is spoiled but for its encoding: to each slot with the scalar of that number. */
  #multiply(point: number, products: readonly (readonly [slot: number, scalar: number])[]): void {
    const { run } = this.#curve;
    const bases = products.length > 1 ? sharedBases : 1;
    const windows = digitCount / bases;
    run.build(table(0), bases, windows, slot(point));
    for (const [to, scalar] of products) {
      run.walk(slot(to), table(0), bases, windows, digits(scalar));
    }
  }
  #timesBase(to: number, scalar: number): void {
    this.#curve.run.walk(slot(to), at.base, baseTables, splitWindows, digits(scalar));
  }
  #clearCofactor(i: number): void {
    const { gamma, gamma8 } = slotsOf(i);
    this.#curve.copy(gamma8, gamma);
    this.#curve.run.double(slot(gamma8), 3);
  }

  /** Gamma, c, and s = k + c x of encoded points, and the output. */
  #evaluationOf(i: number, place: VrfPlace | undefined): VrfEvaluation {
    const curve = this.#curve;
    const { memory, run } = curve;
    const slots = slotsOf(i);
    const h = place?.points.subarray(0, bytes32) ?? curve.encoding(slots.h);
    const gamma = place?.points.subarray(bytes32) ?? curve.encoding(slots.gamma);
    const [u, v] = [curve.encoding(slots.u), curve.encoding(slots.v)];
    const challenge = challengeOf(curve, [this.publicKey, h, gamma, u, v]);
    memory.set(challenge, at.challenge);
    memory.copyWithin(at.wide, nonce(i), nonce(i) + bytes32);
    memory.fill(0, at.wide + bytes32, at.wide + 2 * bytes32);
    run.multiplyAdd(nonce(i), at.wide, at.challenge, at.scalar);
    const proof = new Uint8Array(vrfProofBytes);
    proof.set(gamma);
    proof.set(challenge, bytes32);
    proof.set(memory.subarray(nonce(i), nonce(i) + bytes32), bytes32 + challengeBytes);
    return { output: place?.output ?? outputOf(curve, curve.encoding(slots.gamma8)), proof };
  }
}

/** The H of a place into a slot. */
function takePoint(curve: Curve, to: number, { points }: VrfPlace): void {
  const h = points.subarray(0, bytes32);
  if ((curve.decode(h, h) & 1) === 0) throw new TypeError('vrf: a place without a point');
  curve.copy(to, 0);
}
function inBatches<T>(
  inputs: readonly Uint8Array[],
  make: (batch: readonly Uint8Array[], from: number) => readonly T[],
): T[] {
  const made: T[] = [];
  for (let from = 0; from < inputs.length; from += batchMax) {
    made.push(...make(inputs.slice(from, from + batchMax), from));
  }
  return made;
}

/** A public key that was checked once (RFC 9381 section 5.4.5) and may verify many proofs. */
export class WasmPublicKey implements VrfVerifier {
  readonly #curve: Curve;
  readonly #bytes: Uint8Array;
  /** Multiples of -Y, as they stand in the memory of the curve while this key verifies. */
  readonly #tables: Uint8Array | undefined;
  #portable: EcvrfPublicKey | undefined;

  /** Throws VerificationError BAD_VRF for anything but a point outside the small subgroup. */
  constructor(curve: Curve, bytes: Uint8Array) {
    this.#curve = curve;
    this.#bytes = bytes.slice();
    this.#tables = this.#tablesOf();
    if (this.#tables === undefined) this.#portable = new EcvrfPublicKey(bytes);
  }

  /** Undefined for what is no key. */
  #tablesOf(): Uint8Array | undefined {
    const curve = this.#curve;
    if (this.#bytes.length !== bytes32) return undefined;
    if ((curve.decode(this.#bytes, this.#bytes) & 1) === 0) return undefined;
    curve.run.double(slot(1), 3);
    if (curve.hasZeroX(1)) return undefined;
    curve.run.negate(slot(0));
    curve.run.build(at.key, keyTables, splitWindows, slot(0));
    return curve.memory.slice(at.key, at.key + keyTables * tableBytes);
  }

  verify(label: Uint8Array, version: number, proof: Uint8Array): Hash {
    return this.verifyInput(vrfInput(label, version), proof);
  }

  /** RFC 9381 section 5.3: the first 32 bytes of beta. Throws VerificationError BAD_VRF. */
  verifyInput(alpha: Uint8Array, pi: Uint8Array): Hash {
    const output = this.#tables && this.#verify(this.#tables, alpha, pi);
    if (output !== undefined) return output;
    // Made when it is needed: it computes a table first, and honest proofs do not need it.
    this.#portable ??= new EcvrfPublicKey(this.#bytes);
    return this.#portable.verify(alpha, pi).slice(0, hashBytes);
  }

  /** Undefined for a proof that does not hold. Variable time: everything is public. */
  #verify(tables: Uint8Array, alpha: Uint8Array, pi: Uint8Array): Hash | undefined {
    const curve = this.#curve;
    const { memory, run } = curve;
    if (pi.length !== vrfProofBytes) return undefined;
    const gammaBytes = pi.subarray(0, bytes32);
    const challenge = pi.subarray(bytes32, bytes32 + challengeBytes);
    const s = pi.subarray(bytes32 + challengeBytes);
    if (!isScalar(s)) return undefined;
    // Gamma is decoded together with the first candidate.
    const { h, gamma, gamma8, u, v } = slotsOf(0);
    hashCandidate(curve, at.strings + bytes32, this.#bytes, alpha, 0);
    memory.set(gammaBytes, at.strings);
    const which = run.decode(slot(0), at.strings);
    if ((which & 1) === 0) return undefined;
    curve.copy(gamma, 0);
    if ((which & 2) === 0 || !takesAsH(curve, h, 1)) encodeToCurve(curve, h, this.#bytes, alpha, 1);
    curve.copy(gamma8, gamma);
    run.double(slot(gamma8), 3);
    run.negate(slot(gamma));

    memory.set(s, at.scalar);
    run.digits(digits(0), at.scalar);
    memory.fill(0, at.scalar + challengeBytes, at.scalar + bytes32);
    memory.set(challenge, at.scalar);
    run.digits(digits(1), at.scalar);
    // u = s B - c Y and v = s H - c Gamma, each in one walk over the digits of both.
    memory.set(tables, at.key);
    run.walkPublic(slot(u), at.base, baseTables + keyTables, splitWindows, digits(0));
    run.build(table(0), 1, digitCount, slot(h));
    run.build(table(1), 1, digitCount, slot(gamma));
    run.walkPublic(slot(v), table(0), 2, digitCount, digits(0));
    curve.encode([h, u, v, gamma8]);
    const [hBytes, uBytes, vBytes, gamma8Bytes] = [h, u, v, gamma8].map((number) =>
      curve.encoding(number),
    ) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
    const expected = challengeOf(curve, [this.#bytes, hBytes, gammaBytes, uBytes, vBytes]);
    return sameBytes(challenge, expected) ? outputOf(curve, gamma8Bytes) : undefined;
  }
}

/** The engine with an arithmetic that the machine has. */
export function wasmVrf(arithmetic: Arithmetic): VrfEngine {
  let curve: Curve | undefined;
  // With the first key: it takes a twentieth of a second.
  const loaded = (): Curve => (curve ??= Curve.load(arithmetic));
  return {
    name: 'wasm',
    prover: (seed) => new WasmProver(loaded(), seed),
    verifier: (publicKey) => new WasmPublicKey(loaded(), publicKey),
  };
}
