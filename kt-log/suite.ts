/**
 * The primitives of KT_128_SHA256_Ed25519 as one value (protocol section 17.1), so that a server
 * hands in native ones and a browser the portable ones. Browser-safe.
 */
import { ed25519 } from '@noble/curves/ed25519.js';
import type { Sha256 } from './hash.ts';
import { portableSha256 } from './hash.ts';
import type { VrfVerifier } from './vrf.ts';
import { portableVrfVerifier } from './vrf.ts';

/** What a verifier needs. */
export interface VerifierSuite {
  readonly sha256: Sha256;
  /** Ed25519 (RFC 8032, strict encodings). False for anything malformed, never a throw. */
  verifySignature(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
  /** Throws VerificationError BAD_VRF for a key that is none. */
  vrfVerifier(publicKey: Uint8Array): VrfVerifier;
}

/** Signs with a key that the caller holds; the result is 64 bytes. */
export interface Signer {
  readonly publicKey: Uint8Array;
  sign(message: Uint8Array): Uint8Array;
}

export const portableSuite: VerifierSuite = {
  sha256: portableSha256,
  verifySignature(publicKey, message, signature) {
    if (publicKey.length !== 32 || signature.length !== 64) return false;
    try {
      return ed25519.verify(signature, message, publicKey, { zip215: false });
    } catch {
      // noble throws for a key that is no point of the curve; to the caller that is a bad signature.
      return false;
    }
  },
  vrfVerifier: portableVrfVerifier,
};

/** An Ed25519 signer in plain JavaScript. `seed` is 32 bytes. */
export function portableSigner(seed: Uint8Array): Signer {
  const secret = seed.slice();
  return {
    publicKey: ed25519.getPublicKey(secret),
    sign: (message) => ed25519.sign(message, secret),
  };
}
