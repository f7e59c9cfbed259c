/**
 * libsodium's Ed25519 as the package sodium-native gives it: the functions that the VRF engine and the
 * signer use, and how they are loaded. The package has no types of its own.
 */
import { createRequire } from 'node:module';

/**
 * Points and scalars are 32 bytes, little-endian; the result comes first and may be an argument too.
 * A function throws where libsodium refuses, and when a length is wrong.
 */
export interface Sodium {
  /** Guarded and locked memory, left out of core dumps. */
  sodium_malloc(bytes: number): Uint8Array;
  /** A key pair from 32 bytes; `secretKey` has 64. */
  crypto_sign_seed_keypair(publicKey: Uint8Array, secretKey: Uint8Array, seed: Uint8Array): void;
  /** RFC 8032's signature into 64 bytes. */
  crypto_sign_detached(out: Uint8Array, message: Uint8Array, secretKey: Uint8Array): void;
  /** SHA-512 of `input` into 64 bytes. */
  crypto_hash_sha512(out: Uint8Array, input: Uint8Array): void;
  /** True for the canonical encoding of a point of the prime subgroup other than the identity. */
  crypto_core_ed25519_is_valid_point(point: Uint8Array): boolean;
  /** `p + q` for points anywhere on the curve; accepts encodings that are not canonical. */
  crypto_core_ed25519_add(out: Uint8Array, p: Uint8Array, q: Uint8Array): void;
  /**
   * The same, but -1 in place of an error and 0 otherwise, of 32 bytes each: a hash is no point in half
   * of all cases, and an error with its stack costs more than the sum.
   */
  tryAdd(out: Uint8Array, p: Uint8Array, q: Uint8Array): number;
  crypto_core_ed25519_sub(out: Uint8Array, p: Uint8Array, q: Uint8Array): void;
  /** Constant time. Throws unless `point` is a valid point and the product not the identity. */
  crypto_scalarmult_ed25519_noclamp(out: Uint8Array, scalar: Uint8Array, point: Uint8Array): void;
  /** Constant time. Throws for the scalar 0. */
  crypto_scalarmult_ed25519_base_noclamp(out: Uint8Array, scalar: Uint8Array): void;
  /** `a + b` modulo the group order, of 32 bytes each, which is not checked; constant time. */
  crypto_core_ed25519_scalar_add(out: Uint8Array, a: Uint8Array, b: Uint8Array): void;
  /** 64 bytes modulo the group order; constant time. */
  crypto_core_ed25519_scalar_reduce(out: Uint8Array, wide: Uint8Array): void;
}

/**
 * The addon below the functions that check lengths and throw. A proof needs 31 sums of scalars, of
 * which the checks are the larger half.
 */
interface Binding {
  crypto_core_ed25519_add(out: Uint8Array, p: Uint8Array, q: Uint8Array): number;
  crypto_core_ed25519_scalar_add(out: Uint8Array, a: Uint8Array, b: Uint8Array): void;
}

/** Loads the addon. Throws what Node or the package throws where there is none for this platform. */
export function loadSodium(): Sodium {
  const load = createRequire(import.meta.url);
  const binding = load('sodium-native/binding') as Binding;
  return {
    ...(load('sodium-native') as Sodium),
    tryAdd: (out, p, q) => binding.crypto_core_ed25519_add(out, p, q),
    crypto_core_ed25519_scalar_add: (out, a, b) =>
      binding.crypto_core_ed25519_scalar_add(out, a, b),
  };
}
