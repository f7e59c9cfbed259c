/**
 * AES-GCM (NIST SP 800-38D) with 12-byte nonces and full 16-byte tags over node:crypto.
 * The key length picks AES-128 or AES-256. Nonces are the caller's duty.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { InvalidArgumentError } from '@quicprochat/proto';
import { DecryptionError } from './decryption-error.ts';
import { octets } from './octets.ts';

export const aesGcmNonceLength = 12;
export const aesGcmTagLength = 16;

function cipherName(key: Uint8Array): 'aes-128-gcm' | 'aes-256-gcm' {
  if (key.length === 16) return 'aes-128-gcm';
  if (key.length === 32) return 'aes-256-gcm';
  throw new InvalidArgumentError('BAD_FIELD', `key: ${key.length} bytes, need 16 or 32`);
}

/** Ciphertext followed by its 16-byte tag. Throws InvalidArgumentError on wrong lengths. */
export function aesGcmSeal(
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
  plaintext: Uint8Array,
): Uint8Array {
  octets(nonce, aesGcmNonceLength, 'nonce');
  const cipher = createCipheriv(cipherName(key), key, nonce, { authTagLength: aesGcmTagLength });
  cipher.setAAD(aad);
  const out = new Uint8Array(plaintext.length + aesGcmTagLength);
  out.set(cipher.update(plaintext));
  cipher.final();
  out.set(cipher.getAuthTag(), plaintext.length);
  return out;
}

/**
 * Plaintext of `ciphertext || tag`.
 * Throws DecryptionError when the tag does not match or less than a tag is there;
 * nothing of the plaintext leaves this function in that case.
 */
export function aesGcmOpen(
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
  ciphertext: Uint8Array,
): Uint8Array {
  octets(nonce, aesGcmNonceLength, 'nonce');
  const length = ciphertext.length - aesGcmTagLength;
  if (length < 0) {
    throw new DecryptionError(
      `aes-gcm: ciphertext of ${ciphertext.length} bytes is shorter than its tag`,
    );
  }
  const decipher = createDecipheriv(cipherName(key), key, nonce, {
    authTagLength: aesGcmTagLength,
  });
  decipher.setAAD(aad);
  decipher.setAuthTag(ciphertext.subarray(length));
  const out = new Uint8Array(length);
  out.set(decipher.update(ciphertext.subarray(0, length)));
  try {
    decipher.final();
  } catch (cause) {
    out.fill(0);
    throw new DecryptionError('aes-gcm: tag does not match', { cause });
  }
  return out;
}
