/**
 * ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381) over our own curve arithmetic in WebAssembly (edwards/). Byte for byte
 * the proofs of vrf.ts, and its verdicts: what this engine does not accept is judged by the portable one, which
 * words the error too.
 *
 * Secrets are the scalar x, the nonce k and the prefix that k is derived from. They are bytes in arrays of ours and
 * numbers in the module's memory, never JavaScript numbers; instructions and addresses there do not depend on
 * them, and what is computed of them is wiped after each call.
 */
import { hash } from 'node:crypto';
import { vrfInput } from './codec.ts';
import { Curve, digits, slot, table } from './edwards/curve.ts';
import type { Arithmetic } from './edwards/module.ts';
import { at, baseTables, keyTables, splitWindows } from './edwards/module.ts';
import { tableBytes } from './edwards/point.ts';
import { digitCount } from './edwards/scalar.ts';
import type { Hash } from './hash.ts';
import { hashBytes, sameBytes, vrfProofBytes } from './hash.ts';
import { VerificationError } from './verification-error.ts';
import type { ImmediateVrfProver, VrfEngine, VrfEvaluation, VrfPlace, VrfVerifier } from './vrf.ts';
import { checkSeed, EcvrfPublicKey, hashInput, isScalar } from './vrf.ts';

const bytes32 = 32;
const challengeBytes = 16;

/** Slots of points: 0 and 1 are what was decoded. */
const slots = { gamma: 2, gamma8: 3, u: 4, v: 5, h: 6 } as const;
/** Bases that two products of one point share: 192 doublings for both, and 60 for each. */
const sharedBases = 4;

const sha512 = (input: Uint8Array): Uint8Array => hash('sha512', input, 'buffer');

/** RFC 9381 section 5.4.1.1 for one counter. */
function candidate(publicKey: Uint8Array, alpha: Uint8Array, counter: number): Uint8Array {
  return sha512(hashInput(1, [publicKey, alpha, Uint8Array.of(counter)])).subarray(0, bytes32);
}
/**
 * RFC 9381 section 5.4.1.1, encode_to_curve_try_and_increment, into the slot of H. Two candidates are decoded at a
 * time.
 */
function encodeToCurve(curve: Curve, publicKey: Uint8Array, alpha: Uint8Array): void {
  for (let counter = 0; counter < 256; counter += 2) {
    const first = candidate(publicKey, alpha, counter);
    const which = curve.decode(first, candidate(publicKey, alpha, counter + 1));
    for (const number of [0, 1]) if ((which >> number) & 1 && takesAsH(curve, number)) return;
  }
  throw new VerificationError('BAD_VRF', 'encode to curve', 'a point within 256 attempts');
}
/** The slot's point times the cofactor is H, unless that is the neutral element. */
function takesAsH(curve: Curve, number: number): boolean {
  curve.run.double(slot(number), 3);
  if (curve.hasZeroX(number)) return false;
  curve.copy(slots.h, number);
  return true;
}

/** RFC 9381 section 5.2 after the encoding of 8 Gamma, cut to what KEYTRANS uses. */
function outputOf(gamma8: Uint8Array): Hash {
  return Uint8Array.from(sha512(hashInput(3, [gamma8])).subarray(0, hashBytes));
}
/** RFC 9381 section 5.4.3 over encoded points. */
function challengeOf(points: readonly Uint8Array[]): Uint8Array {
  return sha512(hashInput(2, points)).subarray(0, challengeBytes);
}

/** A secret key that proves; `seed` as in `VrfEngine`. */
export class WasmProver implements ImmediateVrfProver {
  readonly publicKey: Uint8Array;
  readonly #curve: Curve;
  /** x of RFC 8032 section 5.1.5 modulo the order, as every point that it is multiplied with is of that order. */
  readonly #scalar: Uint8Array;
  /** The prefix of RFC 8032, and room for H: what the nonce is a hash of. */
  readonly #nonceInput = new Uint8Array(64);

  constructor(curve: Curve, seed: Uint8Array) {
    checkSeed(seed);
    const expanded = sha512(seed);
    const scalar = expanded.subarray(0, bytes32);
    scalar[0] = (scalar[0] ?? 0) & 0xf8;
    scalar[31] = ((scalar[31] ?? 0) & 0x7f) | 0x40;
    this.#nonceInput.set(expanded.subarray(bytes32));
    this.#curve = curve;
    curve.memory.set(scalar, at.wide);
    expanded.fill(0);
    try {
      curve.run.multiplyAdd(at.scalar, at.wide, at.challenge, at.scalar);
      this.#scalar = curve.memory.slice(at.scalar, at.scalar + bytes32);
      curve.run.digits(digits(0), at.scalar);
      this.#timesBase(slots.u, 0);
      [this.publicKey] = curve.encode(slots.u);
    } finally {
      curve.wipe();
    }
  }

  prove(
    label: Uint8Array,
    versions: readonly number[],
    places: readonly (VrfPlace | undefined)[] = [],
  ): VrfEvaluation[] {
    return versions.map((version, i) => {
      const place = places[i];
      if (place === undefined) return this.evaluate(vrfInput(label, version));
      return { output: place.output, proof: this.#proofAt(place.points) };
    });
  }

  places(label: Uint8Array, versions: readonly number[]): VrfPlace[] {
    const curve = this.#curve;
    return versions.map((version) => {
      encodeToCurve(curve, this.publicKey, vrfInput(label, version));
      try {
        this.#loadScalar();
        curve.run.build(table(0), 1, digitCount, slot(slots.h));
        curve.run.walk(slot(slots.gamma), table(0), 1, digitCount, digits(0));
        return this.#placeOf();
      } finally {
        curve.wipe();
      }
    });
  }

  /** RFC 9381 section 5.1 with the nonce of section 5.4.2.2. */
  evaluate(alpha: Uint8Array): VrfEvaluation {
    const curve = this.#curve;
    encodeToCurve(curve, this.publicKey, alpha);
    try {
      const [h] = curve.encode(slots.h);
      this.#loadNonce(h);
      this.#loadScalar();
      curve.run.build(table(0), sharedBases, digitCount / sharedBases, slot(slots.h));
      for (const [i, product] of [slots.gamma, slots.v].entries()) {
        const windows = digitCount / sharedBases;
        curve.run.walk(slot(product), table(0), sharedBases, windows, digits(i));
      }
      this.#timesBase(slots.u, 1);
      curve.copy(slots.gamma8, slots.gamma);
      curve.run.double(slot(slots.gamma8), 3);
      const [gamma, u, v, gamma8] = curve.encode(slots.gamma, slots.u, slots.v, slots.gamma8);
      return { output: outputOf(gamma8), proof: this.#proofOf(h, gamma, u, v) };
    } finally {
      curve.wipe();
    }
  }

  /** The output and the points of what is in the slots of H and Gamma. */
  #placeOf(): VrfPlace {
    const curve = this.#curve;
    curve.copy(slots.gamma8, slots.gamma);
    curve.run.double(slot(slots.gamma8), 3);
    const [h, gamma, gamma8] = curve.encode(slots.h, slots.gamma, slots.gamma8);
    const points = new Uint8Array(2 * bytes32);
    points.set(h);
    points.set(gamma, bytes32);
    return { output: outputOf(gamma8), points };
  }

  /** The proof for the H and Gamma of a place. */
  #proofAt(points: Uint8Array): Uint8Array {
    const curve = this.#curve;
    const [h, gamma] = [points.subarray(0, bytes32), points.subarray(bytes32)];
    if ((curve.decode(h, h) & 1) === 0) throw new TypeError('vrf: a place without a point');
    try {
      this.#loadNonce(h);
      this.#loadScalar();
      curve.run.build(table(0), 1, digitCount, slot(0));
      curve.run.walk(slot(slots.v), table(0), 1, digitCount, digits(1));
      this.#timesBase(slots.u, 1);
      const [u, v] = curve.encode(slots.u, slots.v);
      return this.#proofOf(h, gamma, u, v);
    } finally {
      curve.wipe();
    }
  }

  /** x and its digits, number 0, into the memory of the curve. */
  #loadScalar(): void {
    this.#curve.memory.set(this.#scalar, at.scalar);
    this.#curve.run.digits(digits(0), at.scalar);
  }
  /** k and its digits, number 1. */
  #loadNonce(h: Uint8Array): void {
    const curve = this.#curve;
    this.#nonceInput.set(h, bytes32);
    const nonceHash = sha512(this.#nonceInput);
    curve.memory.set(nonceHash, at.wide);
    nonceHash.fill(0);
    curve.memory.fill(0, at.challenge, at.challenge + challengeBytes);
    curve.run.multiplyAdd(at.nonce, at.wide, at.challenge, at.scalar);
    curve.run.digits(digits(1), at.nonce);
  }
  #timesBase(out: number, scalar: number): void {
    this.#curve.run.walk(slot(out), at.base, baseTables, splitWindows, digits(scalar));
  }

  /** Gamma, c, and s = k + c x. */
  #proofOf(h: Uint8Array, gamma: Uint8Array, u: Uint8Array, v: Uint8Array): Uint8Array {
    const { memory, run } = this.#curve;
    const proof = new Uint8Array(vrfProofBytes);
    const challenge = challengeOf([this.publicKey, h, gamma, u, v]);
    memory.set(challenge, at.challenge);
    memory.copyWithin(at.wide, at.nonce, at.nonce + bytes32);
    memory.fill(0, at.wide + bytes32, at.wide + 64);
    run.multiplyAdd(at.nonce, at.wide, at.challenge, at.scalar);
    proof.set(gamma);
    proof.set(challenge, bytes32);
    proof.set(memory.subarray(at.nonce, at.nonce + bytes32), bytes32 + challengeBytes);
    return proof;
  }
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

  /** Undefined for what is no key, or so to this engine. */
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
    const gamma = pi.subarray(0, bytes32);
    const challenge = pi.subarray(bytes32, bytes32 + challengeBytes);
    const s = pi.subarray(bytes32 + challengeBytes);
    if (!isScalar(s) || (curve.decode(gamma, gamma) & 1) === 0) return undefined;
    curve.copy(slots.gamma, 0);
    encodeToCurve(curve, this.#bytes, alpha);
    curve.copy(slots.gamma8, slots.gamma);
    run.double(slot(slots.gamma8), 3);
    run.negate(slot(slots.gamma));

    memory.set(s, at.scalar);
    run.digits(digits(0), at.scalar);
    memory.set(challenge, at.scalar);
    memory.fill(0, at.scalar + challengeBytes, at.scalar + bytes32);
    run.digits(digits(1), at.scalar);
    // u = s B - c Y and v = s H - c Gamma, each in one walk over the digits of both.
    memory.set(tables, at.key);
    run.walkPublic(slot(slots.u), at.base, baseTables + keyTables, splitWindows, digits(0));
    run.build(table(0), 1, digitCount, slot(slots.h));
    run.build(table(1), 1, digitCount, slot(slots.gamma));
    run.walkPublic(slot(slots.v), table(0), 2, digitCount, digits(0));
    const [h, u, v, gamma8] = curve.encode(slots.h, slots.u, slots.v, slots.gamma8);
    const expected = challengeOf([this.#bytes, h, gamma, u, v]);
    return sameBytes(challenge, expected) ? outputOf(gamma8) : undefined;
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
