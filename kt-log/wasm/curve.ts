/**
 * The curve arithmetic of a thread: one instance of the WebAssembly module, points in numbered slots of its
 * memory, and a table of the base point. Nothing here is asynchronous, so whoever calls has the memory to
 * itself until it returns; what it put there of secrets it wipes (`wipe`).
 */
import type { Arithmetic, CurveExports } from './module.ts';
import { at, baseTables, curveModule, memoryEnd, messageBytes, splitWindows } from './module.ts';
import { pairBytes } from './field.ts';
import { pointBytes, tableBytes } from './point.ts';
import { digitCount } from './scalar.ts';
import { blockBytes, digestBytes } from './sha512.ts';

const encodedBytes = 32;
/** Of the length at the end of a message. */
const lengthBytes = 16;
/** RFC 8032 section 5.1: y = 4/5, x even. */
const basePoint = new Uint8Array(encodedBytes).fill(0x66).fill(0x58, 0, 1);

export class Curve {
  readonly memory: Uint8Array;
  readonly run: CurveExports;

  private constructor(exports: WebAssembly.Exports) {
    // Of `curveModule`.
    this.run = exports as unknown as CurveExports;
    this.memory = new Uint8Array(this.run.memory.buffer);
    this.decode(basePoint, basePoint);
    this.run.build(at.base, baseTables, splitWindows, slot(0));
  }

  /** A fresh instance. */
  static load(arithmetic: Arithmetic): Curve {
    const module = new WebAssembly.Module(curveModule(arithmetic));
    return new Curve(new WebAssembly.Instance(module).exports);
  }

  /** Two strings of 32 bytes to the slots 0 and 1; bit i is set if string i is a point (RFC 8032). */
  decode(first: Uint8Array, second: Uint8Array): number {
    this.memory.set(first, at.strings);
    this.memory.set(second, at.strings + encodedBytes);
    return this.run.decode(slot(0), at.strings);
  }

  /** SHA-512 of all parts behind each other, 64 bytes, to an address. */
  hash(to: number, parts: readonly Uint8Array[]): void {
    const { memory, run } = this;
    memory.copyWithin(to, at.initialDigest, at.initialDigest + digestBytes);
    const end = at.message + messageBytes;
    let next = at.message;
    let length = 0;
    for (const part of parts) {
      length += part.length;
      for (let from = 0; from < part.length;) {
        const some = part.subarray(from, from + end - next);
        memory.set(some, next);
        from += some.length;
        next += some.length;
        if (next < end) continue;
        run.sha512(to, at.message, messageBytes / blockBytes);
        next = at.message;
      }
    }
    memory[next++] = 0x80;
    const blocks = Math.ceil((next - at.message + lengthBytes) / blockBytes);
    const padded = at.message + blocks * blockBytes;
    memory.fill(0, next, padded);
    let bits = 8 * length;
    for (let i = 1; bits > 0; i++) {
      memory[padded - i] = bits % 256;
      bits = Math.floor(bits / 256);
    }
    run.sha512(to, at.message, blocks);
  }

  /** Encodes the points of these slots, for one inversion; see `encoding`. */
  encode(slots: readonly number[]): void {
    const { run } = this;
    // Products of the first z, of the first two ... and back from the inverse of all (Montgomery 1987).
    const denominators = slots.map((number) => slot(number) + pairBytes);
    const product = (i: number): number => (i === 0 ? (denominators[0] ?? 0) : pair(i));
    for (let i = 1; i < slots.length; i++) {
      run.multiply(pair(i), product(i - 1), denominators[i] ?? 0);
    }
    const [rest, inverse] = [pair(0), pair(slots.length)];
    run.invert(rest, product(slots.length - 1));
    for (let i = slots.length - 1; i >= 0; i--) {
      const number = slots[i] ?? 0;
      if (i > 0) run.multiply(inverse, rest, product(i - 1));
      run.encode(encoded(number), slot(number), i > 0 ? inverse : rest);
      if (i > 0) run.multiply(rest, rest, denominators[i] ?? 0);
    }
  }
  /** The 32 bytes that `encode` made of a slot; in memory, so good until the next ones are made. */
  encoding(number: number): Uint8Array {
    return this.memory.subarray(encoded(number), encoded(number) + encodedBytes);
  }

  copy(to: number, from: number): void {
    this.memory.copyWithin(slot(to), slot(from), slot(from) + pointBytes);
  }

  /** Whether the point is of order 1 or 2: x = 0. */
  hasZeroX(number: number): boolean {
    this.run.freeze(at.strings, slot(number));
    return this.memory.subarray(at.strings, at.strings + encodedBytes).every((byte) => byte === 0);
  }

  /** Everything that depended on a secret: scalars, digits, points that were computed from them. */
  wipe(): void {
    this.memory.fill(0, at.secret, memoryEnd);
  }
}

/** Address of a point. */
export const slot = (number: number): number => at.points + number * pointBytes;
/** Address of table `number`. */
export const table = (number: number): number => at.tables + number * tableBytes;
/** Address of the digits of scalar `number`. */
export const digits = (number: number): number => at.digits + number * digitCount;
/** Address of the nonce of input `number`. */
export const nonce = (number: number): number => at.nonces + number * 32;
const pair = (number: number): number => at.pairs + number * pairBytes;
const encoded = (number: number): number => at.encoded + number * encodedBytes;
