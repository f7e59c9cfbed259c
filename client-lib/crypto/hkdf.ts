/**
 * HKDF (RFC 5869) over node:crypto HMAC, with Extract and Expand apart, because MLS
 * (RFC 9420 section 8) and HPKE (RFC 9180 section 4) use them one by one.
 */
import { createHmac } from 'node:crypto';
import { InvalidArgumentError } from '@quicprochat/proto';
import { concat, plain } from './octets.ts';

/** Hash behind an HKDF, by its name in node:crypto. */
export type HashName = 'sha256' | 'sha512';

/** Output length of the hash in bytes. */
export const hashLength: Readonly<Record<HashName, number>> = { sha256: 32, sha512: 64 };

/** HMAC(key, data), 32 or 64 bytes. RFC 2104. */
export function hmac(hash: HashName, key: Uint8Array, data: Uint8Array): Uint8Array {
  return plain(createHmac(hash, key).update(data).digest());
}

/** HKDF-Extract. RFC 5869 section 2.2; an empty salt equals a salt of zeros there. */
export function hkdfExtract(hash: HashName, salt: Uint8Array, ikm: Uint8Array): Uint8Array {
  return hmac(hash, salt, ikm);
}

/** HKDF-Expand to `length` bytes, at most 255 hash lengths. RFC 5869 section 2.3. */
export function hkdfExpand(
  hash: HashName,
  prk: Uint8Array,
  info: Uint8Array,
  length: number,
): Uint8Array {
  const step = hashLength[hash];
  if (!Number.isInteger(length) || length < 0 || length > 255 * step) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      `hkdf length: ${length} bytes, at most ${255 * step}`,
    );
  }
  const out = new Uint8Array(length);
  let previous = new Uint8Array(0);
  for (let counter = 1, offset = 0; offset < length; counter++, offset += step) {
    const block = hmac(hash, prk, concat(previous, info, Uint8Array.of(counter)));
    previous.fill(0);
    previous = Uint8Array.from(block);
    out.set(block.subarray(0, Math.min(step, length - offset)), offset);
    block.fill(0);
  }
  previous.fill(0);
  return out;
}
