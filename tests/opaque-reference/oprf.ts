/**
 * OPRF(ristretto255, SHA-512) of RFC 9497 section 3.3.1 and the key derivation of section 3.2.1,
 * slow and plain, for the OPAQUE reference. Not constant time: never for production.
 */
import { createHash } from 'node:crypto';
import { ristretto255, ristretto255_hasher } from '@noble/curves/ed25519.js';

const { Point } = ristretto255;
const { Fn } = Point;
const ascii = new TextEncoder();
/** CreateContextString(modeOPRF, "ristretto255-SHA512"), section 3.1. */
const contextString = 'OPRFV1-\0-ristretto255-SHA512';

export const concat = (...parts: readonly Uint8Array[]): Uint8Array =>
  Uint8Array.from(Buffer.concat(parts));
export const text = (value: string): Uint8Array => ascii.encode(value);
export const sha512 = (data: Uint8Array): Uint8Array =>
  Uint8Array.from(createHash('sha512').update(data).digest());

/** I2OSP(length, 2) || value. */
export const prefixed = (value: Uint8Array): Uint8Array =>
  concat(Uint8Array.of(value.length >> 8, value.length & 0xff), value);

/** The element `element * scalar`; both encoded, both checked. */
export function multiply(element: Uint8Array, scalar: Uint8Array): Uint8Array {
  const point = Point.fromBytes(element);
  if (point.is0()) throw new Error('oprf: the identity element');
  return point.multiply(Fn.fromBytes(scalar)).toBytes();
}

export interface KeyPair {
  readonly secret: Uint8Array;
  readonly public: Uint8Array;
}

export function keyPairOf(secret: Uint8Array): KeyPair {
  return { secret, public: Point.BASE.multiply(Fn.fromBytes(secret)).toBytes() };
}

/** DeriveKeyPair(seed, info), RFC 9497 section 3.2.1. */
export function deriveKeyPair(seed: Uint8Array, info: string): KeyPair {
  const deriveInput = concat(seed, prefixed(text(info)));
  for (let counter = 0; counter < 256; counter += 1) {
    const secret = ristretto255_hasher.hashToScalar(concat(deriveInput, Uint8Array.of(counter)), {
      DST: `DeriveKeyPair${contextString}`,
    });
    if (secret !== 0n) return keyPairOf(Fn.toBytes(secret));
  }
  throw new Error('oprf: no key in 256 tries');
}

/** Blind: HashToGroup(input) * blind. */
export function blind(input: Uint8Array, scalar: Uint8Array): Uint8Array {
  const point = ristretto255_hasher.hashToCurve(input, { DST: `HashToGroup-${contextString}` });
  return multiply(point.toBytes(), scalar);
}

/** BlindEvaluate. */
export function blindEvaluate(key: Uint8Array, blinded: Uint8Array): Uint8Array {
  return multiply(blinded, key);
}

/** Finalize: 64 bytes of output. */
export function finalize(input: Uint8Array, scalar: Uint8Array, evaluated: Uint8Array): Uint8Array {
  const inverse = Fn.toBytes(Fn.inv(Fn.fromBytes(scalar)));
  const unblinded = multiply(evaluated, inverse);
  return sha512(concat(prefixed(input), prefixed(unblinded), text('Finalize')));
}
