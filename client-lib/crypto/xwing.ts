/**
 * X-Wing hybrid KEM (draft-connolly-cfrg-xwing-kem): ML-KEM-768 with X25519.
 * A decapsulation key is its 32-byte seed, a public key 1216 bytes, a ciphertext 1120.
 */
import { createHash } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import type { Random } from '@quicprochat/proto';
import {
  mlKemCiphertextLength,
  mlKemPublicKeyLength,
  mlKemSeedLength,
  preferredMlKem,
} from './ml-kem.ts';
import type { MlKem768, MlKemSecretKey } from './ml-kem.ts';
import { concat, hex, octets, plain } from './octets.ts';
import {
  x25519,
  x25519Base,
  x25519KeyLength,
  x25519PrivateKey,
  x25519PublicKey,
} from './x25519.ts';

export const xwingSeedLength = 32;
export const xwingPublicKeyLength = mlKemPublicKeyLength + x25519KeyLength; // 1216
export const xwingCiphertextLength = mlKemCiphertextLength + x25519KeyLength; // 1120

const label = hex('5c2e2f2f5e5c'); // the ASCII art \.//^\ of section 5.3

/** A seed expanded once, for many decapsulations. Holds secrets outside V8 where it can. */
export class XWingSecretKey {
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly engine: MlKem768;
  readonly mlKem: MlKemSecretKey;
  readonly x25519: KeyObject;

  constructor(seed: Uint8Array, engine: MlKem768) {
    this.seed = Uint8Array.from(octets(seed, xwingSeedLength, 'x-wing seed'));
    this.engine = engine;
    const expanded = shake256(seed, mlKemSeedLength + x25519KeyLength);
    const { publicKey, secretKey } = engine.fromSeed(expanded.subarray(0, mlKemSeedLength));
    this.mlKem = secretKey;
    this.x25519 = x25519PrivateKey(expanded.subarray(mlKemSeedLength));
    expanded.fill(0);
    this.publicKey = concat(publicKey, x25519Base(this.x25519));
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[secret]';
  }
}

/** SHAKE256 of `input`, `length` bytes. FIPS 202. */
export function shake256(input: Uint8Array, length: number): Uint8Array {
  return plain(createHash('shake256', { outputLength: length }).update(input).digest());
}

/** Key pair of a 32-byte seed. Section 5.2. */
export function xwingFromSeed(
  seed: Uint8Array,
  engine: MlKem768 = preferredMlKem(),
): { publicKey: Uint8Array; secretSeed: Uint8Array } {
  const key = new XWingSecretKey(seed, engine);
  return { publicKey: key.publicKey, secretSeed: key.seed };
}

/** New key pair: 1216-byte public key, 32-byte secret seed. */
export function xwingGenerateKeyPair(random: Random): {
  publicKey: Uint8Array;
  secretSeed: Uint8Array;
} {
  return xwingFromSeed(random.bytes(xwingSeedLength));
}

/**
 * 1120-byte ciphertext and 32-byte secret for a 1216-byte public key. Section 5.4.
 * Throws InvalidArgumentError on a malformed key, DecryptionError on an X25519 part of
 * small order (stricter than the draft: no honest key has one).
 */
export function xwingEncapsulate(
  publicKey: Uint8Array,
  random: Random,
  engine: MlKem768 = preferredMlKem(),
): { ciphertext: Uint8Array; sharedSecret: Uint8Array } {
  octets(publicKey, xwingPublicKeyLength, 'x-wing public key');
  const peer = publicKey.subarray(mlKemPublicKeyLength);
  const mlKem = engine.encapsulate(publicKey.subarray(0, mlKemPublicKeyLength), () =>
    random.bytes(32),
  );
  const scalar = random.bytes(x25519KeyLength);
  const ephemeral = x25519PrivateKey(scalar);
  scalar.fill(0);
  const ciphertextX = x25519Base(ephemeral);
  const secretX = x25519(ephemeral, x25519PublicKey(peer));
  return {
    ciphertext: concat(mlKem.ciphertext, ciphertextX),
    sharedSecret: combine(mlKem.sharedSecret, secretX, ciphertextX, peer),
  };
}

/**
 * The 32-byte secret of a 1120-byte ciphertext. Section 5.5. A forged ciphertext gives a
 * different secret, not an error. Throws InvalidArgumentError on a wrong length and
 * DecryptionError on an X25519 part of small order.
 */
export function xwingDecapsulate(key: XWingSecretKey, ciphertext: Uint8Array): Uint8Array {
  octets(ciphertext, xwingCiphertextLength, 'x-wing ciphertext');
  const ciphertextX = ciphertext.subarray(mlKemCiphertextLength);
  const secretM = key.engine.decapsulate(key.mlKem, ciphertext.subarray(0, mlKemCiphertextLength));
  const secretX = x25519(key.x25519, x25519PublicKey(ciphertextX));
  return combine(secretM, secretX, ciphertextX, key.publicKey.subarray(mlKemPublicKeyLength));
}

// Section 5.3: SHA3-256(ss_M || ss_X || ct_X || pk_X || label). ss_M and ss_X are wiped.
function combine(
  secretM: Uint8Array,
  secretX: Uint8Array,
  ciphertextX: Uint8Array,
  publicX: Uint8Array,
): Uint8Array {
  const hash = createHash('sha3-256');
  for (const part of [secretM, secretX, ciphertextX, publicX, label]) hash.update(part);
  secretM.fill(0);
  secretX.fill(0);
  return plain(hash.digest());
}
