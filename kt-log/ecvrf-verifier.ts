/**
 * Verifying with the curve in WebAssembly. It only ever says yes: what it does not accept is judged by vrf.ts, which
 * words the error too. Variable time, since all of it is public.
 */
import { vrfInput } from './codec.ts';
import type { Curve } from './wasm/curve.ts';
import { digits, slot, table } from './wasm/curve.ts';
import { at, baseTables, keyTables, splitWindows } from './wasm/module.ts';
import { tableBytes } from './wasm/point.ts';
import { digitCount } from './wasm/scalar.ts';
import {
  bytes32,
  challengeBytes,
  challengeOf,
  encodeToCurve,
  hashCandidate,
  outputOf,
  slotsOf,
  takesAsH,
} from './ecvrf-steps.ts';
import type { Hash } from './hash.ts';
import { hashBytes, sameBytes, vrfProofBytes } from './hash.ts';
import type { VrfVerifier } from './vrf.ts';
import { EcvrfPublicKey, isScalar } from './vrf.ts';

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
