/**
 * Domain-separated Ed25519 signatures (RFC 8032): each statement is signed as
 * `prefix || 0x00 || bytes`. The prefixes in use stand here and are never reused.
 */
import { createPrivateKey, createPublicKey, sign, verify, type KeyObject } from 'node:crypto';
import { InvalidArgumentError } from './status.ts';

export type SignaturePrefix =
  | 'qpc/manifest/1'
  | 'qpc/device-approval/1'
  | 'qpc/hybrid/1'
  | 'qpc/login/1'
  | 'qpc/guest/1'
  | 'qpc/member/1'
  | 'qpc/node/1'
  | 'qpc/stored/1'
  | 'qpc/endpoint/1'
  | 'qpc/card/1'
  | 'qpc/resend/1'
  | 'qpc/gone/1'
  | 'qpc/entry/1'
  | 'qpc/commit/1'
  | 'qpc/standing/1'
  | 'qpc/channel-post/1'
  | 'qpc/channel-update/1';

export const ed25519KeyBytes = 32;
export const ed25519SignatureBytes = 64;

/** RFC 8410: what stands before the raw 32 bytes in PKCS#8 and in SubjectPublicKeyInfo. */
const pkcs8Prefix = Buffer.from('302e020100300506032b657004220420', 'hex');
const spkiPrefix = Buffer.from('302a300506032b6570032100', 'hex');

/** A signing key whose secret stays in OpenSSL's memory and never prints. */
export interface SigningKey {
  /** Raw Ed25519 public key (32 bytes). */
  readonly publicKey: Uint8Array;
  readonly privateKey: KeyObject;
}

/** Makes a signing key of a 32-byte seed; the caller wipes the seed. */
export function signingKeyFromSeed(seed: Uint8Array): SigningKey {
  if (seed.length !== 32)
    throw new InvalidArgumentError('BAD_FIELD', `seed: ${seed.length} bytes, need 32`);
  const der = Buffer.concat([pkcs8Prefix, seed]);
  const privateKey = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  der.fill(0);
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
  return { publicKey: new Uint8Array(spki.subarray(spkiPrefix.length)), privateKey };
}

/** The 32-byte seed of a signing key, for sealed storage only. */
export function seedOf(key: SigningKey): Uint8Array {
  const der = key.privateKey.export({ format: 'der', type: 'pkcs8' });
  return new Uint8Array(der.subarray(der.length - 32));
}

/** Imports a raw public key. Throws InvalidArgumentError BAD_FIELD unless it is 32 bytes. */
export function publicKeyObject(raw: Uint8Array): KeyObject {
  if (raw.length !== ed25519KeyBytes) {
    throw new InvalidArgumentError('BAD_FIELD', `public key: ${raw.length} bytes, need 32`);
  }
  return createPublicKey({
    key: Buffer.concat([spkiPrefix, raw]),
    format: 'der',
    type: 'spki',
  });
}

/** What a statement's signature covers. */
export function signedBytes(prefix: SignaturePrefix, bytes: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(prefix, 'latin1'), Buffer.of(0), bytes]);
}

/** Signature (64 bytes) over `prefix || 0x00 || bytes`. */
export function signStatement(
  prefix: SignaturePrefix,
  bytes: Uint8Array,
  key: SigningKey,
): Uint8Array {
  return new Uint8Array(sign(null, signedBytes(prefix, bytes), key.privateKey));
}

/** True only for a valid signature; malformed keys and signatures are false, never a throw. */
export function verifyStatement(
  prefix: SignaturePrefix,
  bytes: Uint8Array,
  signature: Uint8Array,
  publicKey: Uint8Array,
): boolean {
  if (signature.length !== ed25519SignatureBytes || publicKey.length !== ed25519KeyBytes)
    return false;
  try {
    return verify(null, signedBytes(prefix, bytes), publicKeyObject(publicKey), signature);
  } catch {
    // OpenSSL throws for a public key that is no curve point; to the caller that is a bad signature.
    return false;
  }
}
