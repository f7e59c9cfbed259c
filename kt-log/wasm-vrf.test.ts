/** Our engine against RFC 9381 Appendix B.3, and against noble's: same proofs, same verdicts. */
import { ed25519 } from '@noble/curves/ed25519.js';
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { vrfInput } from './codec.ts';
import { sameBytes } from './hash.ts';
import { hex, toHex, vectorTest } from './spec-vectors.ts';
import { VerificationError } from './verification-error.ts';
import { EcvrfPublicKey, hashInput, portableVrf } from './vrf.ts';
import { Curve } from './wasm/curve.ts';
import { arithmeticHere, at } from './wasm/module.ts';
import { WasmProver } from './ecvrf-prover.ts';
import { WasmPublicKey } from './ecvrf-verifier.ts';
import { wasmVrf } from './wasm-vrf.ts';

const Point = ed25519.Point;
type Point = InstanceType<typeof Point>;
const order = Point.Fn.ORDER;
const arithmetic = arithmeticHere() ?? assert.fail('this machine has no vectors');
const fast = wasmVrf(arithmetic);
const curve = Curve.load(arithmetic);

/** The output, or what is said against the proof. */
function verdict(run: () => Uint8Array): string {
  try {
    return toHex(run());
  } catch (error) {
    assert.ok(error instanceof VerificationError, String(error));
    return `${error.reason}: ${error.checked}: ${error.expected}`;
  }
}
/** The verdict, which has to be the same of both engines. */
function judge(key: Uint8Array, label: Uint8Array, version: number, proof: Uint8Array): string {
  const [ours, reference] = [fast, portableVrf].map((engine) =>
    verdict(() => engine.verifier(key).verify(label, version, proof)),
  );
  assert.equal(ours, reference, `${toHex(key)} ${toHex(label)} ${version} ${toHex(proof)}`);
  return ours ?? '';
}
const little = (number: Uint8Array): bigint => BigInt(`0x${toHex(number.slice().reverse())}`);
const isOutput = (text: string): boolean => /^[\da-f]{64}$/.test(text);

interface RfcCase {
  readonly sk: string;
  readonly pk: string;
  readonly alpha: string;
  readonly pi: string;
  readonly beta: string;
}
vectorTest<RfcCase>('rfc9381-ecvrf-edwards25519-tai.json', (cases) => {
  for (const { name, sk, pk, alpha, pi, beta } of cases) {
    const prover = new WasmProver(curve, hex(sk));
    assert.equal(toHex(prover.publicKey), pk, name);
    const [{ proof, output } = assert.fail('no proof')] = prover.evaluate([hex(alpha)]);
    assert.equal(toHex(proof), pi, name);
    assert.equal(toHex(output), beta.slice(0, 64), name);
    const verified = new WasmPublicKey(curve, hex(pk)).verifyInput(hex(alpha), hex(pi));
    assert.equal(toHex(verified), beta.slice(0, 64), name);
  }
  return cases.length;
});

const label = new TextEncoder().encode('alice@red.example');
const seed = new Uint8Array(32).fill(7);
const prover = fast.prover(seed);
const versions = [0, 1, 2, 3];
const proofs = prover.prove(label, versions).map(({ proof }, version) => ({ version, proof }));
const honest = proofs[3]?.proof ?? new Uint8Array();
const bytes = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length });

test('both engines prove the same for random keys and labels, and verify it', () => {
  fc.assert(
    fc.property(bytes(32), fc.uint8Array({ maxLength: 255 }), fc.nat(), (secret, name, version) => {
      const ours = fast.prover(secret);
      const reference = portableVrf.prover(secret);
      assert.deepEqual(ours.publicKey, reference.publicKey);
      const [evaluation] = ours.prove(name, [version]);
      assert.deepEqual(evaluation, reference.prove(name, [version])[0]);
      assert.ok(evaluation);
      const text = judge(ours.publicKey, name, version, evaluation.proof);
      assert.equal(text, toHex(evaluation.output));
    }),
    { numRuns: 40 },
  );
});

test('mutated proofs have the same verdict', () => {
  const mutant = fc.oneof(
    fc.nat({ max: 80 * 8 - 1 }).map((bit) => {
      const changed = honest.slice();
      changed[bit >>> 3] = (changed[bit >>> 3] ?? 0) ^ (1 << (bit & 7));
      return changed;
    }),
    fc.uint8Array({ minLength: 79, maxLength: 81 }),
    bytes(48).map((rest) => Uint8Array.of(...honest.subarray(0, 32), ...rest)),
    fc.nat({ max: 81 }).map((length) => Uint8Array.of(...honest, 0).subarray(0, length)),
  );
  const accepted = toHex(prover.prove(label, [3])[0]?.output ?? new Uint8Array());
  fc.assert(
    fc.property(mutant, fc.nat({ max: 4 }), (proof, version) => {
      const text = judge(prover.publicKey, label, version, proof);
      if (isOutput(text)) assert.ok(sameBytes(proof, honest) && text === accepted);
    }),
    { numRuns: 60 },
  );
});

test('batches of any length are what each input gives alone, from places or not', () => {
  const many = Array.from({ length: 19 }, (_, i) => 3 * i);
  const alone = many.map((version) => prover.prove(label, [version])[0]);
  assert.deepEqual(prover.prove(label, many), alone);
  const places = prover.places(label, many);
  assert.deepEqual(
    places,
    many.map((version) => prover.places(label, [version])[0]),
  );
  for (const part of [2, 3]) {
    const some = places.map((place, i) => (i % part === 0 ? place : undefined));
    assert.deepEqual(prover.prove(label, many, some), alone);
  }
  const verifier = fast.verifier(prover.publicKey);
  for (const [i, version] of many.entries()) {
    const { output, proof } = alone[i] ?? assert.fail('no proof');
    assert.deepEqual(verifier.verify(label, version, proof), output);
  }
  assert.deepEqual([prover.prove(label, []), prover.places(label, [])], [[], []]);
  assert.throws(
    () => prover.prove(label, [0], [{ output: honest, points: new Uint8Array(64).fill(2) }]),
    {
      name: 'TypeError',
    },
  );
});

test('a label of any length is hashed', () => {
  const long = new Uint8Array(5000).fill(5);
  const [{ output, proof } = assert.fail('no proof')] = prover.prove(long, [1]);
  assert.deepEqual(portableVrf.prover(seed).prove(long, [1]), [{ output, proof }]);
  assert.equal(judge(prover.publicKey, long, 1, proof), toHex(output));
});

test('noble is not asked about honest proofs', (context) => {
  const asked = context.mock.method(EcvrfPublicKey.prototype, 'verify');
  const verifier = fast.verifier(prover.publicKey);
  for (const { version, proof } of proofs) verifier.verify(label, version, proof);
  assert.equal(asked.mock.callCount(), 0);
  assert.throws(() => verifier.verify(label, 4, honest), { reason: 'BAD_VRF' });
  assert.equal(asked.mock.callCount(), 1);
});

/** A point of order 8, and the encodings of all points of small order with either sign bit. */
const torsion = Point.fromHex('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a');
const prime = Point.Fp.ORDER;
const encoded = (y: bigint): Uint8Array => hex(y.toString(16).padStart(64, '0')).reverse();
const odd: Uint8Array[] = Array.from({ length: 8 }, (_, i) =>
  i === 0 ? Point.ZERO.toBytes() : torsion.multiplyUnsafe(BigInt(i)).toBytes(),
);
// y = p, p + 1 ... stand for 0, 1 ... and are refused, as is p - 1 with the sign of x = 0.
for (const y of [prime - 1n, prime, prime + 1n, prime + 3n, 2n ** 255n - 1n]) odd.push(encoded(y));
for (const point of odd.slice()) {
  const flipped = point.slice();
  flipped[31] = (flipped[31] ?? 0) ^ 0x80;
  odd.push(flipped);
}
const shifted = [1n, 2n, 4n].map((times) =>
  Point.fromBytes(prover.publicKey).add(torsion.multiplyUnsafe(times)).toBytes(),
);

test('points of small order, off the subgroup or not canonical: same verdict as key and Gamma', () => {
  for (const engine of [fast, portableVrf]) {
    for (const key of odd) {
      assert.throws(() => engine.verifier(key), { checked: 'vrf public key' }, toHex(key));
    }
    for (const key of shifted) assert.doesNotThrow(() => engine.verifier(key), toHex(key));
  }
  for (const point of [...odd, ...shifted]) {
    const text = judge(point, label, 3, honest);
    assert.match(text, /^BAD_VRF/, toHex(point));
    const gamma = Uint8Array.of(...point, ...honest.subarray(32));
    assert.match(judge(prover.publicKey, label, 3, gamma), /^BAD_VRF/, toHex(point));
  }
  for (const key of [new Uint8Array(), prover.publicKey.subarray(1)]) {
    assert.match(judge(key, label, 3, honest), /vrf public key/);
  }
});

test('c and s at their bounds have the same verdict', () => {
  const head = honest.subarray(0, 48);
  // The right number in another encoding is refused too.
  const again = little(honest.subarray(48)) + order;
  for (const s of [0n, 1n, order - 1n, order, again, 2n ** 255n, 2n ** 256n - 1n]) {
    const text = judge(prover.publicKey, label, 3, Uint8Array.of(...head, ...encoded(s)));
    assert.match(text, s < order ? /vrf proof challenge/ : /vrf proof s/);
  }
  for (const fill of [0, 255]) {
    const proof = honest.slice().fill(fill, 32, 48);
    assert.match(judge(prover.publicKey, label, 3, proof), /vrf proof challenge/);
  }
});

const hashOf = (domain: number, parts: readonly Uint8Array[]): Uint8Array => {
  return Uint8Array.from(hash('sha512', hashInput(domain, parts), 'buffer'));
};
/** RFC 9381 section 5.4.1.1. */
function encodeToCurve(key: Uint8Array, alpha: Uint8Array): Point {
  for (let counter = 0; ; counter++) {
    const hash = hashOf(1, [key, alpha, Uint8Array.of(counter)]);
    try {
      return Point.fromBytes(hash.subarray(0, 32)).clearCofactor();
    } catch {
      // Not a point: the next counter.
    }
  }
}
/**
 * A proof that RFC 9381 accepts although key or Gamma are off the prime subgroup: the prover guesses
 * what c times the torsion will be until the guess is right.
 */
function proofOffSubgroup(keyTorsion: Point, gammaTorsion: Point): [Uint8Array, Uint8Array] {
  const x = 0x1234_5678_9abcn;
  const key = Point.BASE.multiply(x).add(keyTorsion).toBytes();
  const h = encodeToCurve(key, vrfInput(label, 3));
  const gamma = h.multiply(x).add(gammaTorsion).toBytes();
  for (let k = 1n; ; k++) {
    const guess = k % 8n;
    const u = Point.BASE.multiply(k).subtract(keyTorsion.multiplyUnsafe(guess));
    const v = h.multiply(k).subtract(gammaTorsion.multiplyUnsafe(guess));
    const challenge = hashOf(2, [key, h.toBytes(), gamma, u.toBytes(), v.toBytes()]);
    const c = challenge.subarray(0, 16);
    if (little(c) % 8n !== guess) continue;
    const s = (k + little(c) * x) % order;
    return [key, Uint8Array.of(...gamma, ...c, ...encoded(s))];
  }
}

test('valid proofs off the prime subgroup are accepted by both, with the output of the subgroup', () => {
  const outputs = [0n, 1n, 2n, 4n].map((times) => {
    const [key, proof] = proofOffSubgroup(Point.ZERO, torsion.multiplyUnsafe(times));
    return judge(key, label, 3, proof);
  });
  assert.ok(isOutput(outputs[0] ?? ''));
  assert.equal(new Set(outputs).size, 1);
  for (const times of [1n, 2n, 4n]) {
    const [key, proof] = proofOffSubgroup(torsion.multiplyUnsafe(times), torsion);
    assert.ok(isOutput(judge(key, label, 3, proof)));
    const mutant = proof.slice();
    mutant[50] = (mutant[50] ?? 0) ^ 1;
    assert.match(judge(key, label, 3, mutant), /^BAD_VRF/);
  }
});

test('nothing that a proof was made from stays in the memory of the module', () => {
  const clean = Curve.load(arithmetic);
  const { memory } = clean;
  const before = memory.slice();
  const made = new WasmProver(clean, seed);
  const [place] = made.places(label, [3]);
  for (const places of [[], [place]]) {
    assert.deepEqual(made.prove(label, [3], places)[0]?.proof, honest);
    assert.ok(memory.subarray(at.secret).every((byte) => byte === 0));
    // What is before it are constants, and multiples of public points.
    assert.deepEqual(memory.subarray(0, at.strings), before.subarray(0, at.strings));
    assert.deepEqual(memory.subarray(at.base, at.tables), before.subarray(at.base, at.tables));
  }
  const digest = hash('sha512', seed, 'buffer');
  const scalar = Buffer.from(digest.subarray(1, 31));
  assert.equal(Buffer.from(memory).includes(scalar), false);
});

test('seeds of another length are refused by both engines', () => {
  for (const engine of [fast, portableVrf]) {
    assert.throws(() => engine.prover(seed.subarray(1)), { name: 'InvalidArgumentError' });
  }
});
