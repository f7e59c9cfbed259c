/**
 * ML-KEM-768 (FIPS 203) behind one small interface with two engines: node:crypto where it
 * has `encapsulate` (OpenSSL 3.5 and newer, constant time), @noble/post-quantum elsewhere.
 * noble also serves the simulator and the official vectors: OpenSSL takes no chosen
 * randomness for an encapsulation.
 */
import * as nodeCrypto from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { ml_kem768 } from '@noble/post-quantum/ml-kem.js';
import { InvalidArgumentError, isReduced } from '@quicprochat/proto';
import { concat, hex, octets, plain } from './octets.ts';

export const mlKemPublicKeyLength = 1184;
export const mlKemCiphertextLength = 1088;
export const mlKemSeedLength = 64;

/** A decapsulation key whose form only its engine knows. */
export type MlKemSecretKey = KeyObject | Uint8Array;

/** One implementation of ML-KEM-768. */
export interface MlKem768 {
  readonly name: 'node' | 'noble';
  /** Key pair of the 64-byte seed d || z, FIPS 203 algorithm 16. */
  fromSeed(seed: Uint8Array): { publicKey: Uint8Array; secretKey: MlKemSecretKey };
  /**
   * 1088-byte ciphertext and 32-byte secret for a 1184-byte public key.
   * `message` (32 random bytes) is used by the noble engine only.
   * Throws InvalidArgumentError when the key fails the modulus check of FIPS 203 7.2.
   */
  encapsulate(
    publicKey: Uint8Array,
    message: () => Uint8Array,
  ): { ciphertext: Uint8Array; sharedSecret: Uint8Array };
  /** The 32-byte secret; a forged ciphertext gives a pseudo-random one (implicit rejection). */
  decapsulate(secretKey: MlKemSecretKey, ciphertext: Uint8Array): Uint8Array;
}

// RFC 9935 (ML-KEM in X.509) section 6: OneAsymmetricKey with the seed choice [0] of 64 bytes.
const pkcs8SeedPrefix = hex('3054020100300b060960864801650304040204428040');
const spkiPrefix = hex('308204b2300b0609608648016503040402038204a100');

function refuseModulus(cause: unknown): never {
  throw new InvalidArgumentError('BAD_FIELD', 'ml-kem public key: fails the modulus check', {
    cause,
  });
}

/** ML-KEM-768 of OpenSSL. */
export const nodeMlKem: MlKem768 = {
  name: 'node',
  fromSeed(seed) {
    const key = Buffer.from(
      concat(pkcs8SeedPrefix, octets(seed, mlKemSeedLength, 'ml-kem seed')).buffer,
    );
    try {
      const secretKey = nodeCrypto.createPrivateKey({ key, format: 'der', type: 'pkcs8' });
      const spki = nodeCrypto.createPublicKey(secretKey).export({ format: 'der', type: 'spki' });
      return { secretKey, publicKey: Uint8Array.from(spki.subarray(-mlKemPublicKeyLength)) };
    } finally {
      key.fill(0);
    }
  },
  encapsulate(publicKey) {
    octets(publicKey, mlKemPublicKeyLength, 'ml-kem public key');
    let key: KeyObject;
    try {
      key = nodeCrypto.createPublicKey({
        key: Buffer.from(concat(spkiPrefix, publicKey).buffer),
        format: 'der',
        type: 'spki',
      });
    } catch (cause) {
      refuseModulus(cause);
    }
    const { ciphertext, sharedKey } = nodeCrypto.encapsulate(key);
    return { ciphertext: plain(ciphertext), sharedSecret: plain(sharedKey) };
  },
  decapsulate(secretKey, ciphertext) {
    octets(ciphertext, mlKemCiphertextLength, 'ml-kem ciphertext');
    if (secretKey instanceof Uint8Array) {
      throw new InvalidArgumentError('BAD_FIELD', 'ml-kem secret key: of another engine');
    }
    return plain(nodeCrypto.decapsulate(secretKey, ciphertext));
  },
};

/** ML-KEM-768 of @noble/post-quantum: portable, seedable, not constant time. */
export const nobleMlKem: MlKem768 = {
  name: 'noble',
  fromSeed(seed) {
    return ml_kem768.keygen(octets(seed, mlKemSeedLength, 'ml-kem seed'));
  },
  encapsulate(publicKey, message) {
    octets(publicKey, mlKemPublicKeyLength, 'ml-kem public key');
    // @noble/post-quantum 0.5.2 passes all of Wycheproof's 112 unreduced keys: it encodes what it decoded without reducing it.
    if (!isReduced(publicKey)) refuseModulus(undefined);
    const m = octets(message(), 32, 'ml-kem message');
    const { cipherText, sharedSecret } = ml_kem768.encapsulate(publicKey, m);
    return { ciphertext: cipherText, sharedSecret };
  },
  decapsulate(secretKey, ciphertext) {
    octets(ciphertext, mlKemCiphertextLength, 'ml-kem ciphertext');
    if (!(secretKey instanceof Uint8Array)) {
      throw new InvalidArgumentError('BAD_FIELD', 'ml-kem secret key: of another engine');
    }
    return ml_kem768.decapsulate(ciphertext, secretKey);
  },
};

/** OpenSSL's where this Node has it, else noble's: the caller logs a fallback once. */
export function preferredMlKem(): MlKem768 {
  return typeof nodeCrypto.encapsulate === 'function' ? nodeMlKem : nobleMlKem;
}
