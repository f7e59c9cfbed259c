/** HPKE base mode against RFC 9180 appendix A.1.1, @hpke/core, and the envelope suite. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Aes128Gcm, Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from '@hpke/core';
import { XWing } from '@hpke/hybridkem-x-wing';
import { hasReason, systemRandom } from '@quicprochat/proto';
import type { Random } from '@quicprochat/proto';
import {
  hpkeOpenBase,
  hpkeSealBase,
  openBase,
  receiveExportBase,
  sealBase,
  sendExportBase,
} from './hpke.ts';
import { dhkemX25519 } from './kem.ts';
import { hex, toHex } from './spec-vectors.ts';
import { xwingGenerateKeyPair } from './xwing.ts';

const suite = { kem: dhkemX25519, hash: 'sha256', keyLength: 16 } as const;
const empty = new Uint8Array(0);

// RFC 9180 appendix A.1.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, base mode.
const rfc = {
  info: '4f6465206f6e2061204772656369616e2055726e',
  ikmE: '7268600d403fce431561aef583ee1613527cff655c1343f29812e66706df3234',
  pkEm: '37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431',
  ikmR: '6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037',
  pkRm: '3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d',
  skRm: '4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8',
  sharedSecret: 'fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc',
  pt: '4265617574792069732074727574682c20747275746820626561757479',
  aad: '436f756e742d30',
  ct: 'f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a',
  exports: [
    ['', '3853fe2b4035195a573ffc53856e77058e15d9ea064de3e59f4961d0095250ee'],
    ['00', '2e8f0b54673c7029649d4eb9d5e33bf1872cf76d623ff164ac185da9e88c21a5'],
    ['54657374436f6e74657874', 'e9e43065102c3836401bed8c3c3c75ae46be1639869391d62c61f1ec7af54931'],
  ],
} as const;

const ikmE: Random = { bytes: () => Uint8Array.from(hex(rfc.ikmE)) };

test('RFC 9180 A.1.1: key pair, encapsulation, first message, exports', () => {
  const recipient = dhkemX25519.deriveKeyPair(hex(rfc.ikmR));
  assert.equal(toHex(recipient.publicKey), rfc.pkRm);
  assert.equal(toHex(recipient.serialized), rfc.skRm);

  const kem = dhkemX25519.encap(recipient.publicKey, ikmE);
  assert.equal(toHex(kem.enc), rfc.pkEm);
  assert.equal(toHex(kem.sharedSecret), rfc.sharedSecret);
  assert.equal(toHex(dhkemX25519.decap(recipient, kem.enc)), rfc.sharedSecret);

  const info = hex(rfc.info);
  const sealed = sealBase(suite, recipient.publicKey, info, hex(rfc.aad), hex(rfc.pt), ikmE);
  assert.equal(toHex(sealed.enc), rfc.pkEm);
  assert.equal(toHex(sealed.ciphertext), rfc.ct);
  const opened = openBase(suite, recipient, sealed.enc, info, hex(rfc.aad), hex(rfc.ct));
  assert.equal(toHex(opened), rfc.pt);

  for (const [context, value] of rfc.exports) {
    const sent = sendExportBase(suite, recipient.publicKey, info, hex(context), 32, ikmE);
    assert.equal(toHex(sent.secret), value);
    const received = receiveExportBase(suite, recipient, sent.enc, info, hex(context), 32);
    assert.equal(toHex(received), value);
  }
});

test('an X25519 public key of small order is refused', () => {
  const recipient = dhkemX25519.generateKeyPair(systemRandom);
  const one = new Uint8Array(32);
  one[0] = 1;
  for (const point of [new Uint8Array(32), one]) {
    assert.throws(() => sealBase(suite, point, empty, empty, empty, systemRandom), failed);
    assert.throws(
      () => openBase(suite, recipient, point, empty, empty, new Uint8Array(16)),
      failed,
    );
  }
});

const failed = (error: unknown): boolean => hasReason(error, 'DECRYPT_FAILED');

test('X25519 HPKE and @hpke/core open each other', async () => {
  const theirs = new CipherSuite({
    kem: new DhkemX25519HkdfSha256(),
    kdf: new HkdfSha256(),
    aead: new Aes128Gcm(),
  });
  const key = dhkemX25519.generateKeyPair(systemRandom);
  const [info, aad, plaintext] = [20, 3, 100].map((n) => systemRandom.bytes(n));
  assert.ok(info && aad && plaintext);
  const recipientKey = await theirs.kem.deserializePrivateKey(
    Uint8Array.from(key.serialized).buffer,
  );
  const ours = sealBase(suite, key.publicKey, info, aad, plaintext, systemRandom);
  const opened = await theirs.open(
    { recipientKey, enc: Uint8Array.from(ours.enc).buffer, info: info.buffer },
    Uint8Array.from(ours.ciphertext).buffer,
    aad.buffer,
  );
  assert.deepEqual(new Uint8Array(opened), plaintext);
  const recipientPublicKey = await theirs.kem.deserializePublicKey(
    Uint8Array.from(key.publicKey).buffer,
  );
  const sealed = await theirs.seal(
    { recipientPublicKey, info: info.buffer },
    plaintext.buffer,
    aad.buffer,
  );
  const [enc, ct] = [new Uint8Array(sealed.enc), new Uint8Array(sealed.ct)];
  assert.deepEqual(openBase(suite, key, enc, info, aad, ct), plaintext);
});

test('the envelope suite 0x647A, 0x0001, 0x0002 and @hpke open each other', async () => {
  const theirs = new CipherSuite({
    kem: new XWing(),
    kdf: new HkdfSha256(),
    aead: new Aes256Gcm(),
  });
  const { publicKey, secretSeed } = xwingGenerateKeyPair(systemRandom);
  const info = systemRandom.bytes(74);
  const aad = systemRandom.bytes(9);
  const plaintext = systemRandom.bytes(300);
  const ours = hpkeSealBase({
    kem: 'xwing',
    publicKey,
    info,
    aad,
    plaintext,
    random: systemRandom,
  });
  assert.equal(ours.enc.length, 1120);
  assert.equal(ours.ciphertext.length, 316);
  const recipientKey = await theirs.kem.deserializePrivateKey(Uint8Array.from(secretSeed).buffer);
  const opened = await theirs.open(
    { recipientKey, enc: Uint8Array.from(ours.enc).buffer, info: info.buffer },
    Uint8Array.from(ours.ciphertext).buffer,
    aad.buffer,
  );
  assert.deepEqual(new Uint8Array(opened), plaintext);
  const recipientPublicKey = await theirs.kem.deserializePublicKey(
    Uint8Array.from(publicKey).buffer,
  );
  const sealed = await theirs.seal(
    { recipientPublicKey, info: info.buffer },
    plaintext.buffer,
    aad.buffer,
  );
  assert.deepEqual(
    hpkeOpenBase({
      kem: 'xwing',
      secretSeed,
      enc: new Uint8Array(sealed.enc),
      info,
      aad,
      ciphertext: new Uint8Array(sealed.ct),
    }),
    plaintext,
  );
});

test('a changed byte of enc, ciphertext, info or aad is DECRYPT_FAILED', () => {
  const { publicKey, secretSeed } = xwingGenerateKeyPair(systemRandom);
  const info = Uint8Array.of(1, 2);
  const aad = Uint8Array.of(3);
  const plaintext = Uint8Array.of(4, 5, 6);
  const sealed = hpkeSealBase({
    kem: 'xwing',
    publicKey,
    info,
    aad,
    plaintext,
    random: systemRandom,
  });
  const honest = { kem: 'xwing', secretSeed, info, aad, ...sealed } as const;
  assert.deepEqual(hpkeOpenBase(honest), plaintext);
  for (const field of ['enc', 'ciphertext', 'info', 'aad'] as const) {
    for (let at = 0; at < honest[field].length; at += field === 'enc' ? 97 : 1) {
      const forged = Uint8Array.from(honest[field]);
      forged[at] = (forged[at] ?? 0) ^ 0x80;
      // The top bit of an X25519 coordinate is ignored (RFC 7748 section 5), but enc is hashed in.
      assert.throws(() => hpkeOpenBase({ ...honest, [field]: forged }), failed, `${field} ${at}`);
    }
  }
  for (let cut = 0; cut < sealed.ciphertext.length; cut++) {
    const ciphertext = sealed.ciphertext.subarray(0, cut);
    assert.throws(() => hpkeOpenBase({ ...honest, ciphertext }), failed);
  }
});
