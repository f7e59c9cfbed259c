/**
 * Ed25519 (RFC 8032) on node:crypto with raw keys: 32-byte seeds and 32-byte public keys.
 * Imported public keys are kept, because the import costs more than half a verification.
 *
 * Policy, held by tests: S must be below the group order, and public keys of small order
 * (under which one signature would fit every message) verify nothing.
 */
import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { concat, hex, octets, plain } from './octets.ts';

export const ed25519SeedLength = 32;
export const ed25519PublicKeyLength = 32;
export const ed25519SignatureLength = 64;

// DER of the structures around a raw key: RFC 8410 sections 4 and 7.
const spkiPrefix = hex('302a300506032b6570032100');
const pkcs8Prefix = hex('302e020100300506032b657004220420');

const limits = { publicKeysMax: 10_000 } as const;

/** Signing and verifying with one cache of imported public keys. */
export interface Ed25519 {
  /** 64-byte signature by the 32-byte seed. */
  sign(seed: Uint8Array, message: Uint8Array): Uint8Array;
  /** Whether the signature is valid; false for every wrong length and undecodable key. */
  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
  /** The 32-byte public key of a 32-byte seed. */
  publicKey(seed: Uint8Array): Uint8Array;
}

/** An Ed25519 with its own least-recently-used cache of public keys. */
export function createEd25519(options: { readonly publicKeysMax?: number } = {}): Ed25519 {
  const publicKeysMax = options.publicKeysMax ?? limits.publicKeysMax;
  const cached = new Map<string, KeyObject>();

  function publicKeyObject(publicKey: Uint8Array): KeyObject {
    const name = Buffer.from(publicKey).toString('base64');
    let key = cached.get(name);
    if (key === undefined) {
      key = createPublicKey({ key: der(spkiPrefix, publicKey), format: 'der', type: 'spki' });
    } else {
      cached.delete(name);
    }
    cached.set(name, key); // a Map iterates in insertion order: the first is the least used
    if (cached.size > publicKeysMax) {
      for (const oldest of cached.keys()) {
        cached.delete(oldest);
        break;
      }
    }
    return key;
  }

  return {
    sign: (seed, message) => plain(sign(null, message, seedKeyObject(seed))),
    publicKey: (seed) => {
      const spki = createPublicKey(seedKeyObject(seed)).export({ format: 'der', type: 'spki' });
      return Uint8Array.from(spki.subarray(-ed25519PublicKeyLength));
    },
    verify: (publicKey, message, signature) => {
      if (publicKey.length !== ed25519PublicKeyLength) return false;
      if (signature.length !== ed25519SignatureLength) return false;
      return verify(null, message, publicKeyObject(publicKey), signature);
    },
  };
}

function seedKeyObject(seed: Uint8Array): KeyObject {
  octets(seed, ed25519SeedLength, 'ed25519 seed');
  const key = der(pkcs8Prefix, seed);
  try {
    return createPrivateKey({ key, format: 'der', type: 'pkcs8' });
  } finally {
    key.fill(0);
  }
}

// The type of createPublicKey wants a Buffer; this one shares nothing with the pool.
function der(prefix: Uint8Array, raw: Uint8Array): Buffer<ArrayBufferLike> {
  return Buffer.from(concat(prefix, raw).buffer);
}
