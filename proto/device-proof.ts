/**
 * The proof that binds a device's transport key to its identity key at registration and login:
 * signature over "qpc/login/1\0" || SHA-256(transcript) || client SPKI hash || node SPKI hash.
 * It names this connection's keys and this OPAQUE exchange, so it serves nowhere else.
 */
import { createHash, createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { signStatement, verifyStatement, type SigningKey } from './signature.ts';

/** What a device proof and a session MAC cover; hashes are SHA-256 (32 bytes each). */
export interface LoginBinding {
  /** Messages of the exchange in order: KE1, KE2, KE3, or the three of registration. */
  readonly transcript: readonly Uint8Array[];
  readonly clientSpki: Uint8Array;
  readonly nodeSpki: Uint8Array;
}

function bindingBytes(binding: LoginBinding): Uint8Array {
  const hash = createHash('sha256');
  for (const message of binding.transcript) hash.update(message);
  return Buffer.concat([hash.digest(), binding.clientSpki, binding.nodeSpki]);
}

/** Device proof (64 bytes). */
export function signDeviceProof(binding: LoginBinding, identityKey: SigningKey): Uint8Array {
  return signStatement('qpc/login/1', bindingBytes(binding), identityKey);
}

export function verifyDeviceProof(
  binding: LoginBinding,
  proof: Uint8Array,
  identityPub: Uint8Array,
): boolean {
  return verifyStatement('qpc/login/1', bindingBytes(binding), proof, identityPub);
}

/** HMAC-SHA256 (32 bytes) under a key derived from the OPAQUE session key (64 bytes). */
export function sessionMac(binding: LoginBinding, sessionKey: Uint8Array): Uint8Array {
  const key = new Uint8Array(
    hkdfSync('sha256', sessionKey, new Uint8Array(0), 'qpc/login mac', 32),
  );
  const mac = createHmac('sha256', key).update(bindingBytes(binding)).digest();
  key.fill(0);
  return new Uint8Array(mac);
}

export function verifySessionMac(
  binding: LoginBinding,
  mac: Uint8Array,
  sessionKey: Uint8Array,
): boolean {
  const expected = sessionMac(binding, sessionKey);
  return mac.length === expected.length && timingSafeEqual(mac, expected);
}
