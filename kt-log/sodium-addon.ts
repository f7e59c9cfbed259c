/**
 * libsodium's Ed25519 signatures as the package sodium-native gives them, and how it is loaded. The package
 * has no types of its own.
 */
import { createRequire } from 'node:module';

/** The result comes first. A function throws when a length is wrong. */
export interface Sodium {
  /** Guarded and locked memory, left out of core dumps. */
  sodium_malloc(bytes: number): Uint8Array;
  /** A key pair from 32 bytes; `secretKey` has 64. */
  crypto_sign_seed_keypair(publicKey: Uint8Array, secretKey: Uint8Array, seed: Uint8Array): void;
  /** RFC 8032's signature into 64 bytes. */
  crypto_sign_detached(out: Uint8Array, message: Uint8Array, secretKey: Uint8Array): void;
}

/** Loads the addon. Throws what Node or the package throws where there is none for this platform. */
export function loadSodium(): Sodium {
  return createRequire(import.meta.url)('sodium-native') as Sodium;
}
