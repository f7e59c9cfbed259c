/**
 * ECVRF-EDWARDS25519-SHA512-TAI proving (RFC 9381 section 5.1) with OpenSSL's X25519 and Ed25519 for
 * the multiplications by secret scalars, which are constant time there and several times faster than
 * in JavaScript. Byte for byte the proofs of vrf.ts, which stays the reference and the verifier.
 *
 * X25519 multiplies points known by their Montgomery u, which P and -P share. The sign comes from a
 * second product: with B the base point, x(H + B) = Gamma + Y where Y = xB is the public key, and
 * k(H + B) = V + U where U = kB. U is the R of an Ed25519 signature over H: RFC 9381 section 5.4.2.2
 * derives the nonce k just as RFC 8032 section 5.1.6 does.
 */
import { FpInvertBatch } from '@noble/curves/abstract/modular.js';
import { ed25519 } from '@noble/curves/ed25519.js';
import { signingKeyFromSeed } from '@quicprochat/proto';
import type { KeyObject } from 'node:crypto';
import { createHash, createPrivateKey, createPublicKey, diffieHellman, sign } from 'node:crypto';
import { vrfInput } from './codec.ts';
import { hashBytes, vrfProofBytes } from './hash.ts';
import type { ImmediateVrfProver, VrfEvaluation } from './vrf.ts';
import {
  challengeOf,
  ecvrfProve,
  encodeToCurve,
  littleEndian,
  suiteHash,
  toLittleEndian,
} from './vrf.ts';

const Point = ed25519.Point;
type Point = InstanceType<typeof Point>;
const { Fp, Fn } = Point;
const order = Fn.ORDER;
const inverseOf8 = Fn.inv(8n);

/** RFC 8410: what stands before the raw 32 bytes of an X25519 key. */
const pkcs8Prefix = Buffer.from('302e020100300506032b656e04220420', 'hex');
const spkiPrefix = Buffer.from('302a300506032b656e032100', 'hex');

function x25519Private(scalar: Uint8Array): KeyObject {
  const der = Buffer.concat([pkcs8Prefix, scalar]);
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  der.fill(0);
  return key;
}
function x25519Public(u: bigint): KeyObject {
  const key = Buffer.concat([spkiPrefix, toLittleEndian(u, 32)]);
  return createPublicKey({ key, format: 'der', type: 'spki' });
}
/** u of scalar times point. */
function multiply(privateKey: KeyObject, publicKey: KeyObject): bigint {
  return littleEndian(diffieHellman({ privateKey, publicKey }));
}

/** Numerator and denominator of a point's Montgomery u: (Z + Y) / (Z - Y). */
const uParts = (point: Point): [bigint, bigint] => [
  Fp.add(point.Z, point.Y),
  Fp.sub(point.Z, point.Y),
];

/**
 * A scalar that X25519 leaves as it is and that equals k or -k modulo the order: 8t with
 * t = k/8 or -k/8 from 2^251 up to 2^252. One of the two is, but for a chance of 2^-126.
 */
function clampedFor(k: bigint): Uint8Array | undefined {
  const eighth = Fn.mul(k, inverseOf8);
  const t = eighth >= 2n ** 251n ? eighth : order - eighth;
  return t < 2n ** 252n ? toLittleEndian(8n * t, 32) : undefined;
}

/** The point with this Edwards y whose sum with `addend` has the Montgomery u `sumU`. */
function withSign(y: bigint, addend: Point, sumU: bigint): Point | undefined {
  const point = Point.fromBytes(toLittleEndian(y, 32), false);
  for (const candidate of [point, point.negate()]) {
    const [numerator, denominator] = uParts(candidate.add(addend));
    if (Fp.eql(numerator, Fp.mul(sumU, denominator))) return candidate;
  }
  return undefined;
}

/** What does not depend on the input. */
interface Secret {
  readonly scalar: bigint;
  readonly prefix: Uint8Array;
  readonly x25519: KeyObject;
  readonly ed25519: KeyObject;
  readonly publicKey: Uint8Array;
  readonly publicPoint: Point;
}

/** Proof of `alpha`, or undefined in the rare case that a scalar does not fit. */
function prove(secret: Secret, alpha: Uint8Array): VrfEvaluation | undefined {
  const { publicKey, publicPoint } = secret;
  const h = encodeToCurve(publicKey, alpha);
  const shifted = h.add(Point.BASE);
  const [hNumerator, hDenominator] = uParts(h);
  const [sNumerator, sDenominator] = uParts(shifted);
  const [hInverse, sInverse, zInverse] = FpInvertBatch(Fp, [hDenominator, sDenominator, h.Z]);
  if (hInverse === undefined || sInverse === undefined || zInverse === undefined) return undefined;
  const hBytes = Point.fromAffine({ x: Fp.mul(h.X, zInverse), y: Fp.mul(h.Y, zInverse) }).toBytes();
  const hKey = x25519Public(Fp.mul(hNumerator, hInverse));
  const shiftedKey = x25519Public(Fp.mul(sNumerator, sInverse));

  const nonceHash = createHash('sha512').update(secret.prefix).update(hBytes).digest();
  const nonce = littleEndian(nonceHash) % order;
  const clamped = clampedFor(nonce);
  if (clamped === undefined) return undefined;
  const nonceKey = x25519Private(clamped);
  const uBytes = sign(null, hBytes, secret.ed25519).subarray(0, 32);
  const gammaU = multiply(secret.x25519, hKey);
  const vU = multiply(nonceKey, hKey);
  // y = (u - 1) / (u + 1).
  const [gammaInverse, vInverse] = FpInvertBatch(Fp, [Fp.add(gammaU, 1n), Fp.add(vU, 1n)]);
  if (gammaInverse === undefined || vInverse === undefined) return undefined;
  const gammaY = Fp.mul(Fp.sub(gammaU, 1n), gammaInverse);
  const gamma = withSign(gammaY, publicPoint, multiply(secret.x25519, shiftedKey));
  const vY = Fp.mul(Fp.sub(vU, 1n), vInverse);
  const v = withSign(vY, Point.fromBytes(uBytes, false), multiply(nonceKey, shiftedKey));
  if (gamma === undefined || v === undefined) return undefined;

  const gammaBytes = gamma.toBytes();
  const challenge = challengeOf([publicKey, hBytes, gammaBytes, uBytes, v.toBytes()]);
  const response = (nonce + littleEndian(challenge) * secret.scalar) % order;
  const proof = new Uint8Array(vrfProofBytes);
  proof.set(gammaBytes);
  proof.set(challenge, 32);
  proof.set(toLittleEndian(response, 32), 48);
  const beta = suiteHash(3, [gamma.clearCofactor().toBytes()]);
  return { output: beta.slice(0, hashBytes), proof };
}

/** The prover for a log on Node. `seed` is an Ed25519 seed (32 bytes) used for nothing else. */
export function nativeVrfProver(seed: Uint8Array): ImmediateVrfProver {
  const { head, prefix, scalar, pointBytes: publicKey } = ed25519.utils.getExtendedPublicKey(seed);
  const kept = seed.slice();
  const secret: Secret = {
    scalar,
    prefix,
    publicKey,
    publicPoint: Point.fromBytes(publicKey, false),
    x25519: x25519Private(head),
    ed25519: signingKeyFromSeed(seed).privateKey,
  };
  return {
    publicKey,
    prove: (label, versions) =>
      versions.map((version) => {
        const alpha = vrfInput(label, version);
        const native = prove(secret, alpha);
        if (native !== undefined) return native;
        const { beta, pi } = ecvrfProve(kept, alpha);
        return { output: beta.slice(0, hashBytes), proof: pi };
      }),
  };
}
