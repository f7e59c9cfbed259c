/**
 * libsodium's Ed25519 group as the package sodium-native gives it: the functions that the VRF engine
 * uses, and how they are loaded. The package has no types of its own.
 */
import { createRequire } from 'node:module';

/**
 * Points and scalars are 32 bytes, little-endian; the result comes first and may be an argument too.
 * A function throws where libsodium refuses, and when a length is wrong.
 */
export interface Sodium {
  /** SHA-512 of `input` into 64 bytes. */
  crypto_hash_sha512(out: Uint8Array, input: Uint8Array): void;
  /** True for the canonical encoding of a point of the prime subgroup other than the identity. */
  crypto_core_ed25519_is_valid_point(point: Uint8Array): boolean;
  /** `p + q` for points anywhere on the curve; accepts encodings that are not canonical. */
  crypto_core_ed25519_add(out: Uint8Array, p: Uint8Array, q: Uint8Array): void;
  crypto_core_ed25519_sub(out: Uint8Array, p: Uint8Array, q: Uint8Array): void;
  /** Constant time. Throws unless `point` is a valid point and the product not the identity. */
  crypto_scalarmult_ed25519_noclamp(out: Uint8Array, scalar: Uint8Array, point: Uint8Array): void;
  /** Constant time. Throws for the scalar 0. */
  crypto_scalarmult_ed25519_base_noclamp(out: Uint8Array, scalar: Uint8Array): void;
  /** `a + b` modulo the group order; constant time. */
  crypto_core_ed25519_scalar_add(out: Uint8Array, a: Uint8Array, b: Uint8Array): void;
  /** 64 bytes modulo the group order; constant time. */
  crypto_core_ed25519_scalar_reduce(out: Uint8Array, wide: Uint8Array): void;
}

/** Loads the addon. Throws what Node or the package throws where there is none for this platform. */
export function loadSodium(): Sodium {
  return createRequire(import.meta.url)('sodium-native') as Sodium;
}
