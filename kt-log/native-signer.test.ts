/** Both signers give the signatures of RFC 8032, and nothing else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { chooseSigner, nativeSigner } from './native-signer.ts';
import { nativeSuite } from './native-suite.ts';
import { loadSodium } from './sodium-addon.ts';
import { portableSigner } from './suite.ts';

const bytes = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length });
const without = chooseSigner(() => {
  throw new Error('no binary');
});
const withSodium = chooseSigner(loadSodium);

test('RFC 8032 section 7.1, test 2', () => {
  const seed = Buffer.from(
    '4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb',
    'hex',
  );
  const signature =
    '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da' +
    '085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00';
  for (const signerOf of [without, withSodium]) {
    const made = signerOf(seed).sign(Uint8Array.of(0x72));
    assert.equal(Buffer.from(made).toString('hex'), signature);
  }
});

test('with the addon, without it and by noble: one key, one signature, which holds', () => {
  fc.assert(
    fc.property(bytes(32), fc.uint8Array({ maxLength: 300 }), (seed, message) => {
      const [first, ...others] = [withSodium, without, portableSigner].map((of) => of(seed));
      assert.ok(first);
      const signature = first.sign(message);
      for (const other of others) {
        assert.deepEqual(other.publicKey, first.publicKey);
        assert.deepEqual(other.sign(message), signature);
      }
      assert.ok(nativeSuite.verifySignature(first.publicKey, message, signature));
    }),
    { numRuns: 25 },
  );
});

test('a signer outlives the seed that it was made from; another length is refused', () => {
  const seed = new Uint8Array(32).fill(5);
  const expected = nativeSigner(seed).sign(seed.slice(0, 7));
  const wiped = seed.slice();
  const signer = nativeSigner(wiped);
  wiped.fill(0);
  assert.deepEqual(signer.sign(seed.slice(0, 7)), expected);
  for (const length of [0, 31, 33, 64]) {
    assert.throws(() => nativeSigner(new Uint8Array(length)), { name: 'InvalidArgumentError' });
  }
});
