/**
 * A WebAssembly assembler, as much of it as curve arithmetic needs: functions of i32 arguments over one
 * memory, i64 and v128 values, loops whose count is an argument or a constant. Values are typed, so that a
 * mix-up is an error of the compiler; the engine validates what comes out once more.
 *
 * There is no `if`, no comparison that jumps and no table: what is written with this runs the same
 * instructions whatever its data. Addresses are data as well: see `Body.load`.
 */

export type Kind = 'i32' | 'i64' | 'v128';
/** An expression: instructions that leave one value. Its code runs where the expression is used. */
export interface Value<K extends Kind> {
  readonly kind: K;
  readonly write: (code: number[]) => void;
  /** If it is a local variable. */
  readonly local?: number;
}
export type I32 = Value<'i32'>;
export type I64 = Value<'i64'>;
export type V128 = Value<'v128'>;

const kinds = { i32: 0x7f, i64: 0x7e, v128: 0x7b } as const;

function unsigned(number: number): number[] {
  const bytes: number[] = [];
  let rest = number;
  while (rest > 0x7f) {
    bytes.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  bytes.push(rest);
  return bytes;
}
function signed(number: bigint): number[] {
  const bytes: number[] = [];
  let rest = number;
  for (;;) {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    const isLast = (rest === 0n && low < 0x40) || (rest === -1n && low >= 0x40);
    bytes.push(isLast ? low : low | 0x80);
    if (isLast) return bytes;
  }
}

const simd = (opcode: number): number[] => [0xfd, ...unsigned(opcode)];

/** The operands' code and then `code`. */
function after<K extends Kind>(
  kind: K,
  operands: readonly Value<Kind>[],
  code: readonly number[],
): Value<K> {
  return {
    kind,
    write: (out) => {
      for (const operand of operands) operand.write(out);
      for (const byte of code) out.push(byte);
    },
  };
}
function binary<K extends Kind>(
  kind: K,
  ...code: readonly number[]
): (a: Value<K>, b: Value<K>) => Value<K> {
  return (a, b) => after(kind, [a, b], code);
}

export const i32 = {
  const: (value: number): I32 => after('i32', [], [0x41, ...signed(BigInt(value))]),
  add: binary('i32', 0x6a),
  sub: binary('i32', 0x6b),
  mul: binary('i32', 0x6c),
  and: binary('i32', 0x71),
  or: binary('i32', 0x72),
  xor: binary('i32', 0x73),
  shl: (a: I32, bits: number): I32 => after('i32', [a, i32.const(bits)], [0x74]),
  /** Arithmetic. */
  shr: (a: I32, bits: number): I32 => after('i32', [a, i32.const(bits)], [0x75]),
  /** 1 if a = b, else 0. */
  isSame: binary('i32', 0x46),
  /** 1 if the 64 bits are all zero, else 0. */
  isZero: (a: I64): I32 => after('i32', [a], [0x50]),
  /** The low half. */
  of: (a: I64): I32 => after('i32', [a], [0xa7]),
} as const;

export const i64 = {
  const: (value: bigint): I64 => after('i64', [], [0x42, ...signed(BigInt.asIntN(64, value))]),
  add: binary('i64', 0x7c),
  sub: binary('i64', 0x7d),
  mul: binary('i64', 0x7e),
  and: binary('i64', 0x83),
  or: binary('i64', 0x84),
  xor: binary('i64', 0x85),
  shl: (a: I64, bits: number): I64 => after('i64', [a, i64.const(BigInt(bits))], [0x86]),
  /** Arithmetic. */
  shr: (a: I64, bits: number): I64 => after('i64', [a, i64.const(BigInt(bits))], [0x87]),
  /** Logical. */
  ushr: (a: I64, bits: number): I64 => after('i64', [a, i64.const(BigInt(bits))], [0x88]),
  /** Turned to the right. */
  rotr: (a: I64, bits: number): I64 => after('i64', [a, i64.const(BigInt(bits))], [0x8a]),
  /** 1 if a < b as unsigned numbers, else 0. */
  isLess: (a: I64, b: I64): I64 => after('i64', [a, b], [0x54, 0xad]),
  extend: (a: I32): I64 => after('i64', [a], [0xad]),
  lane: (a: V128, lane: 0 | 1): I64 => after('i64', [a], [...simd(0x1d), lane]),
} as const;

/** Two lanes of both operands, counted through. */
function shuffle(first: number, second: number): (a: V128, b: V128) => V128 {
  const bytes = [first, second].flatMap((lane) =>
    Array.from({ length: 8 }, (_, i) => lane * 8 + i),
  );
  return binary('v128', ...simd(0x0d), ...bytes);
}

const reversedLanes = [
  ...simd(0x0d),
  ...Array.from({ length: 16 }, (_, i) => (i < 8 ? 7 - i : 23 - i)),
];
const opcodes = {
  shl: simd(0xcb),
  ushr: simd(0xcd),
  relaxedFma: simd(0x107),
  splat: simd(0x12),
  splat32: simd(0x11),
} as const;

/** Two lanes of 64 bits, as integers or doubles. */
export const v128 = {
  add: binary('v128', ...simd(0xce)),
  sub: binary('v128', ...simd(0xd1)),
  shl: (a: V128, bits: number): V128 => after('v128', [a, i32.const(bits)], opcodes.shl),
  /** Logical. */
  ushr: (a: V128, bits: number): V128 => after('v128', [a, i32.const(bits)], opcodes.ushr),
  and: binary('v128', ...simd(0x4e)),
  or: binary('v128', ...simd(0x50)),
  xor: binary('v128', ...simd(0x51)),
  fadd: binary('v128', ...simd(0xf0)),
  fsub: binary('v128', ...simd(0xf1)),
  fmul: binary('v128', ...simd(0xf2)),
  /** a b + c; whether it is rounded once or twice is up to the processor. */
  relaxedFma: (a: V128, b: V128, c: V128): V128 => after('v128', [a, b, c], opcodes.relaxedFma),
  /** (a0, b0) of (a0, a1), (b0, b1). */
  lows: shuffle(0, 2),
  /** (a1, b1). */
  highs: shuffle(1, 3),
  /** (a1, b0); of one vector twice: its lanes exchanged. */
  cross: shuffle(1, 2),
  /** (a0, b1). */
  outer: shuffle(0, 3),
  /** The bytes of each lane the other way around. */
  reversed: (a: V128): V128 => after('v128', [a, a], reversedLanes),
  /** What stands in memory at a constant address and never changes; read where it is used. */
  at: (address: number): V128 =>
    after('v128', [i32.const(0)], [...simd(0x00), 0, ...unsigned(address)]),
  pair: (a: I64, b: I64): V128 =>
    after('v128', [after('v128', [a], opcodes.splat), b], [...simd(0x1e), 1]),
  splat32: (a: I32): V128 => after('v128', [a], opcodes.splat32),
  /** All bits of each of four lanes of 32 bits in which a and b are the same. */
  same32: binary('v128', ...simd(0x37)),
} as const;

/** A function that was defined. */
export interface Callable {
  readonly index: number;
}

const memoryAccess = {
  v128: { load: simd(0x00), store: simd(0x0b) },
  i64: { load: [0x29], store: [0x37] },
  i32: { load: [0x28], store: [0x36] },
} as const;

/** The code of a function while it is written. */
export class Body {
  readonly #locals: Kind[] = [];
  readonly #parameters: number;
  readonly #code: number[] = [];

  constructor(parameters: number) {
    this.#parameters = parameters;
  }

  #newLocal<K extends Kind>(kind: K): Value<K> & { readonly local: number } {
    const local = this.#parameters + this.#locals.push(kind) - 1;
    return { ...localValue(kind, local), local };
  }

  /** Computes `value` now; the result may be used any number of times. */
  let<K extends Kind>(value: Value<K>): Value<K> {
    const made = this.#newLocal(value.kind);
    this.set(made, value);
    return made;
  }
  /** Gives what `let` made another value. */
  set<K extends Kind>(variable: Value<K>, value: Value<K>): void {
    if (variable.local === undefined) throw new TypeError('assembler: no variable');
    value.write(this.#code);
    this.#code.push(0x21, ...unsigned(variable.local));
  }

  #access(kind: Kind, what: 'load' | 'store', offset: number): number[] {
    return [...memoryAccess[kind][what], 0, ...unsigned(offset)];
  }
  /** `address` must not be secret: caches tell which one it was. */
  load<K extends Kind>(kind: K, address: I32, offset = 0): Value<K> {
    return this.let(after(kind, [address], this.#access(kind, 'load', offset)));
  }
  /** A byte with its sign. */
  loadByte(address: I32): I32 {
    return this.let(after('i32', [address], [0x2c, 0, 0]));
  }
  /** As for `load`. */
  store(address: I32, offset: number, value: Value<Kind>): void {
    address.write(this.#code);
    value.write(this.#code);
    this.#code.push(...this.#access(value.kind, 'store', offset));
  }
  storeByte(address: I32, offset: number, value: I32): void {
    address.write(this.#code);
    value.write(this.#code);
    this.#code.push(0x3a, 0, ...unsigned(offset));
  }

  /** Of a function without a result. */
  call(callee: Callable, ...parameters: readonly I32[]): void {
    for (const parameter of parameters) parameter.write(this.#code);
    this.#code.push(0x10, ...unsigned(callee.index));
  }

  /** Runs `body` for `from`, `from - 1`, ... 0, which must not be secret; not at all for -1. */
  countDown(from: I32, body: (count: I32) => void): void {
    const count = this.#newLocal('i32');
    this.set(count, i32.add(from, i32.const(1)));
    // Block and loop; out of both if nothing is left.
    this.#code.push(0x02, 0x40, 0x03, 0x40);
    count.write(this.#code);
    this.#code.push(0x45, 0x0d, 1);
    this.set(count, i32.sub(count, i32.const(1)));
    body(count);
    this.#code.push(0x0c, 0, 0x0b, 0x0b);
  }

  /** As it stands in the code section. */
  encoded(result: I32 | undefined): Uint8Array {
    result?.write(this.#code);
    const locals = this.#locals.flatMap((kind) => [1, kinds[kind]]);
    return withLength(
      Uint8Array.from([...unsigned(this.#locals.length), ...locals]),
      Uint8Array.from(this.#code),
      Uint8Array.of(0x0b),
    );
  }
}

function localValue<K extends Kind>(kind: K, local: number): Value<K> {
  return { ...after(kind, [], [0x20, ...unsigned(local)]), local };
}

/** A module with one memory, which is exported as `memory`. */
export class Module {
  readonly #types: Uint8Array[] = [];
  readonly #bodies: Uint8Array[] = [];
  readonly #exports = [Uint8Array.of(...nameOf('memory'), 2, 0)];
  readonly #pages: number;
  readonly #data: Uint8Array[] = [];

  /** `pages` of 64 KiB. */
  constructor(pages: number) {
    this.#pages = pages;
  }

  /** Defines and exports a function of i32 arguments; its result is what `write` returns. */
  define(
    name: string,
    parameters: number,
    write: (body: Body, ...parameters: I32[]) => I32 | void,
  ): Callable {
    const body = new Body(parameters);
    const values = Array.from({ length: parameters }, (_, i) => localValue('i32', i));
    const result = write(body, ...values) ?? undefined;
    const results = result === undefined ? [0] : [1, kinds.i32];
    const index = this.#bodies.push(body.encoded(result)) - 1;
    this.#types.push(Uint8Array.of(0x60, parameters, ...values.map(() => kinds.i32), ...results));
    this.#exports.push(Uint8Array.of(...nameOf(name), 0, ...unsigned(index)));
    return { index };
  }

  /** What the memory has from `at` on when it begins. */
  place(at: number, bytes: Uint8Array): void {
    const address = [0x41, ...signed(BigInt(at)), 0x0b];
    this.#data.push(Uint8Array.of(0, ...address, ...unsigned(bytes.length), ...bytes));
  }

  encoded(): Uint8Array<ArrayBuffer> {
    const indices = this.#types.map((_, index) => Uint8Array.from(unsigned(index)));
    const pages = unsigned(this.#pages);
    return joined(
      Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0),
      section(1, this.#types),
      section(3, indices),
      section(5, [Uint8Array.of(1, ...pages, ...pages)]),
      section(7, this.#exports),
      section(10, this.#bodies),
      section(11, this.#data),
    );
  }
}

function nameOf(name: string): number[] {
  const bytes = new TextEncoder().encode(name);
  return [...unsigned(bytes.length), ...bytes];
}
function joined(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
function withLength(...parts: readonly Uint8Array[]): Uint8Array {
  const content = joined(...parts);
  return joined(Uint8Array.from(unsigned(content.length)), content);
}
function section(id: number, items: readonly Uint8Array[]): Uint8Array {
  const count = Uint8Array.from(unsigned(items.length));
  return joined(Uint8Array.of(id), withLength(count, ...items));
}
