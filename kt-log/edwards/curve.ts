/**
 * The curve arithmetic of a thread: one instance of the WebAssembly module, points in numbered slots of its
 * memory, and a table of the base point. Nothing here is asynchronous, so whoever calls has the memory to
 * itself until it returns; what it put there of secrets it wipes (`wipe`).
 */
import type { Arithmetic, CurveExports } from './module.ts';
import { at, baseTables, curveModule, memoryEnd, splitWindows } from './module.ts';
import { pairBytes } from './field.ts';
import { pointBytes, tableBytes } from './point.ts';
import { digitCount } from './scalar.ts';

const encodedBytes = 32;
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

  /** The encodings of several slots, for one inversion. */
  encode<Slots extends readonly number[]>(
    ...slots: Slots
  ): { -readonly [Place in keyof Slots]: Uint8Array } {
    const { run } = this;
    // Products of the first z, of the first two ... and back from the inverse of all (Montgomery 1987).
    const denominators = slots.map((number) => slot(number) + pairBytes);
    const product = (i: number): number => (i === 0 ? (denominators[0] ?? 0) : pair(i));
    for (let i = 1; i < slots.length; i++) {
      run.multiply(pair(i), product(i - 1), denominators[i] ?? 0);
    }
    const [rest, inverse] = [pair(0), pair(slots.length)];
    run.invert(rest, product(slots.length - 1));
    for (let i = slots.length - 1; i > 0; i--) {
      run.multiply(inverse, rest, product(i - 1));
      run.encode(at.encoded + i * encodedBytes, slot(slots[i] ?? 0), inverse);
      run.multiply(rest, rest, denominators[i] ?? 0);
    }
    run.encode(at.encoded, slot(slots[0] ?? 0), rest);
    const encoded = slots.map((_, i) =>
      this.memory.slice(at.encoded + i * encodedBytes, at.encoded + (i + 1) * encodedBytes),
    );
    // One for each.
    return encoded as { -readonly [Place in keyof Slots]: Uint8Array };
  }

  copy(to: number, from: number): void {
    this.memory.copyWithin(slot(to), slot(from), slot(from) + pointBytes);
  }

  /** Whether the point is of order 1 or 2: x = 0. */
  hasZeroX(number: number): boolean {
    this.run.freeze(at.encoded, slot(number));
    return this.memory.subarray(at.encoded, at.encoded + encodedBytes).every((byte) => byte === 0);
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
const pair = (number: number): number => at.pairs + number * pairBytes;
