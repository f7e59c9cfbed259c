/**
 * The two KEMs of HPKE (RFC 9180 section 4) that we use: DHKEM(X25519, HKDF-SHA256), number
 * 0x0020, and X-Wing, number 0x647A, behind one interface with serialised and imported keys.
 */
import type { KeyObject } from 'node:crypto';
import type { Random } from '@quicprochat/proto';
import { hkdfExpand, hkdfExtract } from './hkdf.ts';
import type { MlKem768 } from './ml-kem.ts';
import { preferredMlKem } from './ml-kem.ts';
import { concat, octets } from './octets.ts';
import {
  x25519,
  x25519Base,
  x25519KeyLength,
  x25519PrivateKey,
  x25519PublicKey,
} from './x25519.ts';
import {
  XWingSecretKey,
  shake256,
  xwingCiphertextLength,
  xwingDecapsulate,
  xwingEncapsulate,
  xwingPublicKeyLength,
  xwingSeedLength,
} from './xwing.ts';

/** An imported private key with its public one; printing it shows neither. */
export interface KemPrivateKey {
  readonly serialized: Uint8Array;
  readonly publicKey: Uint8Array;
}

/** A KEM of RFC 9180 section 4, over serialised public keys. */
export interface Kem<K extends KemPrivateKey = KemPrivateKey> {
  readonly id: number;
  readonly publicKeyLength: number;
  readonly privateKeyLength: number;
  readonly encLength: number;
  /** Throws InvalidArgumentError on a wrong length. */
  importPrivateKey(serialized: Uint8Array): K;
  /** Deterministic key pair. RFC 9180 section 7.1.3; X-Wing draft section 5.6. */
  deriveKeyPair(ikm: Uint8Array): K;
  generateKeyPair(random: Random): K;
  encap(publicKey: Uint8Array, random: Random): { sharedSecret: Uint8Array; enc: Uint8Array };
  decap(privateKey: K, enc: Uint8Array): Uint8Array;
}

const text = new TextEncoder();
const empty = new Uint8Array(0);
const inspect = Symbol.for('nodejs.util.inspect.custom');

/** LabeledExtract of RFC 9180 section 4, for a suite id. */
export function labeledExtract(
  hash: 'sha256' | 'sha512',
  suite: Uint8Array,
  salt: Uint8Array,
  label: string,
  ikm: Uint8Array,
): Uint8Array {
  return hkdfExtract(hash, salt, concat(text.encode('HPKE-v1'), suite, text.encode(label), ikm));
}

/** LabeledExpand of RFC 9180 section 4, for a suite id. */
export function labeledExpand(
  hash: 'sha256' | 'sha512',
  suite: Uint8Array,
  prk: Uint8Array,
  label: string,
  info: Uint8Array,
  length: number,
): Uint8Array {
  const labeled = concat(
    Uint8Array.of(length >> 8, length & 0xff),
    text.encode('HPKE-v1'),
    suite,
    text.encode(label),
    info,
  );
  return hkdfExpand(hash, prk, labeled, length);
}

class X25519Key implements KemPrivateKey {
  readonly serialized: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly key: KeyObject;
  constructor(serialized: Uint8Array) {
    this.serialized = Uint8Array.from(serialized);
    this.key = x25519PrivateKey(serialized);
    this.publicKey = x25519Base(this.key);
  }
  [inspect](): string {
    return '[secret]';
  }
}

const dhkemSuite = concat(text.encode('KEM'), Uint8Array.of(0x00, 0x20));

// ExtractAndExpand of RFC 9180 section 4.1.
function dhkemSecret(dh: Uint8Array, context: Uint8Array): Uint8Array {
  const prk = labeledExtract('sha256', dhkemSuite, empty, 'eae_prk', dh);
  dh.fill(0);
  return labeledExpand('sha256', dhkemSuite, prk, 'shared_secret', context, 32);
}

/** DHKEM(X25519, HKDF-SHA256). RFC 9180 section 4.1. */
export const dhkemX25519: Kem<X25519Key> = {
  id: 0x0020,
  publicKeyLength: x25519KeyLength,
  privateKeyLength: x25519KeyLength,
  encLength: x25519KeyLength,
  importPrivateKey: (serialized) => new X25519Key(serialized),
  deriveKeyPair(ikm) {
    const prk = labeledExtract('sha256', dhkemSuite, empty, 'dkp_prk', ikm);
    return new X25519Key(labeledExpand('sha256', dhkemSuite, prk, 'sk', empty, x25519KeyLength));
  },
  generateKeyPair: (random) => dhkemX25519.deriveKeyPair(random.bytes(x25519KeyLength)),
  encap(publicKey, random) {
    const peer = x25519PublicKey(publicKey);
    const ephemeral = dhkemX25519.generateKeyPair(random);
    const dh = x25519(ephemeral.key, peer);
    const sharedSecret = dhkemSecret(dh, concat(ephemeral.publicKey, publicKey));
    ephemeral.serialized.fill(0);
    return { sharedSecret, enc: ephemeral.publicKey };
  },
  decap(privateKey, enc) {
    const dh = x25519(privateKey.key, x25519PublicKey(enc));
    return dhkemSecret(dh, concat(enc, privateKey.publicKey));
  },
};

class XWingKemKey extends XWingSecretKey implements KemPrivateKey {
  get serialized(): Uint8Array {
    return this.seed;
  }
}

/** X-Wing as an HPKE KEM on the given engine. draft-connolly-cfrg-xwing-kem section 5. */
export function xwingKem(engine: MlKem768 = preferredMlKem()): Kem<XWingKemKey> {
  return {
    id: 0x647a,
    publicKeyLength: xwingPublicKeyLength,
    privateKeyLength: xwingSeedLength,
    encLength: xwingCiphertextLength,
    importPrivateKey: (serialized) => new XWingKemKey(serialized, engine),
    deriveKeyPair: (ikm) => new XWingKemKey(shake256(ikm, xwingSeedLength), engine),
    generateKeyPair: (random) => new XWingKemKey(random.bytes(xwingSeedLength), engine),
    encap(publicKey, random) {
      const { ciphertext, sharedSecret } = xwingEncapsulate(
        octets(publicKey, xwingPublicKeyLength, 'x-wing public key'),
        random,
        engine,
      );
      return { sharedSecret, enc: ciphertext };
    },
    decap: (privateKey, enc) => xwingDecapsulate(privateKey, enc),
  };
}
