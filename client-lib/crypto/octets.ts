/**
 * Byte strings at the edge of node:crypto: length checks that name the argument, and
 * plain `Uint8Array` results that never alias Node's shared buffer pool (a pooled secret
 * could neither be wiped nor be kept alone in memory).
 */
import { InvalidArgumentError } from '@quicprochat/proto';

/**
 * Returns `value` when it is exactly `length` bytes.
 * Throws InvalidArgumentError naming the argument and both lengths, never the content.
 */
export function octets(value: Uint8Array, length: number, name: string): Uint8Array {
  if (value.length !== length) {
    throw new InvalidArgumentError('BAD_FIELD', `${name}: ${value.length} bytes, need ${length}`);
  }
  return value;
}

/** The same bytes as a plain `Uint8Array` with a backing store of its own. */
export function plain(value: Uint8Array): Uint8Array {
  if (value.byteOffset === 0 && value.byteLength === value.buffer.byteLength) {
    return new Uint8Array(value.buffer);
  }
  return Uint8Array.from(value);
}

/** The bytes of a constant written in hexadecimal. */
export function hex(digits: string): Uint8Array {
  return Uint8Array.from(Buffer.from(digits, 'hex'));
}

/** Concatenation into a fresh `Uint8Array`. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}
