/**
 * The CryptoProvider under ts-mls: our two MLS cipher suites on node:crypto (RFC 9420
 * section 5.1), with randomness injected. ts-mls's own providers remain as the cross-check
 * in tests; nothing here knows MLS structures.
 */
import { hash as digest, timingSafeEqual } from 'node:crypto';
import { InvalidArgumentError } from '@quicprochat/proto';
import type { Random } from '@quicprochat/proto';
import type { CiphersuiteImpl, CryptoProvider, Hpke, PrivateKey, PublicKey } from 'ts-mls';
import { aesGcmNonceLength, aesGcmOpen, aesGcmSeal } from './aes-gcm.ts';
import { createEd25519, ed25519SeedLength } from './ed25519.ts';
import type { Ed25519 } from './ed25519.ts';
import { hashLength, hkdfExpand, hkdfExtract, hmac } from './hkdf.ts';
import type { HashName } from './hkdf.ts';
import { openBase, receiveExportBase, sealBase, sendExportBase } from './hpke.ts';
import type { HpkeSuite } from './hpke.ts';
import { dhkemX25519, xwingKem } from './kem.ts';
import type { KemPrivateKey } from './kem.ts';
import { preferredMlKem } from './ml-kem.ts';
import type { MlKem768 } from './ml-kem.ts';
import { octets, plain } from './octets.ts';

/** MLS cipher suite numbers. 0xF00D is ts-mls's private-use number (RFC 9420 section 17.1). */
export const mlsSuites = {
  MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519: 0x0001,
  MLS_256_XWING_AES256GCM_SHA512_Ed25519: 0xf00d,
} as const;
export type MlsSuite = (typeof mlsSuites)[keyof typeof mlsSuites];

/** Whether `id` is one of our two suites. */
export function isMlsSuite(id: number): id is MlsSuite {
  return id === 0x0001 || id === 0xf00d;
}

const empty = new Uint8Array(0);

/**
 * A provider for suites 0x0001 and 0xF00D; any other number is an InvalidArgumentError.
 * `mlKem` picks the engine of X-Wing (default: OpenSSL's where Node has it).
 */
export function createMlsCryptoProvider(options: {
  readonly random: Random;
  readonly mlKem?: MlKem768;
}): CryptoProvider {
  const { random, mlKem = preferredMlKem() } = options;
  const ed25519 = createEd25519();
  const impls: Readonly<Record<MlsSuite, CiphersuiteImpl>> = {
    0x0001: suiteImpl(0x0001, 'sha256', { kem: dhkemX25519, hash: 'sha256', keyLength: 16 }),
    0xf00d: suiteImpl(0xf00d, 'sha512', { kem: xwingKem(mlKem), hash: 'sha512', keyLength: 32 }),
  };

  function suiteImpl<K extends KemPrivateKey>(
    id: MlsSuite,
    hashName: HashName,
    hpke: HpkeSuite<K>,
  ): CiphersuiteImpl {
    return {
      id,
      rng: { randomBytes: (n) => random.bytes(n) },
      hash: {
        digest: async (data) => plain(digest(hashName, data, 'buffer')),
        mac: async (key, data) => hmac(hashName, key, data),
        verifyMac: async (key, mac, data) => {
          const expected = hmac(hashName, key, data);
          return expected.length === mac.length && timingSafeEqual(expected, mac);
        },
      },
      kdf: {
        size: hashLength[hashName],
        extract: async (salt, ikm) => hkdfExtract(hashName, salt, ikm),
        expand: async (prk, info, length) => hkdfExpand(hashName, prk, info, length),
      },
      signature: signatureImpl(ed25519, random),
      hpke: hpkeImpl(hpke, random),
    };
  }

  return {
    getCiphersuiteImpl: async (id) => {
      if (!isMlsSuite(id)) {
        throw new InvalidArgumentError('BAD_FIELD', `mls suite: ${id} is not one of ours`);
      }
      return impls[id];
    },
  };
}

function signatureImpl(ed25519: Ed25519, random: Random): CiphersuiteImpl['signature'] {
  return {
    sign: async (seed, message) => ed25519.sign(seed, message),
    verify: async (key, message, signature) => ed25519.verify(key, message, signature),
    keygen: async () => {
      const signKey = random.bytes(ed25519SeedLength);
      return { signKey, publicKey: ed25519.publicKey(signKey) };
    },
  };
}

// ts-mls passes keys as opaque handles that it types as WebCrypto's. Ours are an imported
// private key and a wrapped public one; both are checked on the way back.
class PublicHandle {
  readonly serialized: Uint8Array;
  constructor(serialized: Uint8Array) {
    this.serialized = serialized;
  }
}

function hpkeImpl<K extends KemPrivateKey>(suite: HpkeSuite<K>, random: Random): Hpke {
  const { kem } = suite;
  // Handles are kept by identity, so a foreign CryptoKey can never pass for one of ours.
  const privateKeys = new WeakMap<object, K>();

  const toPublic = (serialized: Uint8Array): PublicKey =>
    new PublicHandle(serialized) as unknown as PublicKey;
  const toPrivate = (key: K): PrivateKey => {
    const handle = Object.freeze({});
    privateKeys.set(handle, key);
    return handle as unknown as PrivateKey;
  };
  const publicBytes = (key: unknown): Uint8Array => {
    if (!(key instanceof PublicHandle)) throw foreign();
    return key.serialized;
  };
  const privateKey = (handle: object): K => {
    const key = privateKeys.get(handle);
    if (key === undefined) throw foreign();
    return key;
  };
  const pair = (key: K): { privateKey: PrivateKey; publicKey: PublicKey } => ({
    privateKey: toPrivate(key),
    publicKey: toPublic(key.publicKey),
  });

  return {
    keyLength: suite.keyLength,
    nonceLength: aesGcmNonceLength,
    importPublicKey: async (k) => toPublic(octets(k, kem.publicKeyLength, 'hpke public key')),
    importPrivateKey: async (k) => toPrivate(kem.importPrivateKey(k)),
    exportPublicKey: async (k) => publicBytes(k),
    exportPrivateKey: async (k) => Uint8Array.from(privateKey(k).serialized),
    deriveKeyPair: async (ikm) => pair(kem.deriveKeyPair(ikm)),
    generateKeyPair: async () => pair(kem.generateKeyPair(random)),
    seal: async (k, plaintext, info, aad = empty) => {
      const { enc, ciphertext } = sealBase(suite, publicBytes(k), info, aad, plaintext, random);
      return { enc, ct: ciphertext };
    },
    open: async (k, enc, ciphertext, info, aad = empty) =>
      openBase(suite, privateKey(k), enc, info, aad, ciphertext),
    exportSecret: async (k, exporterContext, length, info) =>
      sendExportBase(suite, publicBytes(k), info, exporterContext, length, random),
    importSecret: async (k, exporterContext, enc, length, info) =>
      receiveExportBase(suite, privateKey(k), enc, info, exporterContext, length),
    encryptAead: async (key, nonce, aad, plaintext) =>
      aesGcmSeal(key, nonce, aad ?? empty, plaintext),
    decryptAead: async (key, nonce, aad, ciphertext) =>
      aesGcmOpen(key, nonce, aad ?? empty, ciphertext),
  };
}

function foreign(): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', 'hpke key: not made by this provider');
}
