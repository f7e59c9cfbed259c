/**
 * The TLS presentation language as KEYTRANS uses it (protocol section 2.1): big-endian integers,
 * optional values, vectors whose prefix is sized by their maximum and counts ELEMENTS, not bytes.
 * Readers check every length before anything is allocated. Knows no structure.
 */
import { InvalidArgumentError } from '@quicprochat/proto/status';
import { VerificationError } from './verification-error.ts';

/** Largest uint64 that is kept as a number; positions and sizes have a lower bound of their own. */
export const maxUint64 = Number.MAX_SAFE_INTEGER;
export const maxUint32 = 2 ** 32 - 1;
export const maxUint16 = 2 ** 16 - 1;
export const maxUint8 = 255;

/** Appends values to a growing buffer. Values out of range are the caller's error. */
export class Writer {
  #bytes: Uint8Array;
  #view: DataView;
  #length = 0;

  constructor(sizeHint = 256) {
    this.#bytes = new Uint8Array(sizeHint);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Room for `count` more bytes; returns where they start. */
  #grow(count: number): number {
    const start = this.#length;
    const needed = start + count;
    if (needed > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(needed, 2 * this.#bytes.length));
      larger.set(this.#bytes.subarray(0, start));
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    this.#length = needed;
    return start;
  }

  #append(bytes: Uint8Array): void {
    const at = this.#grow(bytes.length);
    this.#bytes.set(bytes, at);
  }

  #integer(value: number, max: number, field: string): number {
    if (!Number.isSafeInteger(value) || value < 0 || value > max) {
      throw new InvalidArgumentError('BAD_FIELD', `${field}: not an integer from 0 to ${max}`);
    }
    return value;
  }

  u8(value: number, field: string): this {
    const at = this.#grow(1);
    this.#view.setUint8(at, this.#integer(value, maxUint8, field));
    return this;
  }
  u16(value: number, field: string): this {
    const at = this.#grow(2);
    this.#view.setUint16(at, this.#integer(value, maxUint16, field));
    return this;
  }
  u32(value: number, field: string): this {
    const at = this.#grow(4);
    this.#view.setUint32(at, this.#integer(value, maxUint32, field));
    return this;
  }
  u64(value: number, field: string): this {
    this.#integer(value, maxUint64, field);
    const at = this.#grow(8);
    this.#view.setUint32(at, Math.floor(value / 2 ** 32));
    this.#view.setUint32(at + 4, value % 2 ** 32);
    return this;
  }
  /** `opaque x[length]`. */
  fixed(value: Uint8Array, length: number, field: string): this {
    if (value.length !== length) {
      throw new InvalidArgumentError(
        'BAD_FIELD',
        `${field}: ${value.length} bytes, need ${length}`,
      );
    }
    this.#append(value);
    return this;
  }
  /** Length prefix of a vector with at most `max` elements. */
  count(value: number, max: number, field: string): this {
    this.#integer(value, max, `${field} count`);
    if (max <= maxUint8) return this.u8(value, field);
    return max <= maxUint16 ? this.u16(value, field) : this.u32(value, field);
  }
  /** `opaque x<0..max>`. */
  opaque(value: Uint8Array, max: number, field: string): this {
    this.count(value.length, max, field);
    this.#append(value);
    return this;
  }
  /** A vector of hashes that is kept packed (32 bytes each). */
  hashes(packed: Uint8Array, max: number, field: string): this {
    this.count(packed.length / 32, max, field);
    this.#append(packed);
    return this;
  }
  vector<T>(items: readonly T[], max: number, field: string, write: (item: T) => void): this {
    this.count(items.length, max, field);
    for (const item of items) write(item);
    return this;
  }
  optional<T>(value: T | undefined, write: (value: T) => void): this {
    this.u8(value === undefined ? 0 : 1, 'presence octet');
    if (value !== undefined) write(value);
    return this;
  }
  raw(bytes: Uint8Array): this {
    this.#append(bytes);
    return this;
  }
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }
}

/**
 * Takes values off a byte string. Every failure is a VerificationError MALFORMED that names the
 * structure and field. Byte strings returned are views of the input: the caller keeps it unchanged.
 */
export class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #structure: string;
  #offset = 0;

  constructor(bytes: Uint8Array, structure: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#structure = structure;
  }

  /** A VerificationError about a field of this structure. */
  malformed(field: string, expected: string): VerificationError {
    return new VerificationError('MALFORMED', `${this.#structure}.${field}`, expected);
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset;
  }

  #take(count: number, field: string): number {
    if (count > this.remaining) {
      throw this.malformed(field, `${count} more bytes, ${this.remaining} are left`);
    }
    const start = this.#offset;
    this.#offset += count;
    return start;
  }

  u8(field: string): number {
    return this.#view.getUint8(this.#take(1, field));
  }
  u16(field: string): number {
    return this.#view.getUint16(this.#take(2, field));
  }
  u32(field: string): number {
    return this.#view.getUint32(this.#take(4, field));
  }
  u64(field: string, max = maxUint64): number {
    const at = this.#take(8, field);
    const value = this.#view.getUint32(at) * 2 ** 32 + this.#view.getUint32(at + 4);
    if (value > max) throw this.malformed(field, `at most ${max}`);
    return value;
  }
  fixed(length: number, field: string): Uint8Array {
    const start = this.#take(length, field);
    return this.#bytes.subarray(start, start + length);
  }
  /** Reads the length prefix of a vector and checks it against `cap` and the bytes that are left. */
  count(max: number, elementBytesMin: number, field: string, cap = max): number {
    const value =
      max <= maxUint8 ? this.u8(field) : max <= maxUint16 ? this.u16(field) : this.u32(field);
    if (value > cap) throw this.malformed(field, `at most ${cap} elements`);
    if (value * elementBytesMin > this.remaining) {
      throw this.malformed(field, `${value} elements in the ${this.remaining} bytes left`);
    }
    return value;
  }
  opaque(max: number, field: string, cap = max): Uint8Array {
    return this.fixed(this.count(max, 1, field, cap), field);
  }
  /** A vector of hashes, packed (32 bytes each). */
  hashes(max: number, field: string, cap = max): Uint8Array {
    return this.fixed(32 * this.count(max, 32, field, cap), field);
  }
  /** `elementBytesMin` is the least that one element takes: a count that cannot fit is refused. */
  vector<T>(
    max: number,
    elementBytesMin: number,
    field: string,
    read: (index: number) => T,
    cap = max,
  ): T[] {
    const count = this.count(max, elementBytesMin, field, cap);
    const items: T[] = [];
    for (let i = 0; i < count; i++) items.push(read(i));
    return items;
  }
  optional<T>(field: string, read: () => T): T | undefined {
    const present = this.u8(field);
    if (present > 1) throw this.malformed(field, 'a presence octet of 0 or 1');
    return present === 1 ? read() : undefined;
  }
  /** Call last: bytes after the structure are an error. */
  end(): void {
    if (this.remaining > 0) {
      throw this.malformed('end', `no bytes after the structure, found ${this.remaining}`);
    }
  }
}

/** How one structure of the protocol is written and read; values with context are functions. */
export interface Structure<T> {
  readonly name: string;
  write(writer: Writer, value: T): void;
  read(reader: Reader): T;
}

export function encode<T>(structure: Structure<T>, value: T): Uint8Array {
  const writer = new Writer();
  structure.write(writer, value);
  return writer.finish();
}

/**
 * Decodes all of `bytes`; trailing bytes are an error. Throws VerificationError MALFORMED.
 * The value keeps views of `bytes`.
 */
export function decode<T>(structure: Structure<T>, bytes: Uint8Array): T {
  const reader = new Reader(bytes, structure.name);
  const value = structure.read(reader);
  reader.end();
  return value;
}
