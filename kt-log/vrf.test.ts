/** ECVRF against RFC 9381 Appendix B.3 and the KEYTRANS vectors (protocol section 11.7). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { vrfInput } from './codec.ts';
import { hex, toHex, vectorTest } from './spec-vectors.ts';
import { ecvrfProve, EcvrfPublicKey, portableVrfProver, portableVrfVerifier } from './vrf.ts';

interface RfcCase {
  readonly sk: string;
  readonly pk: string;
  readonly alpha: string;
  readonly pi: string;
  readonly beta: string;
}
vectorTest<RfcCase>('rfc9381-ecvrf-edwards25519-tai.json', (cases) => {
  for (const { name, sk, pk, alpha, pi, beta } of cases) {
    const proved = ecvrfProve(hex(sk), hex(alpha));
    assert.equal(toHex(proved.pi), pi, name);
    assert.equal(toHex(proved.beta), beta, name);
    assert.equal(toHex(new EcvrfPublicKey(hex(pk)).verify(hex(alpha), hex(pi))), beta, name);
  }
  return cases.length;
});

interface KeytransCase {
  readonly input: {
    readonly label: string;
    readonly version: number;
    readonly private_key: string;
    readonly public_key: string;
    readonly proof?: string;
  };
  readonly expect: {
    readonly output?: string;
    readonly proof?: string;
    readonly vrf_input?: string;
    readonly error?: boolean;
  };
}
vectorTest<KeytransCase>('vrf.json', (cases) => {
  for (const { name, input, expect } of cases) {
    const label = hex(input.label);
    const verifier = portableVrfVerifier(hex(input.public_key));
    if (expect.error === true) {
      const proof = hex(input.proof ?? '');
      assert.throws(() => verifier.verify(label, input.version, proof), { reason: 'BAD_VRF' });
      continue;
    }
    assert.equal(toHex(vrfInput(label, input.version)), expect.vrf_input, name);
    const prover = portableVrfProver(hex(input.private_key));
    assert.equal(toHex(prover.publicKey), input.public_key, name);
    const [evaluation] = prover.prove(label, [input.version]);
    assert.ok(evaluation);
    assert.equal(toHex(evaluation.proof), expect.proof, name);
    assert.equal(toHex(evaluation.output), expect.output, name);
    assert.equal(toHex(verifier.verify(label, input.version, evaluation.proof)), expect.output);
  }
  return cases.length;
});

const seed = new Uint8Array(32).fill(7);
const prover = portableVrfProver(seed);
const verifier = portableVrfVerifier(prover.publicKey);
const label = new TextEncoder().encode('alice@red.example');

test('a proof with any bit changed is refused', () => {
  const [evaluation] = prover.prove(label, [3]);
  assert.ok(evaluation);
  const { proof } = evaluation;
  fc.assert(
    fc.property(fc.nat({ max: 80 * 8 - 1 }), (bit) => {
      const mutant = proof.slice();
      const byte = bit >>> 3;
      mutant[byte] = (mutant[byte] ?? 0) ^ (1 << (bit & 7));
      assert.throws(() => verifier.verify(label, 3, mutant), { reason: 'BAD_VRF' });
    }),
    { numRuns: 60 },
  );
  assert.throws(() => verifier.verify(label, 4, proof), { reason: 'BAD_VRF' });
  assert.throws(() => verifier.verify(label, 3, proof.subarray(1)), { reason: 'BAD_VRF' });
});

test('s plus the group order is the same number and still refused', () => {
  const [evaluation] = prover.prove(label, [0]);
  assert.ok(evaluation);
  const mutant = evaluation.proof.slice();
  const order = 2n ** 252n + 27742317777372353535851937790883648493n;
  let carry = order;
  for (let i = 48; i < 80; i++) {
    carry += BigInt(mutant[i] ?? 0);
    mutant[i] = Number(carry & 0xffn);
    carry >>= 8n;
  }
  assert.throws(() => verifier.verify(label, 0, mutant), { checked: 'vrf proof s' });
});

test('keys of small order and encodings of no point are refused', () => {
  const identity = Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? 1 : 0));
  const noPoint = Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? 2 : 0));
  for (const key of [identity, new Uint8Array(32), noPoint, new Uint8Array(31)]) {
    assert.throws(() => portableVrfVerifier(key), { reason: 'BAD_VRF' });
  }
});
