/**
 * Passwords as bytes: one form for what people type, whatever keyboard made it (NFC and UTF-8,
 * the OpaqueString profile of RFC 8265 section 4.2 without its character tables). It says nothing
 * about strength.
 */
import { InvalidArgumentError } from '@quicprochat/proto';

const passwordBytesMax = 1024;

/**
 * The canonical bytes of a password, in memory of their own. Wipes nothing: both arrays are the
 * caller's. Throws InvalidArgumentError when it is empty, no UTF-8 or above 1024 bytes.
 */
export function canonicalPassword(password: Uint8Array): Uint8Array<ArrayBuffer> {
  if (password.length === 0) throw new InvalidArgumentError('BAD_FIELD', 'password: is empty');
  if (password.length > passwordBytesMax) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      `password: ${password.length} bytes, at most ${passwordBytesMax}`,
    );
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(password);
  } catch {
    // The decoder's own error might quote the input one day; a password never goes into an error.
    throw new InvalidArgumentError('BAD_FIELD', 'password: is no UTF-8 text');
  }
  return new TextEncoder().encode(text.normalize('NFC'));
}
