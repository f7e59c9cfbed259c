/**
 * X25519 (RFC 7748) on node:crypto with raw 32-byte keys.
 * Contributory behaviour is required, as RFC 9180 section 7.1.4 asks: a shared secret of
 * zeros (a public key of small order) is refused.
 */
import { createPrivateKey, createPublicKey, diffieHellman } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { DecryptionError } from './decryption-error.ts';
import { concat, hex, octets, plain } from './octets.ts';

export const x25519KeyLength = 32;

// DER of the structures around a raw key: RFC 8410 sections 4 and 7.
const spkiPrefix = hex('302a300506032b656e032100');
const pkcs8Prefix = hex('302e020100300506032b656e04220420');

/** Imports a 32-byte scalar; OpenSSL keeps and later cleanses the copy. */
export function x25519PrivateKey(scalar: Uint8Array): KeyObject {
  octets(scalar, x25519KeyLength, 'x25519 private key');
  const key = Buffer.from(concat(pkcs8Prefix, scalar).buffer);
  try {
    return createPrivateKey({ key, format: 'der', type: 'pkcs8' });
  } finally {
    key.fill(0);
  }
}

/** Imports a 32-byte u-coordinate; every value is accepted here, see {@link x25519}. */
export function x25519PublicKey(u: Uint8Array): KeyObject {
  octets(u, x25519KeyLength, 'x25519 public key');
  return createPublicKey({
    key: Buffer.from(concat(spkiPrefix, u).buffer),
    format: 'der',
    type: 'spki',
  });
}

/** The 32-byte public key of an imported scalar. */
export function x25519Base(privateKey: KeyObject): Uint8Array {
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
  return Uint8Array.from(spki.subarray(-x25519KeyLength));
}

/** 32-byte shared secret. Throws DecryptionError on a public key of small order. */
export function x25519(privateKey: KeyObject, publicKey: KeyObject): Uint8Array {
  let shared: Uint8Array;
  try {
    shared = plain(diffieHellman({ privateKey, publicKey }));
  } catch (cause) {
    throw new DecryptionError('x25519: public key of small order', { cause });
  }
  // OpenSSL has thrown already; this holds the promise if another engine stands behind node.
  if (shared.every((byte) => byte === 0)) {
    throw new DecryptionError('x25519: public key of small order');
  }
  return shared;
}
