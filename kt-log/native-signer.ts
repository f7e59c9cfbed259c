/**
 * Ed25519 signing for the side that runs on Node: by libsodium where its addon loads, which takes half
 * the time that OpenSSL's does, else by OpenSSL; the same bytes either way, for RFC 8032 leaves no
 * choice. Not reachable from the `./verify` door.
 */
import { signingKeyFromSeed } from '@quicprochat/proto';
import { InvalidArgumentError } from '@quicprochat/proto/status';
import { sign } from 'node:crypto';
import type { Sodium } from './sodium-addon.ts';
import { loadSodium } from './sodium-addon.ts';
import type { Signer } from './suite.ts';

const seedBytes = 32;
const secretKeyBytes = 64;
const signatureBytes = 64;

type SignerOf = (seed: Uint8Array) => Signer;

/** The secret key stays in libsodium's guarded memory, which is locked and never in a core dump. */
function sodiumSigner(sodium: Sodium, seed: Uint8Array): Signer {
  const publicKey = new Uint8Array(32);
  const secretKey = sodium.sodium_malloc(secretKeyBytes);
  sodium.crypto_sign_seed_keypair(publicKey, secretKey, seed);
  return {
    publicKey,
    sign(message) {
      const signature = new Uint8Array(signatureBytes);
      sodium.crypto_sign_detached(signature, message, secretKey);
      return signature;
    },
  };
}

/** The secret key stays in OpenSSL's memory. */
function opensslSigner(seed: Uint8Array): Signer {
  const key = signingKeyFromSeed(seed);
  return {
    publicKey: key.publicKey,
    sign: (message) => new Uint8Array(sign(null, message, key.privateKey)),
  };
}

/** libsodium's signer if `load` gives the addon. */
export function chooseSigner(load: () => Sodium): SignerOf {
  let sodium: Sodium;
  try {
    sodium = load();
  } catch {
    // No binary for this platform (musl), or the permission model forbids addons.
    return opensslSigner;
  }
  return (seed) => sodiumSigner(sodium, seed);
}

const signerOf = chooseSigner(loadSodium);

/**
 * An Ed25519 signer whose secret stays out of the JavaScript heap. `seed` is 32 bytes; the caller
 * wipes it. Throws InvalidArgumentError for another length.
 */
export function nativeSigner(seed: Uint8Array): Signer {
  if (seed.length !== seedBytes) {
    throw new InvalidArgumentError('BAD_FIELD', `signing seed: ${seed.length} bytes, need 32`);
  }
  return signerOf(seed);
}
