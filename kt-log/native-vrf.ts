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
/** d of the curve -x^2 + y^2 = 1 + d x^2 y^2. */
const curveD = Point.CURVE().d;

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

/**
 * A point by its Montgomery u, and the u of its sum with a known affine point (x0, y0); as fractions,
 * so that several points share one inversion. With y = (u - 1)/(u + 1) = a/b for the point and
 * e/f for the sum, the addition law y3 (1 - d x x0 y y0) = y y0 + x x0 gives x without a root:
 *
 *     x = (e b - a f y0) / (x0 (f b + d e a y0))
 */
interface Fractions {
  readonly y: readonly [bigint, bigint];
  readonly x: readonly [bigint, bigint];
}
function fractionsOf(u: bigint, sumU: bigint, known: { x: bigint; y: bigint }): Fractions {
  const a = Fp.sub(u, 1n);
  const b = Fp.add(u, 1n);
  const e = Fp.sub(sumU, 1n);
  const f = Fp.add(sumU, 1n);
  const ay0 = Fp.mul(a, known.y);
  return {
    y: [a, b],
    x: [
      Fp.sub(Fp.mul(e, b), Fp.mul(f, ay0)),
      Fp.mul(known.x, Fp.add(Fp.mul(f, b), Fp.mul(Fp.mul(curveD, e), ay0))),
    ],
  };
}

/** The points of several fractions, or undefined where one is none: a fault, or an exceptional sum. */
function pointsOf(fractions: readonly Fractions[]): Point[] | undefined {
  const denominators = fractions.flatMap(({ x, y }) => [x[1], y[1]]);
  if (denominators.some((denominator) => Fp.is0(denominator))) return undefined;
  const inverses = FpInvertBatch(Fp, denominators);
  const points: Point[] = [];
  for (const [i, fraction] of fractions.entries()) {
    const x = Fp.mul(fraction.x[0], inverses[2 * i] ?? 0n);
    const y = Fp.mul(fraction.y[0], inverses[2 * i + 1] ?? 0n);
    const xx = Fp.sqr(x);
    const yy = Fp.sqr(y);
    // -x^2 + y^2 = 1 + d x^2 y^2, or the nonce must not leave this function.
    if (!Fp.eql(Fp.sub(yy, xx), Fp.add(1n, Fp.mul(curveD, Fp.mul(xx, yy))))) return undefined;
    points.push(Point.fromAffine({ x, y }));
  }
  return points;
}

/** What does not depend on the input. */
interface Secret {
  readonly scalar: bigint;
  readonly prefix: Uint8Array;
  readonly x25519: KeyObject;
  readonly ed25519: KeyObject;
  readonly publicKey: Uint8Array;
  readonly publicPoint: { x: bigint; y: bigint };
}

/** Proof of `alpha`, or undefined in the rare case that a scalar does not fit. */
function prove(secret: Secret, alpha: Uint8Array): VrfEvaluation | undefined {
  const { publicKey } = secret;
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
  const nonceBase = Point.fromBytes(uBytes, false).toAffine();
  const [gamma, v] =
    pointsOf([
      fractionsOf(
        multiply(secret.x25519, hKey),
        multiply(secret.x25519, shiftedKey),
        secret.publicPoint,
      ),
      fractionsOf(multiply(nonceKey, hKey), multiply(nonceKey, shiftedKey), nonceBase),
    ]) ?? [];
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
    publicPoint: Point.fromBytes(publicKey, false).toAffine(),
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
