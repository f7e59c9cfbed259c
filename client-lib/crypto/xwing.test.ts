/** X-Wing against the vectors of draft-connolly-cfrg-xwing-kem, noble's own and @hpke's. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XWing as HpkeXWing } from '@hpke/hybridkem-x-wing';
import { XWing } from '@noble/post-quantum/hybrid.js';
import { QpcError, hasReason, systemRandom } from '@quicprochat/proto';
import type { Random } from '@quicprochat/proto';
import { inspect } from 'node:util';
import { xwingKem } from './kem.ts';
import { nobleMlKem, nodeMlKem, preferredMlKem } from './ml-kem.ts';
import type { MlKem768 } from './ml-kem.ts';
import { hex, specTest, toHex } from './spec-vectors.ts';
import { XWingSecretKey, xwingDecapsulate, xwingEncapsulate, xwingFromSeed } from './xwing.ts';

const engines: readonly MlKem768[] = [nodeMlKem, nobleMlKem];

/** A Random that hands out the given bytes in order. */
function scripted(bytes: Uint8Array): Random {
  let offset = 0;
  return {
    bytes(length) {
      const part = Uint8Array.from(bytes.subarray(offset, (offset += length)));
      assert.equal(part.length, length, 'the script is long enough');
      return part;
    },
  };
}

interface XWingVector {
  readonly seed: string;
  readonly eseed: string;
  readonly ss: string;
  readonly sk: string;
  readonly pk: string;
  readonly ct: string;
}

specTest<XWingVector[]>('x-wing draft vectors', 'xwing-vectors/test-vectors.json', (vectors) => {
  assert.equal(vectors.length, 3);
  for (const v of vectors) {
    for (const engine of engines) {
      const key = new XWingSecretKey(hex(v.seed), engine);
      assert.equal(toHex(key.publicKey), v.pk, engine.name);
      assert.equal(toHex(key.seed), v.sk, engine.name);
      assert.equal(toHex(xwingDecapsulate(key, hex(v.ct))), v.ss, engine.name);
    }
    // OpenSSL takes no chosen randomness, so the derandomised direction is noble's.
    const sealed = xwingEncapsulate(hex(v.pk), scripted(hex(v.eseed)), nobleMlKem);
    assert.equal(toHex(sealed.ciphertext), v.ct);
    assert.equal(toHex(sealed.sharedSecret), v.ss);
  }
});

test('both engines and noble hybrid open what the others seal', () => {
  for (const sealer of engines) {
    for (const opener of engines) {
      const key = new XWingSecretKey(systemRandom.bytes(32), opener);
      const { ciphertext, sharedSecret } = xwingEncapsulate(key.publicKey, systemRandom, sealer);
      assert.equal(ciphertext.length, 1120);
      assert.deepEqual(xwingDecapsulate(key, ciphertext), sharedSecret);
      const foreign = XWing.decapsulate(ciphertext, key.seed);
      assert.deepEqual(Uint8Array.from(foreign), sharedSecret);
    }
  }
});

test('DeriveKeyPair equals the one of @hpke/hybridkem-x-wing', async () => {
  const ikm = systemRandom.bytes(64);
  const theirs = new HpkeXWing();
  const pair = await theirs.deriveKeyPair(ikm.buffer);
  const publicKey = new Uint8Array(await theirs.serializePublicKey(pair.publicKey));
  const privateKey = new Uint8Array(await theirs.serializePrivateKey(pair.privateKey));
  for (const engine of engines) {
    const ours = xwingKem(engine).deriveKeyPair(ikm);
    assert.deepEqual(ours.publicKey, publicKey);
    assert.deepEqual(ours.serialized, privateKey);
  }
});

test('a forged ciphertext gives another secret and no error', () => {
  for (const engine of engines) {
    const key = new XWingSecretKey(systemRandom.bytes(32), engine);
    const { ciphertext, sharedSecret } = xwingEncapsulate(key.publicKey, systemRandom, engine);
    for (const at of [0, 1087, 1088, 1119]) {
      const forged = Uint8Array.from(ciphertext);
      forged[at] = (forged[at] ?? 0) ^ 1;
      assert.notDeepEqual(xwingDecapsulate(key, forged), sharedSecret);
    }
  }
});

test('an X25519 part of small order is refused on both sides', () => {
  for (const engine of engines) {
    const key = new XWingSecretKey(systemRandom.bytes(32), engine);
    const publicKey = Uint8Array.from(key.publicKey);
    publicKey.fill(0, 1184);
    assert.throws(() => xwingEncapsulate(publicKey, systemRandom, engine), decryptFailed);
    const { ciphertext } = xwingEncapsulate(key.publicKey, systemRandom, engine);
    ciphertext.fill(0, 1088);
    assert.throws(() => xwingDecapsulate(key, ciphertext), decryptFailed);
  }
});

const decryptFailed = (error: unknown): boolean => hasReason(error, 'DECRYPT_FAILED');

test('every wrong length and an unreduced ML-KEM key are typed errors', () => {
  for (const engine of engines) {
    const key = new XWingSecretKey(systemRandom.bytes(32), engine);
    for (const length of [0, 1, 31, 33, 1215, 1217]) {
      assert.throws(() => xwingFromSeed(new Uint8Array(length), engine), QpcError);
      assert.throws(() => xwingEncapsulate(new Uint8Array(length), systemRandom, engine), QpcError);
      assert.throws(() => xwingDecapsulate(key, new Uint8Array(length)), QpcError);
    }
    const unreduced = Uint8Array.from(key.publicKey).fill(0xff, 0, 1152);
    assert.throws(() => xwingEncapsulate(unreduced, systemRandom, engine), QpcError);
  }
});

test('this Node has ML-KEM of its own, and secrets do not print', () => {
  assert.equal(preferredMlKem().name, 'node');
  assert.equal(inspect(new XWingSecretKey(systemRandom.bytes(32), nodeMlKem)), '[secret]');
});
