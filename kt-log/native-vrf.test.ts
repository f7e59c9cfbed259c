/** The native VRF prover gives the portable one's proofs, byte for byte, and the official vectors. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { nativeVrfProver } from './native-vrf.ts';
import { hex, toHex, vectorTest } from './spec-vectors.ts';
import { portableVrfProver, portableVrfVerifier } from './vrf.ts';

interface KeytransCase {
  readonly input: {
    readonly label: string;
    readonly version: number;
    readonly private_key: string;
    readonly public_key: string;
  };
  readonly expect: {
    readonly output?: string;
    readonly proof?: string;
    readonly error?: boolean;
  };
}
vectorTest<KeytransCase>('vrf.json', (cases) => {
  const provable = cases.filter(({ expect }) => expect.error !== true);
  for (const { name, input, expect } of provable) {
    const prover = nativeVrfProver(hex(input.private_key));
    assert.equal(toHex(prover.publicKey), input.public_key, name);
    const [evaluation] = prover.prove(hex(input.label), [input.version]);
    assert.ok(evaluation);
    assert.equal(toHex(evaluation.proof), expect.proof, name);
    assert.equal(toHex(evaluation.output), expect.output, name);
  }
  return provable.length;
});

test('both engines agree on random keys and labels', () => {
  const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 });
  fc.assert(
    fc.property(bytes32, fc.uint8Array({ maxLength: 40 }), fc.nat(), (seed, label, version) => {
      const [native] = nativeVrfProver(seed).prove(label, [version]);
      const portable = portableVrfProver(seed);
      const [expected] = portable.prove(label, [version]);
      assert.deepEqual(native, expected);
    }),
    { numRuns: 60 },
  );
});

test('several versions come in the order asked, and verify', () => {
  const prover = nativeVrfProver(new Uint8Array(32).fill(3));
  const verifier = portableVrfVerifier(prover.publicKey);
  const label = new TextEncoder().encode('alice@red.example');
  const versions = [5, 0, 1];
  prover.prove(label, versions).forEach(({ output, proof }, i) => {
    assert.deepEqual(verifier.verify(label, versions[i] ?? -1, proof), output);
  });
});
