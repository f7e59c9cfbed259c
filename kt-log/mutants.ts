/**
 * Test support: mutants of encoded messages. Some know nothing of the encoding; others know its
 * fields, so that they pass the decoder and reach what stands behind it.
 */
import { maxUint16, maxUint8, Reader } from './presentation.ts';
import type { Structure } from './presentation.ts';

type Run = Pick<Field, 'start' | 'length'>;
/** A field of a message: a number, a byte string (hashes one by one), an element of a vector. */
export interface Field {
  readonly start: number;
  readonly length: number;
  readonly isNumber: boolean;
  /** Where the vector that it is an element of has its count. */
  readonly count?: Run | undefined;
}

/** A message that is mutated, and others like it that mutants take parts of. */
export interface Mutable {
  readonly bytes: Uint8Array;
  readonly fields: readonly Field[];
  readonly donors: readonly Uint8Array[];
}

/** A reader that notes where it read what. */
class FieldReader extends Reader {
  readonly fields: Field[] = [];
  readonly #length: number;
  /** Of the hashes that are being read. */
  #count: Run | undefined;

  constructor(bytes: Uint8Array) {
    super(bytes, 'fields');
    this.#length = bytes.length;
  }
  #number(length: number): void {
    this.fields.push({ start: this.#length - this.remaining, length, isNumber: true });
  }
  override u8(field: string): number {
    this.#number(1);
    return super.u8(field);
  }
  override u16(field: string): number {
    this.#number(2);
    return super.u16(field);
  }
  override u32(field: string): number {
    this.#number(4);
    return super.u32(field);
  }
  override u64(field: string, max?: number): number {
    this.#number(8);
    return super.u64(field, max);
  }
  override fixed(length: number, field: string): Uint8Array {
    const start = this.#length - this.remaining;
    // Packed hashes one by one, and the halves of a signature.
    const part = length % 32 === 0 ? 32 : length;
    for (let at = 0; at < length; at += part) {
      this.fields.push({ start: start + at, length: part, isNumber: false, count: this.#count });
    }
    return super.fixed(length, field);
  }
  override hashes(max: number, field: string, cap?: number): Uint8Array {
    this.#count = this.#countHere(max);
    const packed = super.hashes(max, field, cap);
    this.#count = undefined;
    return packed;
  }
  override vector<T>(
    max: number,
    elementBytesMin: number,
    field: string,
    read: (index: number) => T,
    cap?: number,
  ): T[] {
    const count = this.#countHere(max);
    const readElement = (index: number): T => {
      const start = this.#length - this.remaining;
      const element = read(index);
      const length = this.#length - this.remaining - start;
      this.fields.push({ start, length, isNumber: false, count });
      return element;
    };
    return super.vector(max, elementBytesMin, field, readElement, cap);
  }
  #countHere(max: number): Run {
    const length = max <= maxUint8 ? 1 : max <= maxUint16 ? 2 : 4;
    return { start: this.#length - this.remaining, length };
  }
}

/** The fields of an encoded structure, as its own decoder reads them. */
export function fieldsOf<T>(structure: Structure<T>, bytes: Uint8Array): Field[] {
  const reader = new FieldReader(bytes);
  structure.read(reader);
  return reader.fields;
}

/** The fields of a structure that lies somewhere in a message. */
export function fieldsInside<T>(
  message: Uint8Array,
  structure: Structure<T>,
  inner: Uint8Array,
): Field[] {
  const at = Buffer.from(message).indexOf(inner);
  if (at < 0) throw new TypeError('the message does not hold this');
  return fieldsOf(structure, inner).map((field) => ({ ...field, start: field.start + at }));
}

/** The words of a text: lines, and what blanks separate in them. */
export function wordsOf(text: Uint8Array): Field[] {
  const found = new TextDecoder('latin1').decode(text).matchAll(/[^ \n]+|[ \n]/gu);
  return Array.from(found, ({ index, 0: word }) => ({
    start: index,
    length: word.length,
    isNumber: false,
  }));
}

/** Random numbers from 0 to 2^32 - 1, the same for the same seed (mulberry32). */
export function dice(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return (z ^ (z >>> 14)) >>> 0;
  };
}

type Next = () => number;
/** Undefined where a message has nothing that this kind could change. */
type Mutation = (message: Mutable, next: Next) => Uint8Array | undefined;

/** `bytes` with a run replaced. */
function replace(bytes: Uint8Array, { start, length }: Run, by: Uint8Array): Uint8Array {
  const tail = bytes.subarray(start + length);
  const made = new Uint8Array(start + by.length + tail.length);
  made.set(bytes.subarray(0, start));
  made.set(by, start);
  made.set(tail, start + by.length);
  return made;
}
const runOf = (bytes: Uint8Array, { start, length }: Run): Uint8Array =>
  bytes.subarray(start, start + length);

const randomRun = (length: number, next: Next): Uint8Array =>
  Uint8Array.from({ length: 1 + (next() % length) }, next);
/** Up to 40 bytes somewhere in the message. */
function anyRun(bytes: Uint8Array, next: Next): Run {
  const start = next() % bytes.length;
  return { start, length: Math.min(1 + (next() % 40), bytes.length - start) };
}

/** A field that fits, or undefined after some tries. */
function anyField(
  fields: readonly Field[],
  next: Next,
  fits: (field: Field) => boolean,
): Field | undefined {
  if (fields.length === 0) return undefined;
  for (let i = 0; i < 12; i++) {
    const field = fields[next() % fields.length];
    if (field !== undefined && field.length > 0 && fits(field)) return field;
  }
  return undefined;
}
const isNumber = (field: Field): boolean => field.isNumber;
const isString = (field: Field): boolean => !field.isNumber;

/** Adds to a big-endian number, modulo its width. */
function added(bytes: Uint8Array, { start, length }: Run, by: number): Uint8Array {
  const made = bytes.slice();
  let carry = by;
  for (let at = start + length - 1; at >= start && carry !== 0; at--) {
    const sum = (made[at] ?? 0) + carry;
    made[at] = sum & 255;
    carry = Math.floor(sum / 256);
  }
  return made;
}
/** The message with another count of the vector that a field is in, as far as that can be told. */
function recounted({ bytes, fields }: Mutable, field: Field, by: number, next: Next): Uint8Array {
  const before = fields.filter((one) => one.isNumber && one.start < field.start);
  const count = field.count ?? before.at(-1 - (next() % 4));
  return count === undefined ? bytes : added(bytes, count, by);
}

/** Kinds of mutations; of equal chance. */
const mutations: Readonly<Record<string, Mutation>> = {
  flip({ bytes }, next) {
    const at = next() % bytes.length;
    return bytes.with(at, (bytes[at] ?? 0) ^ (1 << (next() % 8)));
  },
  set: ({ bytes }, next) => bytes.with(next() % bytes.length, next() & 255),
  insert: ({ bytes }, next) =>
    replace(bytes, { start: next() % bytes.length, length: 0 }, randomRun(40, next)),
  delete: ({ bytes }, next) => replace(bytes, anyRun(bytes, next), new Uint8Array()),
  duplicate({ bytes }, next) {
    const run = anyRun(bytes, next);
    return replace(bytes, { ...run, length: 0 }, runOf(bytes, run));
  },
  copy({ bytes }, next) {
    const { start, length } = anyRun(bytes, next);
    return bytes.slice().copyWithin(next() % bytes.length, start, start + length);
  },
  swap({ bytes }, next) {
    const [a, b] = [anyRun(bytes, next), anyRun(bytes, next)];
    const length = Math.min(a.length, b.length);
    return exchanged(bytes, { ...a, length }, { ...b, length });
  },
  truncate: ({ bytes }, next) => bytes.subarray(0, next() % bytes.length),
  extend({ bytes }, next) {
    const end = next() % 2 === 0 ? new Uint8Array(1 + (next() % 40)) : randomRun(40, next);
    return replace(bytes, { start: bytes.length, length: 0 }, end);
  },
  number({ bytes, fields }, next) {
    const field = anyField(fields, next, isNumber);
    if (field === undefined) return undefined;
    const by = [1, 255, 256, 2 ** (next() % (8 * field.length))][next() % 4] ?? 1;
    return next() % 2 === 0
      ? added(bytes, field, next() % 2 === 0 ? by : -by)
      : replace(bytes, field, new Uint8Array(field.length).fill(next() % 2 === 0 ? 0 : 255));
  },
  sameNumber({ bytes, fields }, next) {
    const field = anyField(fields, next, isNumber);
    const other = anyField(fields, next, (one) => isNumber(one) && one.length === field?.length);
    return field && other && replace(bytes, field, runOf(bytes, other));
  },
  swapFields({ bytes, fields }, next) {
    const field = anyField(fields, next, isString);
    const other = anyField(fields, next, (one) => isString(one) && one.length === field?.length);
    return field && other && exchanged(bytes, field, other);
  },
  copyField({ bytes, fields }, next) {
    const field = anyField(fields, next, isString);
    const other = anyField(fields, next, (one) => isString(one) && one.length === field?.length);
    const isZero = next() % 4 === 0;
    if (field === undefined || other === undefined) return undefined;
    return replace(bytes, field, isZero ? new Uint8Array(field.length) : runOf(bytes, other));
  },
  dropField(message, next) {
    const field = anyField(message.fields, next, isString);
    return field && replace(recounted(message, field, -1, next), field, new Uint8Array());
  },
  repeatField(message, next) {
    const field = anyField(message.fields, next, isString);
    if (field === undefined) return undefined;
    const counted = recounted(message, field, 1, next);
    const { start, length } = field;
    const at = next() % 2 === 0 ? start : start + length;
    return replace(counted, { start: at, length: 0 }, runOf(message.bytes, field));
  },
  /** A field as it stands in another message of the kind, at the same place from either end. */
  donatedField({ bytes, fields, donors }, next) {
    const donor = donors[next() % donors.length];
    const field = anyField(fields, next, () => true);
    if (donor === undefined || field === undefined) return undefined;
    const shift = next() % 2 === 0 ? 0 : donor.length - bytes.length;
    const start = field.start + shift;
    const isThere = start >= 0 && start + field.length <= donor.length;
    return isThere ? replace(bytes, field, runOf(donor, { ...field, start })) : undefined;
  },
  /** The head of one message and the tail of another one of the kind. */
  cross({ bytes, fields, donors }, next) {
    const donor = donors[next() % donors.length];
    const field = anyField(fields, next, () => true);
    if (donor === undefined || field === undefined) return undefined;
    const { start } = field;
    const from = next() % 2 === 0 ? start : Math.max(0, donor.length - (bytes.length - start));
    const [first, second] = next() % 2 === 0 ? [bytes, donor] : [donor, bytes];
    const [end, rest] = first === bytes ? [start, from] : [from, start];
    return replace(first, { start: end, length: first.length }, second.subarray(rest));
  },
};
export const mutationKinds: readonly string[] = Object.keys(mutations);

function exchanged(bytes: Uint8Array, a: Run, b: Run): Uint8Array {
  const made = bytes.slice();
  made.set(runOf(bytes, b), a.start);
  made.set(runOf(bytes, a), b.start);
  return made;
}

/** A mutant of a message and the kind of its mutation; one in eight is changed once more. */
export function mutate(
  message: Mutable,
  next: Next,
): { readonly kind: string; readonly bytes: Uint8Array } | undefined {
  const kind = mutationKinds[next() % mutationKinds.length] ?? 'flip';
  const once = mutations[kind]?.(message, next);
  if (once === undefined || once.length === 0 || next() % 8 !== 0) {
    return once && { kind, bytes: once };
  }
  // The fields of the message are no longer those of the mutant.
  const bytes = mutations['flip']?.({ ...message, bytes: once }, next);
  return bytes && { kind, bytes };
}
