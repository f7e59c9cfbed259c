/**
 * Wycheproof's edge cases through the primitives of the provider. Where the vectors leave a
 * choice ("acceptable"), the test states which one we take.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ed25519 as noble } from '@noble/curves/ed25519.js';
import { aesGcmOpen, aesGcmSeal } from './aes-gcm.ts';
import { createEd25519 } from './ed25519.ts';
import { hkdfExpand, hkdfExtract } from './hkdf.ts';
import { nobleMlKem, nodeMlKem } from './ml-kem.ts';
import { concat } from './octets.ts';
import { hex, specTest, toHex } from './spec-vectors.ts';
import { x25519, x25519PrivateKey, x25519PublicKey } from './x25519.ts';
import { QpcError } from '@quicprochat/proto';

interface Group<T> {
  readonly tests: readonly (T & Case)[];
}
interface Case {
  readonly tcId: number;
  readonly flags: readonly string[];
  readonly result: 'valid' | 'invalid' | 'acceptable';
}
interface File<G> {
  readonly numberOfTests: number;
  readonly testGroups: readonly G[];
}

type SignatureGroup = Group<{ msg: string; sig: string }> & { publicKey: { pk: string } };

specTest<File<SignatureGroup>>('Ed25519 verification', 'wycheproof/ed25519_test.json', (file) => {
  // A cache far smaller than the number of keys: eviction must not change an answer.
  const ed25519 = createEd25519({ publicKeysMax: 3 });
  let ran = 0;
  for (const group of [...file.testGroups, ...file.testGroups]) {
    for (const t of group.tests) {
      const valid = ed25519.verify(hex(group.publicKey.pk), hex(t.msg), hex(t.sig));
      assert.equal(valid, t.result === 'valid', `tcId ${t.tcId}`);
      ran++;
    }
  }
  assert.equal(ran, 2 * file.numberOfTests);
});

test('Ed25519 public keys of small order verify nothing', () => {
  const ed25519 = createEd25519();
  const small = [
    '0100000000000000000000000000000000000000000000000000000000000000',
    'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    '0000000000000000000000000000000000000000000000000000000000000000',
    '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
    'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  ];
  // R = 5 B, S = 5: valid for every message where the public key times the hash vanishes.
  const five = new Uint8Array(32);
  five[0] = 5;
  const forged = concat(noble.Point.BASE.multiply(5n).toBytes(), five);
  for (const publicKey of small.map(hex)) {
    for (let i = 0; i < 64; i++) {
      assert.equal(ed25519.verify(publicKey, Uint8Array.of(i), forged), false);
    }
  }
  // The forgery is one: a verifier of looser policy takes it.
  assert.ok(noble.verify(forged, Uint8Array.of(1), hex(small[0] ?? ''), { zip215: true }));
});

specTest<File<Group<{ public: string; private: string; shared: string }>>>(
  'X25519: zero shared secrets are refused, non-canonical and twist points computed',
  'wycheproof/x25519_test.json',
  (file) => {
    let refused = 0;
    for (const t of file.testGroups.flatMap((group) => group.tests)) {
      const compute = (): Uint8Array =>
        x25519(x25519PrivateKey(hex(t.private)), x25519PublicKey(hex(t.public)));
      if (t.flags.includes('ZeroSharedSecret')) {
        assert.throws(compute, QpcError, `tcId ${t.tcId}`);
        refused++;
      } else {
        assert.equal(toHex(compute()), t.shared, `tcId ${t.tcId}`);
      }
    }
    assert.ok(refused > 10);
  },
);

type AeadGroup = Group<{
  key: string;
  iv: string;
  aad: string;
  msg: string;
  ct: string;
  tag: string;
}> & { ivSize: number; keySize: number; tagSize: number };

specTest<File<AeadGroup>>('AES-GCM with our sizes', 'wycheproof/aes_gcm_test.json', (file) => {
  let ran = 0;
  for (const group of file.testGroups) {
    for (const t of group.tests) {
      const [key, iv, aad] = [hex(t.key), hex(t.iv), hex(t.aad)];
      const sealed = hex(t.ct + t.tag);
      const ours = group.ivSize === 96 && group.keySize !== 192;
      if (!ours) {
        assert.throws(() => aesGcmOpen(key, iv, aad, sealed), QpcError, `tcId ${t.tcId}`);
        continue;
      }
      assert.equal(group.tagSize, 128);
      if (t.result === 'valid') {
        assert.equal(toHex(aesGcmSeal(key, iv, aad, hex(t.msg))), t.ct + t.tag);
        assert.equal(toHex(aesGcmOpen(key, iv, aad, sealed)), t.msg);
      } else {
        assert.throws(() => aesGcmOpen(key, iv, aad, sealed), QpcError, `tcId ${t.tcId}`);
      }
      ran++;
    }
  }
  assert.ok(ran > 100);
});

specTest<File<Group<{ ikm: string; salt: string; info: string; size: number; okm: string }>>>(
  'HKDF-SHA256',
  'wycheproof/hkdf_sha256_test.json',
  (file) => {
    for (const t of file.testGroups.flatMap((group) => group.tests)) {
      const expand = (): Uint8Array =>
        hkdfExpand('sha256', hkdfExtract('sha256', hex(t.salt), hex(t.ikm)), hex(t.info), t.size);
      if (t.result === 'valid') assert.equal(toHex(expand()), t.okm, `tcId ${t.tcId}`);
      else assert.throws(expand, QpcError, `tcId ${t.tcId}`);
    }
  },
);

const engines = [nodeMlKem, nobleMlKem];

specTest<File<Group<{ seed: string; ek: string }>>>(
  'ML-KEM-768 key generation from a seed',
  'wycheproof/mlkem_768_keygen_seed_test.json',
  (file) => {
    for (const t of file.testGroups.flatMap((group) => group.tests)) {
      for (const engine of engines) {
        assert.equal(toHex(engine.fromSeed(hex(t.seed)).publicKey), t.ek, `tcId ${t.tcId}`);
      }
    }
  },
);

specTest<File<Group<{ seed: string; ek?: string; c: string; K: string }>>>(
  'ML-KEM-768 decapsulation, with implicit rejection',
  'wycheproof/mlkem_768_test.json',
  (file) => {
    for (const t of file.testGroups.flatMap((group) => group.tests)) {
      for (const engine of engines) {
        const decapsulate = (): Uint8Array =>
          engine.decapsulate(engine.fromSeed(hex(t.seed)).secretKey, hex(t.c));
        if (t.result === 'valid') assert.equal(toHex(decapsulate()), t.K, `tcId ${t.tcId}`);
        else assert.throws(decapsulate, QpcError, `tcId ${t.tcId}`);
      }
    }
  },
);

specTest<File<Group<{ m: string; ek: string; c: string; K: string }>>>(
  'ML-KEM-768 encapsulation refuses keys that are not reduced',
  'wycheproof/mlkem_768_encaps_test.json',
  (file) => {
    for (const t of file.testGroups.flatMap((group) => group.tests)) {
      const message = (): Uint8Array => hex(t.m);
      if (t.result === 'valid') {
        const sealed = nobleMlKem.encapsulate(hex(t.ek), message);
        assert.equal(toHex(sealed.ciphertext), t.c, `tcId ${t.tcId}`);
        assert.equal(toHex(sealed.sharedSecret), t.K, `tcId ${t.tcId}`);
        continue;
      }
      for (const engine of engines) {
        assert.throws(() => engine.encapsulate(hex(t.ek), message), QpcError, `tcId ${t.tcId}`);
      }
    }
  },
);
