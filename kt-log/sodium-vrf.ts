/**
 * ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381) over libsodium. Byte for byte the proofs of vrf.ts, and
 * its verdicts: what libsodium does not accept is judged by the portable engine.
 *
 * Secrets are the scalar x, the nonce k and the prefix that k is derived from. They enter only
 * functions of libsodium whose time and memory accesses do not depend on them (SHA-512, products by
 * scalarmult, sums modulo the order), never JavaScript numbers, and are wiped: k after each proof.
 */
import { vrfInput } from './codec.ts';
import type { Hash } from './hash.ts';
import { hashBytes, sameBytes, vrfProofBytes } from './hash.ts';
import type { Sodium } from './sodium-addon.ts';
import { VerificationError } from './verification-error.ts';
import type { ImmediateVrfProver, VrfEngine, VrfEvaluation, VrfPlace, VrfVerifier } from './vrf.ts';
import { checkSeed, EcvrfPublicKey, hashInput, isScalar } from './vrf.ts';

const bytes32 = 32;
const challengeBytes = 16;
/** Values of a 4-bit digit of the challenge but 0, and how many digits it has. */
const digitValues = 15;
const digits = 2 * challengeBytes;

/** The identity is the only point whose encoding is 1. */
const identity = Uint8Array.from({ length: bytes32 }, (_, i) => (i === 0 ? 1 : 0));

/** SHA-512 in the frame of RFC 9381 that `hashInput` makes. */
function framedHash(sodium: Sodium, domain: number, parts: readonly Uint8Array[]): Uint8Array {
  const digest = new Uint8Array(64);
  sodium.crypto_hash_sha512(digest, hashInput(domain, parts));
  return digest;
}

/**
 * `8 point` into `out`: by sums, for a product wants a point of the prime subgroup already. False if
 * `point` is none of the curve.
 */
function timesCofactor(sodium: Sodium, out: Uint8Array, point: Uint8Array): boolean {
  if (sodium.tryAdd(out, point, point) !== 0) return false;
  sodium.crypto_core_ed25519_add(out, out, out);
  sodium.crypto_core_ed25519_add(out, out, out);
  return true;
}

/**
 * RFC 9381 section 5.4.1.1, encode_to_curve_try_and_increment. libsodium decodes a few strings that
 * RFC 8032 does not: 38 numbers from p up, which a hash hits with a chance of 2^-250, and the sign bit
 * beside x = 0, on points of small order that are passed over in either case.
 */
function encodeToCurve(sodium: Sodium, publicKey: Uint8Array, alpha: Uint8Array): Uint8Array {
  const point = new Uint8Array(bytes32);
  const counter = new Uint8Array(1);
  for (let attempt = 0; attempt < 256; attempt++) {
    counter[0] = attempt;
    const candidate = framedHash(sodium, 1, [publicKey, alpha, counter]).subarray(0, bytes32);
    const isPoint = timesCofactor(sodium, point, candidate);
    if (isPoint && !sameBytes(point, identity)) return point;
  }
  throw new VerificationError('BAD_VRF', 'encode to curve', 'a point within 256 attempts');
}

/** RFC 9381 section 5.2 after decoding, cut to what KEYTRANS uses. */
function outputOf(sodium: Sodium, gamma: Uint8Array): Hash {
  const gamma8 = new Uint8Array(bytes32);
  if (!timesCofactor(sodium, gamma8, gamma)) throw new TypeError('vrf: gamma is no point');
  return hashOf(sodium, gamma8);
}
function hashOf(sodium: Sodium, gamma8: Uint8Array): Hash {
  return framedHash(sodium, 3, [gamma8]).slice(0, hashBytes);
}

/**
 * `d 16^i x` for the values d of digit i of a challenge, so that c x is a sum: the addon has no product
 * of scalars. Which entries are added depends on c, which the proof shows, and on nothing secret.
 */
function multiplesOf(sodium: Sodium, x: Uint8Array): Uint8Array[] {
  const memory = new Uint8Array(digits * digitValues * bytes32);
  const table: Uint8Array[] = [];
  // 16^i x; afterwards of no use, as it can be read from the table.
  const step = x.slice();
  for (let digit = 0; digit < digits; digit++) {
    let multiple = new Uint8Array(bytes32);
    for (let value = 1; value <= digitValues; value++) {
      const next = memory.subarray(table.length * bytes32, (table.length + 1) * bytes32);
      sodium.crypto_core_ed25519_scalar_add(next, multiple, step);
      table.push(next);
      multiple = next;
    }
    sodium.crypto_core_ed25519_scalar_add(step, multiple, step);
  }
  step.fill(0);
  return table;
}

/** A secret key that proves; `seed` as in `VrfEngine`. */
export class SodiumProver implements ImmediateVrfProver {
  readonly publicKey: Uint8Array;
  readonly #sodium: Sodium;
  /** x as RFC 8032 section 5.1.5 clamps it, and its multiples modulo the order. */
  readonly #scalar: Uint8Array;
  readonly #multiples: readonly Uint8Array[];
  /** 8 x modulo the order: its product with H is Gamma without the cofactor, which the output hashes. */
  readonly #scalar8: Uint8Array;
  /** The prefix of RFC 8032, and room for H: what the nonce is a hash of. */
  readonly #nonceInput: Uint8Array;

  constructor(sodium: Sodium, seed: Uint8Array) {
    checkSeed(seed);
    const expanded = new Uint8Array(64);
    sodium.crypto_hash_sha512(expanded, seed);
    const scalar = expanded.slice(0, bytes32);
    scalar[0] = (scalar[0] ?? 0) & 0xf8;
    scalar[31] = ((scalar[31] ?? 0) & 0x7f) | 0x40;
    this.#nonceInput = new Uint8Array(64);
    this.#nonceInput.set(expanded.subarray(bytes32));
    expanded.fill(0).set(scalar);
    const reduced = new Uint8Array(bytes32);
    sodium.crypto_core_ed25519_scalar_reduce(reduced, expanded);
    expanded.fill(0);
    this.#sodium = sodium;
    this.#scalar = scalar;
    this.#multiples = multiplesOf(sodium, reduced);
    for (let doubling = 0; doubling < 3; doubling++) {
      sodium.crypto_core_ed25519_scalar_add(reduced, reduced, reduced);
    }
    this.#scalar8 = reduced.slice();
    reduced.fill(0);
    this.publicKey = new Uint8Array(bytes32);
    sodium.crypto_scalarmult_ed25519_base_noclamp(this.publicKey, scalar);
  }

  prove(
    label: Uint8Array,
    versions: readonly number[],
    places: readonly (VrfPlace | undefined)[] = [],
  ): VrfEvaluation[] {
    return versions.map((version, i) => {
      const place = places[i];
      if (place === undefined) return this.evaluate(vrfInput(label, version));
      return { output: place.output, proof: this.#proofAt(place.point) };
    });
  }

  /** One product instead of three, and nothing of the proof. */
  places(label: Uint8Array, versions: readonly number[]): VrfPlace[] {
    const sodium = this.#sodium;
    const gamma8 = new Uint8Array(bytes32);
    return versions.map((version) => {
      const point = encodeToCurve(sodium, this.publicKey, vrfInput(label, version));
      sodium.crypto_scalarmult_ed25519_noclamp(gamma8, this.#scalar8, point);
      return { output: hashOf(sodium, gamma8), point };
    });
  }

  /** RFC 9381 section 5.1 with the nonce of section 5.4.2.2. */
  evaluate(alpha: Uint8Array): VrfEvaluation {
    const proof = this.#proofAt(encodeToCurve(this.#sodium, this.publicKey, alpha));
    return { output: outputOf(this.#sodium, proof.subarray(0, bytes32)), proof };
  }

  /** The proof for the input that `h` was made from. */
  #proofAt(h: Uint8Array): Uint8Array {
    const sodium = this.#sodium;
    const proof = new Uint8Array(vrfProofBytes);
    const gamma = proof.subarray(0, bytes32);
    sodium.crypto_scalarmult_ed25519_noclamp(gamma, this.#scalar, h);
    const nonceHash = new Uint8Array(64);
    const nonce = new Uint8Array(bytes32);
    try {
      this.#nonceInput.set(h, bytes32);
      sodium.crypto_hash_sha512(nonceHash, this.#nonceInput);
      sodium.crypto_core_ed25519_scalar_reduce(nonce, nonceHash);
      const u = new Uint8Array(bytes32);
      const v = new Uint8Array(bytes32);
      sodium.crypto_scalarmult_ed25519_base_noclamp(u, nonce);
      sodium.crypto_scalarmult_ed25519_noclamp(v, nonce, h);
      const hash = framedHash(sodium, 2, [this.publicKey, h, gamma, u, v]);
      const challenge = hash.subarray(0, challengeBytes);
      proof.set(challenge, bytes32);
      this.#addChallenge(nonce, challenge);
      // What was the nonce is k + c x now, the public response.
      proof.set(nonce, bytes32 + challengeBytes);
    } finally {
      nonceHash.fill(0);
      nonce.fill(0);
    }
    return proof;
  }

  /** Adds c x to `scalar`, digit by digit. */
  #addChallenge(scalar: Uint8Array, challenge: Uint8Array): void {
    for (let digit = 0; digit < digits; digit++) {
      const value = ((challenge[digit >> 1] ?? 0) >> (4 * (digit & 1))) & 0xf;
      const multiple = value > 0 && this.#multiples[digit * digitValues + value - 1];
      if (multiple) this.#sodium.crypto_core_ed25519_scalar_add(scalar, scalar, multiple);
    }
  }
}

/** A public key that was checked once (RFC 9381 section 5.4.5) and may verify many proofs. */
export class SodiumPublicKey implements VrfVerifier {
  readonly #sodium: Sodium;
  readonly #bytes: Uint8Array;
  /** Off the prime subgroup RFC 9381 admits keys that libsodium's products refuse. */
  readonly #isFast: boolean;
  #portable: EcvrfPublicKey | undefined;

  /** Throws VerificationError BAD_VRF for anything but a point outside the small subgroup. */
  constructor(sodium: Sodium, bytes: Uint8Array) {
    this.#sodium = sodium;
    this.#bytes = bytes.slice();
    this.#isFast = bytes.length === bytes32 && sodium.crypto_core_ed25519_is_valid_point(bytes);
    if (!this.#isFast) this.#portable = new EcvrfPublicKey(bytes);
  }

  verify(label: Uint8Array, version: number, proof: Uint8Array): Hash {
    return this.verifyInput(vrfInput(label, version), proof);
  }

  /** RFC 9381 section 5.3: the first 32 bytes of beta. Throws VerificationError BAD_VRF. */
  verifyInput(alpha: Uint8Array, pi: Uint8Array): Hash {
    const output = this.#isFast ? this.#verifyFast(alpha, pi) : undefined;
    if (output !== undefined) return output;
    // Made when it is needed: it computes a table first, and honest proofs do not need it.
    this.#portable ??= new EcvrfPublicKey(this.#bytes);
    return this.#portable.verify(alpha, pi).slice(0, hashBytes);
  }

  /**
   * Undefined for a proof that does not hold, and for one that libsodium does not judge: its products
   * demand the prime subgroup of Gamma, which RFC 9381 does not.
   */
  #verifyFast(alpha: Uint8Array, pi: Uint8Array): Hash | undefined {
    const sodium = this.#sodium;
    if (pi.length !== vrfProofBytes) return undefined;
    const gamma = pi.subarray(0, bytes32);
    const challenge = pi.subarray(bytes32, bytes32 + challengeBytes);
    const s = pi.subarray(bytes32 + challengeBytes);
    if (!isScalar(s)) return undefined;
    const c = new Uint8Array(bytes32);
    c.set(challenge);
    const h = encodeToCurve(sodium, this.#bytes, alpha);
    const u = new Uint8Array(bytes32);
    const v = new Uint8Array(bytes32);
    const product = new Uint8Array(bytes32);
    try {
      sodium.crypto_scalarmult_ed25519_noclamp(product, c, gamma);
      sodium.crypto_scalarmult_ed25519_noclamp(v, s, h);
      sodium.crypto_core_ed25519_sub(v, v, product);
      sodium.crypto_scalarmult_ed25519_noclamp(product, c, this.#bytes);
      sodium.crypto_scalarmult_ed25519_base_noclamp(u, s);
      sodium.crypto_core_ed25519_sub(u, u, product);
    } catch {
      // Gamma is not the canonical encoding of a point of large prime order, or c or s is 0.
      return undefined;
    }
    const hash = framedHash(sodium, 2, [this.#bytes, h, gamma, u, v]);
    const holds = sameBytes(challenge, hash.subarray(0, challengeBytes));
    return holds ? outputOf(sodium, gamma) : undefined;
  }
}

/** The engine over a loaded libsodium. */
export function sodiumVrf(sodium: Sodium): VrfEngine {
  return {
    name: 'libsodium',
    prover: (seed) => new SodiumProver(sodium, seed),
    verifier: (publicKey) => new SodiumPublicKey(sodium, publicKey),
  };
}
