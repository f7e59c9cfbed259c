/**
 * The MLS provider against RFC 9420's crypto-basics vectors and, for both suites, against
 * the default provider of ts-mls (WebCrypto, @hpke, noble).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QpcError, systemRandom } from '@quicprochat/proto';
import { defaultCryptoProvider } from 'ts-mls';
import type { CiphersuiteImpl, PrivateKey, PublicKey } from 'ts-mls';
import { nobleMlKem } from './ml-kem.ts';
import { concat } from './octets.ts';
import { createMlsCryptoProvider } from './provider.ts';
import { hex, specTest, toHex } from './spec-vectors.ts';

const provider = createMlsCryptoProvider({ random: systemRandom });
const suites = [0x0001, 0xf00d] as const;
const text = new TextEncoder();

// The presentation language of RFC 9420 section 2.1.2: a variable-size vector.
function vector(data: Uint8Array): Uint8Array {
  const n = data.length;
  return concat(n < 64 ? Uint8Array.of(n) : Uint8Array.of(0x40 | (n >> 8), n & 0xff), data);
}

function kdfLabel(length: number, label: string, context: Uint8Array): Uint8Array {
  const size = Uint8Array.of(length >> 8, length & 0xff);
  return concat(size, vector(text.encode(`MLS 1.0 ${label}`)), vector(context));
}

function labeled(label: string, content: Uint8Array): Uint8Array {
  return concat(vector(text.encode(`MLS 1.0 ${label}`)), vector(content));
}

interface CryptoBasics {
  cipher_suite: number;
  ref_hash: { label: string; value: string; out: string };
  expand_with_label: {
    secret: string;
    label: string;
    context: string;
    length: number;
    out: string;
  };
  derive_secret: { secret: string; label: string; out: string };
  derive_tree_secret: {
    secret: string;
    label: string;
    generation: number;
    length: number;
    out: string;
  };
  sign_with_label: { priv: string; pub: string; content: string; label: string; signature: string };
  encrypt_with_label: {
    priv: string;
    pub: string;
    label: string;
    context: string;
    plaintext: string;
    kem_output: string;
    ciphertext: string;
  };
}

specTest<CryptoBasics[]>(
  'RFC 9420 crypto-basics in suite 1',
  'rfc9420-vectors/crypto-basics.json',
  async (vectors) => {
    const v = vectors.find((entry) => entry.cipher_suite === 1);
    assert.ok(v);
    const { hash, kdf, signature, hpke } = await provider.getCiphersuiteImpl(1);
    const refHash = concat(vector(text.encode(v.ref_hash.label)), vector(hex(v.ref_hash.value)));
    assert.equal(toHex(await hash.digest(refHash)), v.ref_hash.out);

    const e = v.expand_with_label;
    const info = kdfLabel(e.length, e.label, hex(e.context));
    assert.equal(toHex(await kdf.expand(hex(e.secret), info, e.length)), e.out);
    const d = v.derive_secret;
    const secretInfo = kdfLabel(kdf.size, d.label, new Uint8Array(0));
    assert.equal(toHex(await kdf.expand(hex(d.secret), secretInfo, kdf.size)), d.out);
    const t = v.derive_tree_secret;
    const generation = new Uint8Array(4);
    new DataView(generation.buffer).setUint32(0, t.generation);
    const treeInfo = kdfLabel(t.length, t.label, generation);
    assert.equal(toHex(await kdf.expand(hex(t.secret), treeInfo, t.length)), t.out);

    const s = v.sign_with_label;
    const content = labeled(s.label, hex(s.content));
    assert.ok(await signature.verify(hex(s.pub), content, hex(s.signature)));
    assert.equal(toHex(await signature.sign(hex(s.priv), content)), s.signature);

    const c = v.encrypt_with_label;
    const context = labeled(c.label, hex(c.context));
    const key = await hpke.importPrivateKey(hex(c.priv));
    const opened = await hpke.open(key, hex(c.kem_output), hex(c.ciphertext), context);
    assert.equal(toHex(opened), c.plaintext);
    const recipient = await hpke.importPublicKey(hex(c.pub));
    const sealed = await hpke.seal(recipient, hex(c.plaintext), context);
    assert.equal(toHex(await hpke.open(key, sealed.enc, sealed.ct, context)), c.plaintext);
  },
);

async function hpkePair(cs: CiphersuiteImpl, ikm: Uint8Array): Promise<[string, string]> {
  const { publicKey, privateKey } = await cs.hpke.deriveKeyPair(ikm);
  return [
    toHex(await cs.hpke.exportPublicKey(publicKey)),
    toHex(await cs.hpke.exportPrivateKey(privateKey)),
  ];
}

for (const id of suites) {
  test(`suite 0x${id.toString(16)} agrees with ts-mls's default provider`, async () => {
    const ours = await provider.getCiphersuiteImpl(id);
    const theirs = await defaultCryptoProvider.getCiphersuiteImpl(id);
    const [data, key, info] = [71, 33, 12].map((n) => systemRandom.bytes(n));
    assert.ok(data && key && info);

    assert.equal(ours.kdf.size, theirs.kdf.size);
    assert.equal(ours.hpke.keyLength, theirs.hpke.keyLength);
    assert.equal(ours.hpke.nonceLength, theirs.hpke.nonceLength);
    assert.deepEqual(await ours.hash.digest(data), await theirs.hash.digest(data));
    const mac = await ours.hash.mac(key, data);
    assert.deepEqual(mac, await theirs.hash.mac(key, data));
    assert.ok(await ours.hash.verifyMac(key, mac, data));
    assert.equal(await ours.hash.verifyMac(key, mac.subarray(1), data), false);
    const flipped = mac.map((byte, index) => (index === 0 ? byte ^ 1 : byte));
    assert.equal(await ours.hash.verifyMac(key, flipped, data), false);
    // @hpke refuses salts of another length than the hash's, and MLS never has one.
    const salt = systemRandom.bytes(ours.kdf.size);
    const prk = await ours.kdf.extract(salt, data);
    assert.deepEqual(prk, await theirs.kdf.extract(salt, data));
    for (const length of [1, 16, 64, 200]) {
      assert.deepEqual(
        await ours.kdf.expand(prk, info, length),
        await theirs.kdf.expand(prk, info, length),
      );
    }
    assert.deepEqual(await hpkePair(ours, prk), await hpkePair(theirs, prk));

    const { signKey, publicKey } = await ours.signature.keygen();
    const signature = await ours.signature.sign(signKey, data);
    assert.deepEqual(signature, await theirs.signature.sign(signKey, data));
    assert.ok(await theirs.signature.verify(publicKey, data, signature));
    assert.ok(await ours.signature.verify(publicKey, data, signature));
    assert.equal(await ours.signature.verify(publicKey, info, signature), false);

    for (const [a, b] of [
      [ours, theirs],
      [theirs, ours],
    ] as const) {
      const pair = await b.hpke.generateKeyPair();
      const sender = await a.hpke.importPublicKey(await b.hpke.exportPublicKey(pair.publicKey));
      const { enc, ct } = await a.hpke.seal(sender, data, info, key);
      assert.deepEqual(await b.hpke.open(pair.privateKey, enc, ct, info, key), data);
      const sent = await a.hpke.exportSecret(sender, key, 48, info);
      assert.deepEqual(
        await b.hpke.importSecret(pair.privateKey, key, sent.enc, 48, info),
        sent.secret,
      );
      const aeadKey = systemRandom.bytes(a.hpke.keyLength);
      const nonce = systemRandom.bytes(12);
      for (const aad of [undefined, info]) {
        const sealed = await a.hpke.encryptAead(aeadKey, nonce, aad, data);
        assert.deepEqual(await b.hpke.decryptAead(aeadKey, nonce, aad, sealed), data);
      }
    }
  });
}

test('the noble engine serves suite 0xF00D and speaks with the other', async () => {
  const portable = createMlsCryptoProvider({ random: systemRandom, mlKem: nobleMlKem });
  const a = await portable.getCiphersuiteImpl(0xf00d);
  const b = await provider.getCiphersuiteImpl(0xf00d);
  const pair = await a.hpke.generateKeyPair();
  const to = await b.hpke.importPublicKey(await a.hpke.exportPublicKey(pair.publicKey));
  const data = systemRandom.bytes(40);
  const { enc, ct } = await b.hpke.seal(to, data, data);
  assert.deepEqual(await a.hpke.open(pair.privateKey, enc, ct, data), data);
});

test('other suites, foreign keys and short ciphertexts are typed errors', async () => {
  for (const id of [0, 2, 3, 7, 0xf00e, 65536]) {
    await assert.rejects(provider.getCiphersuiteImpl(id), QpcError);
  }
  for (const id of suites) {
    const { hpke } = await provider.getCiphersuiteImpl(id);
    const theirs = await (
      await defaultCryptoProvider.getCiphersuiteImpl(id)
    ).hpke.generateKeyPair();
    const data = new Uint8Array(20);
    await assert.rejects(hpke.seal(theirs.publicKey, data, data), QpcError);
    await assert.rejects(hpke.open(theirs.privateKey, data, data, data), QpcError);
    await assert.rejects(hpke.exportPrivateKey({} as unknown as PrivateKey), QpcError);
    await assert.rejects(hpke.exportPublicKey({} as unknown as PublicKey), QpcError);
    const key = new Uint8Array(hpke.keyLength);
    for (let length = 0; length < 16; length++) {
      await assert.rejects(
        hpke.decryptAead(key, new Uint8Array(12), undefined, new Uint8Array(length)),
        QpcError,
      );
    }
  }
});
