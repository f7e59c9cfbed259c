/**
 * ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381) as KEYTRANS uses it (protocol sections 11.7, 17.1):
 * alpha is a VrfInput, the output is cut to 32 bytes. Portable engine over noble; browser-safe.
 * noble's arithmetic is not constant time: a log that proves on a shared machine uses the native
 * engine, which this one checks.
 */
import { normalizeZ } from '@noble/curves/abstract/curve.js';
import { ed25519 } from '@noble/curves/ed25519.js';
import { sha512 } from '@noble/hashes/sha2.js';
import { InvalidArgumentError } from '@quicprochat/proto/status';
import { vrfInput } from './codec.ts';
import type { Hash } from './hash.ts';
import { hashBytes, sameBytes, vrfProofBytes } from './hash.ts';
import { VerificationError } from './verification-error.ts';

const Point = ed25519.Point;
type Point = InstanceType<typeof Point>;

/** Prime order of the subgroup, `q` of RFC 9381. */
const order = Point.Fn.ORDER;
/** `suite_string` of RFC 9381 section 5.5. */
const suite = 3;
const pointBytes = 32;
const challengeBytes = 16;

/** The search key of one version of a label, and the proof that it is the right one. */
export interface VrfEvaluation {
  readonly output: Hash;
  /** 80 bytes: Gamma, c, s. */
  readonly proof: Uint8Array;
}
/**
 * Where the leaf of a version goes, and `H` and `Gamma` of RFC 9381, 64 bytes, from which a proof that is
 * asked for later goes on.
 */
export interface VrfPlace {
  readonly output: Hash;
  readonly points: Uint8Array;
}
/** Holds the VRF secret key; on the log's side only. */
export interface VrfProver {
  readonly publicKey: Uint8Array;
  /**
   * The evaluations of several versions of a label, in the order given; a pool answers later. `places`
   * in the same order are what this key gave for them: they spare half of the work.
   */
  prove(
    label: Uint8Array,
    versions: readonly number[],
    places?: readonly (VrfPlace | undefined)[],
  ): readonly VrfEvaluation[] | Promise<readonly VrfEvaluation[]>;
  /**
   * The outputs without proofs, at less than half the cost: what an entry needs of new versions.
   * Whoever looks one up later wants its proof.
   */
  places(
    label: Uint8Array,
    versions: readonly number[],
  ): readonly VrfPlace[] | Promise<readonly VrfPlace[]>;
}
/** A prover that has its answer at once. */
export interface ImmediateVrfProver extends VrfProver {
  prove(
    label: Uint8Array,
    versions: readonly number[],
    places?: readonly (VrfPlace | undefined)[],
  ): VrfEvaluation[];
  places(label: Uint8Array, versions: readonly number[]): VrfPlace[];
}
export interface VrfVerifier {
  /** The 32-byte output that `proof` proves. Throws VerificationError BAD_VRF. */
  verify(label: Uint8Array, version: number, proof: Uint8Array): Hash;
}

/** An implementation of the VRF. All have the same proofs, outputs and verdicts. */
export interface VrfEngine {
  readonly name: 'wasm' | 'noble';
  /** `seed` is an Ed25519 seed (32 bytes); throws InvalidArgumentError for another length. */
  prover(seed: Uint8Array): ImmediateVrfProver;
  /** Throws VerificationError BAD_VRF for a key that is none. */
  verifier(publicKey: Uint8Array): VrfVerifier;
}

/** `suite || domain || parts || 0x00`: what every hash of RFC 9381 is over. */
export function hashInput(domain: number, parts: readonly Uint8Array[]): Uint8Array {
  const input = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 3));
  input[0] = suite;
  input[1] = domain;
  let at = 2;
  for (const part of parts) {
    input.set(part, at);
    at += part.length;
  }
  return input;
}
function suiteHash(domain: number, parts: readonly Uint8Array[]): Uint8Array {
  return sha512(hashInput(domain, parts));
}

function littleEndian(bytes: Uint8Array): bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] ?? 0);
  return value;
}
function toLittleEndian(value: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let rest = value;
  for (let i = 0; i < length; i++) {
    bytes[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return bytes;
}

const orderBytes = toLittleEndian(order, 32);
/** True for 32 bytes of a number below the group order, as `s` of a proof has to be. */
export function isScalar(bytes: Uint8Array): boolean {
  for (let i = orderBytes.length - 1; i >= 0; i--) {
    const difference = (bytes[i] ?? 0) - (orderBytes[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

/** A point, or undefined where RFC 8032 section 5.1.3 finds none. */
function decodePoint(bytes: Uint8Array): Point | undefined {
  try {
    return Point.fromBytes(bytes, false);
  } catch {
    // noble tells "not a point" by throwing; for try-and-increment that is half of all cases.
    return undefined;
  }
}

/** RFC 9381 section 5.4.1.1, encode_to_curve_try_and_increment. */
function encodeToCurve(publicKey: Uint8Array, alpha: Uint8Array): Point {
  for (let counter = 0; counter < 256; counter++) {
    const hash = suiteHash(1, [publicKey, alpha, Uint8Array.of(counter)]);
    const candidate = decodePoint(hash.subarray(0, pointBytes))?.clearCofactor();
    if (candidate !== undefined && !candidate.is0()) return candidate;
  }
  throw new VerificationError('BAD_VRF', 'encode to curve', 'a point within 256 attempts');
}

/** RFC 9381 section 5.4.3 over encoded points. */
function challengeOf(points: readonly Uint8Array[]): Uint8Array {
  return suiteHash(2, points).subarray(0, challengeBytes);
}

/** RFC 9381 section 5.2, steps after decoding: SHA-512 over the encoding of `8 Gamma`. */
function outputOf(encodedGamma8: Uint8Array): Uint8Array {
  return suiteHash(3, [encodedGamma8]);
}

/** Encodings of several points for one field inversion. */
function encodeAll(points: Point[]): Uint8Array[] {
  return normalizeZ(Point, points).map((point) => point.toBytes());
}

/** Throws InvalidArgumentError. */
export function checkSeed(seed: Uint8Array): void {
  if (seed.length !== 32) {
    throw new InvalidArgumentError('BAD_FIELD', `vrf seed: ${seed.length} bytes, need 32`);
  }
}

/** RFC 9381 section 5.1 with the nonce of section 5.4.2.2. Returns beta (64), pi (80) and H (32). */
export function ecvrfProve(
  seed: Uint8Array,
  alpha: Uint8Array,
): { readonly beta: Uint8Array; readonly pi: Uint8Array; readonly h: Uint8Array } {
  checkSeed(seed);
  const { scalar, prefix, pointBytes: publicKey } = ed25519.utils.getExtendedPublicKey(seed);
  const h = encodeToCurve(publicKey, alpha);
  const gamma = h.multiply(scalar);
  const nonceHash = sha512.create().update(prefix).update(h.toBytes()).digest();
  const nonce = littleEndian(nonceHash) % order;
  const [hBytes, gammaBytes, uBytes, vBytes, gamma8] = encodeAll([
    h,
    gamma,
    Point.BASE.multiply(nonce),
    h.multiply(nonce),
    gamma.clearCofactor(),
  ]) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array];
  const challenge = challengeOf([publicKey, hBytes, gammaBytes, uBytes, vBytes]);
  const response = (nonce + littleEndian(challenge) * scalar) % order;
  const pi = new Uint8Array(vrfProofBytes);
  pi.set(gammaBytes);
  pi.set(challenge, pointBytes);
  pi.set(toLittleEndian(response, 32), pointBytes + challengeBytes);
  return { beta: outputOf(gamma8), pi, h: hBytes };
}

/** Bits that one step of `difference` takes off both scalars. */
const windowBits = 4n;
const windowMask = (1n << windowBits) - 1n;

/** 0, P, 2P, ... 15P. */
function multiples(point: Point): Point[] {
  const table = [Point.ZERO, point];
  for (let i = 2; i <= Number(windowMask); i++) {
    table.push(i % 2 === 0 ? (table[i / 2] ?? point).double() : (table[i - 1] ?? point).add(point));
  }
  return table;
}

/** `a P - b Q` with the doublings shared. Variable time: for public values only. */
function difference(a: bigint, p: Point, b: bigint, q: Point): Point {
  const pTable = multiples(p);
  const qTable = multiples(q.negate());
  let sum = Point.ZERO;
  for (let shift = 252n; shift >= 0n; shift -= windowBits) {
    if (!sum.is0()) sum = sum.double().double().double().double();
    const aDigit = Number((a >> shift) & windowMask);
    const bDigit = Number((b >> shift) & windowMask);
    if (aDigit !== 0) sum = sum.add(pTable[aDigit] ?? p);
    if (bDigit !== 0) sum = sum.add(qTable[bDigit] ?? q);
  }
  return sum;
}

/** A public key that was checked once (RFC 9381 section 5.4.5) and may verify many proofs. */
export class EcvrfPublicKey {
  readonly bytes: Uint8Array;
  readonly #point: Point;

  /** Throws VerificationError BAD_VRF for anything but a point outside the small subgroup. */
  constructor(bytes: Uint8Array) {
    const point = bytes.length === pointBytes ? decodePoint(bytes) : undefined;
    if (point === undefined || point.isSmallOrder()) {
      throw new VerificationError('BAD_VRF', 'vrf public key', 'a point of large order, 32 bytes');
    }
    this.bytes = bytes.slice();
    // Windowed multiples of the key: it is multiplied once per proof.
    this.#point = point.precompute(5, false);
  }

  /** RFC 9381 section 5.3: the 64-byte beta. Throws VerificationError BAD_VRF. */
  verify(alpha: Uint8Array, pi: Uint8Array): Uint8Array {
    const invalid = (checked: string, expected: string): VerificationError =>
      new VerificationError('BAD_VRF', `vrf proof ${checked}`, expected);
    if (pi.length !== vrfProofBytes) throw invalid('length', `${vrfProofBytes} bytes`);
    const gammaBytes = pi.subarray(0, pointBytes);
    const challenge = pi.subarray(pointBytes, pointBytes + challengeBytes);
    const c = littleEndian(challenge);
    const sBytes = pi.subarray(pointBytes + challengeBytes);
    const s = littleEndian(sBytes);
    if (!isScalar(sBytes)) throw invalid('s', 'a number below the group order');
    const gamma = decodePoint(gammaBytes);
    if (gamma === undefined) throw invalid('gamma', 'a point on the curve');
    const h = encodeToCurve(this.bytes, alpha);
    const u = Point.BASE.multiplyUnsafe(s).add(this.#point.multiplyUnsafe(c).negate());
    const v = difference(s, h, c, gamma);
    const [hBytes, uBytes, vBytes, gamma8] = encodeAll([h, u, v, gamma.clearCofactor()]) as [
      Uint8Array,
      Uint8Array,
      Uint8Array,
      Uint8Array,
    ];
    const expected = challengeOf([this.bytes, hBytes, gammaBytes, uBytes, vBytes]);
    if (!sameBytes(challenge, expected)) throw invalid('challenge', 'the hash of the five points');
    return outputOf(gamma8);
  }
}

/**
 * The portable prover. `seed` is an Ed25519 seed (32 bytes) used for nothing else. Throws
 * InvalidArgumentError for another length.
 */
export function portableVrfProver(seed: Uint8Array): ImmediateVrfProver {
  checkSeed(seed);
  const publicKey = ed25519.getPublicKey(seed);
  // A Buffer's slice would share memory with what the caller wipes.
  const secret = Uint8Array.from(seed);
  return {
    publicKey,
    prove: (label, versions) =>
      versions.map((version) => {
        const { beta, pi } = ecvrfProve(secret, vrfInput(label, version));
        return { output: beta.slice(0, hashBytes), proof: pi };
      }),
    places: (label, versions) =>
      versions.map((version) => {
        const { beta, pi, h } = ecvrfProve(secret, vrfInput(label, version));
        const points = Uint8Array.of(...h, ...pi.subarray(0, pointBytes));
        return { output: beta.slice(0, hashBytes), points };
      }),
  };
}

/** The portable verifier of one log's VRF key. Throws VerificationError BAD_VRF for a bad key. */
export function portableVrfVerifier(publicKey: Uint8Array): VrfVerifier {
  const key = new EcvrfPublicKey(publicKey);
  return {
    verify: (label, version, proof) =>
      key.verify(vrfInput(label, version), proof).slice(0, hashBytes),
  };
}

/** noble's engine: for browsers, and the reference for the other. */
export const portableVrf: VrfEngine = {
  name: 'noble',
  prover: portableVrfProver,
  verifier: portableVrfVerifier,
};
