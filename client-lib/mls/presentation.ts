/**
 * The presentation language of RFC 9420 section 2.1: variable-size vectors, and the labelled
 * KDF of section 8 built on it. Only what the adapter encodes itself; MLS structures are
 * ts-mls's business.
 */
import type { CiphersuiteImpl } from 'ts-mls';
import { concat } from '../crypto/octets.ts';
import { MlsError } from './errors.ts';

const text = new TextEncoder();

/** `value` as an opaque vector; at most 16383 bytes. RFC 9420 section 2.1.2. */
export function vector(value: Uint8Array): Uint8Array {
  const length = value.length;
  if (length < 64) return concat(Uint8Array.of(length), value);
  if (length < 16_384) return concat(Uint8Array.of(0x40 | (length >> 8), length & 0xff), value);
  throw new MlsError('MALFORMED', `vector: ${length} bytes, at most 16383`);
}

/** Reads what {@link vector} and fixed-size fields wrote; refuses everything else. */
export class Reader {
  readonly #bytes: Uint8Array;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** The next `length` bytes. Throws MlsError MALFORMED when fewer are left. */
  take(length: number): Uint8Array {
    const end = this.#offset + length;
    if (end > this.#bytes.length) throw new MlsError('MALFORMED', 'structure: cut short');
    const part = this.#bytes.slice(this.#offset, end);
    this.#offset = end;
    return part;
  }

  /** A big-endian unsigned integer of 1, 2 or 4 bytes. */
  uint(length: 1 | 2 | 4): number {
    return this.take(length).reduce((value, byte) => value * 256 + byte, 0);
  }

  /** A big-endian u64. */
  uint64(): bigint {
    return this.take(8).reduce((value, byte) => value * 256n + BigInt(byte), 0n);
  }

  /** An opaque vector of at most `max` bytes, in its shortest length encoding. */
  vector(max: number): Uint8Array {
    const first = this.uint(1);
    const length = first < 64 ? first : ((first & 0x3f) << 8) | this.uint(1);
    if (first >= 0x80 || (first >= 64 && length < 64) || length > max) {
      throw new MlsError('MALFORMED', `vector: bad length, at most ${max} bytes here`);
    }
    return this.take(length);
  }

  get isAtEnd(): boolean {
    return this.#offset === this.#bytes.length;
  }

  /** All that is left. */
  rest(): Uint8Array {
    return this.take(this.#bytes.length - this.#offset);
  }

  /** Throws MlsError MALFORMED unless everything has been read. */
  end(): void {
    if (!this.isAtEnd) {
      throw new MlsError('MALFORMED', `structure: ${this.#bytes.length - this.#offset} bytes over`);
    }
  }
}

/** A u64 in big-endian order. */
export function uint64(value: bigint): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, value);
  return out;
}

/** ExpandWithLabel. RFC 9420 section 8. */
export async function expandWithLabel(
  cs: CiphersuiteImpl,
  secret: Uint8Array,
  label: string,
  context: Uint8Array,
  length: number,
): Promise<Uint8Array> {
  const info = concat(
    Uint8Array.of(length >> 8, length & 0xff),
    vector(text.encode(`MLS 1.0 ${label}`)),
    vector(context),
  );
  return cs.kdf.expand(secret, info, length);
}
