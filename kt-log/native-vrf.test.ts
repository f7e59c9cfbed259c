/** Which VRF engine a process gets, and that it gives the official KEYTRANS proofs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { chooseVrf, nativeVrf, nativeVrfProver, nativeVrfVerifier } from './native-vrf.ts';
import { arithmeticHere } from './wasm/module.ts';
import { nativeSuite } from './native-suite.ts';
import { hex, toHex, vectorTest } from './spec-vectors.ts';
import { portableVrf } from './vrf.ts';

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
    readonly error?: boolean;
  };
}
vectorTest<KeytransCase>('vrf.json', (cases) => {
  for (const { name, input, expect } of cases) {
    const label = hex(input.label);
    const verifier = nativeSuite.vrfVerifier(hex(input.public_key));
    if (expect.error === true) {
      const proof = hex(input.proof ?? '');
      assert.throws(() => verifier.verify(label, input.version, proof), { reason: 'BAD_VRF' });
      continue;
    }
    const prover = nativeVrfProver(hex(input.private_key));
    assert.equal(toHex(prover.publicKey), input.public_key, name);
    const [evaluation] = prover.prove(label, [input.version]);
    assert.ok(evaluation);
    assert.equal(toHex(evaluation.proof), expect.proof, name);
    assert.equal(toHex(evaluation.output), expect.output, name);
    assert.equal(toHex(verifier.verify(label, input.version, evaluation.proof)), expect.output);
  }
  return cases.length;
});

test('several versions come in the order asked, and verify', () => {
  const prover = nativeVrfProver(new Uint8Array(32).fill(3));
  const verifier = nativeVrfVerifier(prover.publicKey);
  const label = new TextEncoder().encode('alice@red.example');
  const versions = [5, 0, 1];
  prover.prove(label, versions).forEach(({ output, proof }, i) => {
    assert.deepEqual(verifier.verify(label, versions[i] ?? -1, proof), output);
  });
});

test('places have the outputs of the proofs, and proofs made from them are the same, in either engine', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.uint8Array({ maxLength: 255 }),
      fc.array(fc.nat(2 ** 31), { maxLength: 3 }),
      (seed, label, versions) => {
        const [native, portable] = [nativeVrfProver(seed), portableVrf.prover(seed)];
        const proofs = native.prove(label, versions);
        const places = native.places(label, versions);
        assert.deepEqual(
          places.map(({ output }) => output),
          proofs.map(({ output }) => output),
        );
        assert.deepEqual(portable.places(label, versions), places);
        // Of some it has them, of others not.
        const some = places.map((place, i) => (i % 2 === 0 ? place : undefined));
        assert.deepEqual(native.prove(label, versions, some), proofs);
        assert.deepEqual(portable.prove(label, versions, some), proofs);
      },
    ),
    { numRuns: 30 },
  );
});

test('the engine is the one in WebAssembly wherever there are vectors, and says so', () => {
  assert.equal(nativeVrf.name, arithmeticHere() === undefined ? 'noble' : 'wasm');
  assert.equal(chooseVrf('plain').name, 'wasm');
  assert.equal(chooseVrf(undefined), portableVrf);
});

test('the arithmetic is what the machine has', (context) => {
  const known: boolean[] = [];
  context.mock.method(WebAssembly, 'validate', () => known.shift() ?? false);
  known.push(false, true);
  assert.equal(arithmeticHere(), 'plain', 'no relaxed instructions');
  assert.equal(arithmeticHere(), undefined, 'no vectors');
  const there = globalThis.WebAssembly;
  try {
    Reflect.set(globalThis, 'WebAssembly', undefined);
    assert.equal(arithmeticHere(), undefined, 'as with --jitless');
  } finally {
    globalThis.WebAssembly = there;
  }
});
