/**
 * Arithmetic modulo p = 2^255 - 19 on two numbers at once, as WebAssembly: one in each lane of a vector of
 * doubles. A number is five doubles with integer values, x = sum of limb[i] 2^(51 i), signed.
 *
 * **Why doubles.** The exact product of two limbs has about 102 bits. A fused multiply-add takes it apart in
 * two instructions for two lanes: `hi = a b + c1` is a b rounded to a multiple of 2^51, if c1 = 1.5 2^103, for
 * doubles from 2^103 to 2^104 are that far apart; `lo = a b - (hi - c1)` is what is left, which is exact.
 * WebAssembly has no other product of more than 64 bits. With lo made near 1.5 2^52, both have their
 * integers in the low bits of their patterns, so that patterns can be added as 64-bit integers; what the
 * exponents add up to is known and taken off once for each sum.
 *
 * **Bounds**, by which nothing overflows or is rounded. `Limbs` come in two sizes:
 * - reduced: |limb| <= 2^50 + 2^14. What `carry` and `settle` give.
 * - wide: |limb| <= 2^51 + 2^15: a sum or difference of two reduced ones.
 *
 * 1. A product of limbs, wide by reduced at most, is below 2^101 (1 + 2^-35) < 2^102, so hi stays between
 *    2^103 and 2^104, and |lo| <= 2^50 (1.25 times that without a fused instruction, see `#product`).
 * 2. A column is a sum of at most nine lo and hi, each at most 1.25 2^50 + 2^16. After folding with 19
 *    (2^255 = 19) it is at most (1 + 19 * 9) 1.25 2^50 + 2^24 < 2^58.
 * 3. `carry` takes sums of up to four columns: below 2^60. They become digits of [-2^50, 2^50) and carries of at
 *    most 2^9 + 1, times 19 for the lowest limb: reduced.
 */
import type { Body, I32, I64, V128 } from './assembler.ts';
import { i64, v128 } from './assembler.ts';

export const prime = 2n ** 255n - 19n;
export const limbBits = 51;
const limbCount = 5;
/** Bytes of a pair of field elements in memory. */
export const pairBytes = 16 * limbCount;

/** Doubles from 2^103 up are multiples of 2^51, those from 2^52 up integers. */
const highMagic = 1.5 * 2 ** 103;
const lowMagic = 1.5 * 2 ** 52;

/** Both lanes of five limbs. */
export type Limbs = readonly V128[];
/** Both lanes of five sums of products, integers that `carry` makes limbs of. */
export type Columns = readonly V128[];

function bitsOf(double: number): bigint {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, double);
  return view.getBigUint64(0);
}
const lowMagicBits = bitsOf(lowMagic);
const highMagicBits = bitsOf(highMagic);
/** Of 2^52: an integer below 2^52 with these bits is the double 2^52 + integer. */
const unitBits = bitsOf(2 ** 52);

/** Vectors that code refers to, in memory from an address on. */
export class Constants {
  readonly #at: number;
  readonly #bytes: number[] = [];
  readonly #known = new Map<string, V128>();

  constructor(at: number) {
    this.#at = at;
  }

  get bytes(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  /** Lanes modulo 2^64; one number stands for both. */
  integers(first: bigint, second = first): V128 {
    const name = `${BigInt.asUintN(64, first)} ${BigInt.asUintN(64, second)}`;
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const view = new DataView(new ArrayBuffer(16));
    view.setBigInt64(0, BigInt.asIntN(64, first), true);
    view.setBigInt64(8, BigInt.asIntN(64, second), true);
    const made = v128.at(this.#at + this.#bytes.length);
    this.#bytes.push(...new Uint8Array(view.buffer));
    this.#known.set(name, made);
    return made;
  }
  doubles(first: number, second = first): V128 {
    const name = `${first} and ${second}`;
    const made = this.#known.get(name) ?? this.integers(bitsOf(first), bitsOf(second));
    this.#known.set(name, made);
    return made;
  }
  /** Two field elements, reduced. */
  elements(first: bigint, second: bigint): Limbs {
    const [a, b] = [limbsOf(first), limbsOf(second)];
    return a.map((limb, i) => this.doubles(limb, b[i]));
  }
}

/** The limbs of a number modulo p, reduced. */
export function limbsOf(value: bigint): number[] {
  let rest = ((value % prime) + prime) % prime;
  const limbs: number[] = [];
  for (let i = 0; i < limbCount; i++) {
    // The last one is below 2^51 - 18, and its excess has no limb to go to: 2^255 = 19.
    const digit = BigInt.asIntN(limbBits, rest);
    limbs.push(Number(digit));
    rest = (rest - digit) >> BigInt(limbBits);
  }
  limbs[0] = (limbs[0] ?? 0) + 19 * Number(rest);
  return limbs;
}

/** Of public numbers: in constants only. */
export function powerModulo(base: bigint, exponent: bigint): bigint {
  let [result, square] = [1n, base % prime];
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % prime;
    square = (square * square) % prime;
  }
  return result;
}

/** A limb, and its halves where products are not fused: 26 bits and what is below them. */
interface Factor {
  readonly whole: V128;
  readonly high: V128;
  readonly low: V128;
}
type Term = readonly [column: number, a: Factor, b: Factor];

/** Writes field arithmetic into the body of a function. */
export class Field {
  readonly #body: Body;
  readonly #constants: Constants;
  readonly #isFused: boolean;

  /** What products begin with; as variables, for registers are quicker than memory. */
  readonly #high: V128;
  readonly #both: V128;

  /** Writes two loads. */
  constructor(body: Body, constants: Constants, isFused: boolean) {
    this.#body = body;
    this.#constants = constants;
    this.#isFused = isFused;
    this.#high = body.let(constants.doubles(highMagic));
    this.#both = body.let(constants.doubles(highMagic + lowMagic));
  }

  load(address: I32, offset = 0): Limbs {
    return Array.from({ length: limbCount }, (_, i) =>
      this.#body.load('v128', address, offset + 16 * i),
    );
  }
  store(address: I32, offset: number, limbs: Limbs): void {
    limbs.forEach((limb, i) => this.#body.store(address, offset + 16 * i, limb));
  }

  #let(limbs: readonly V128[]): Limbs {
    return limbs.map((limb) => this.#body.let(limb));
  }
  /** Reduced to wide. */
  add(a: Limbs, b: Limbs): Limbs {
    return this.#let(zip(a, b, v128.fadd));
  }
  /** Reduced to wide. */
  subtract(a: Limbs, b: Limbs): Limbs {
    return this.#let(zip(a, b, v128.fsub));
  }

  /** Wide by reduced. */
  multiply(a: Limbs, b: Limbs): Columns {
    const [x, y] = [this.#factors(a), this.#factors(b)];
    const terms: Term[] = [];
    for (let column = 0; column < 2 * limbCount - 1; column++) {
      for (const [i, left] of x.entries()) {
        const right = y[column - i];
        if (right !== undefined) terms.push([column, left, right]);
      }
    }
    return this.#columns(terms);
  }
  /** Of a reduced one. */
  square(a: Limbs): Columns {
    const x = this.#factors(a);
    const twice = this.#factors(this.#let(a.map((limb) => v128.fadd(limb, limb))));
    const terms: Term[] = [];
    for (let column = 0; column < 2 * limbCount - 1; column++) {
      for (const [i, left] of x.entries()) {
        const j = column - i;
        const right = i === j ? x[j] : twice[j];
        if (i <= j && right !== undefined) terms.push([column, left, right]);
      }
    }
    return this.#columns(terms);
  }

  #factors(limbs: Limbs): Factor[] {
    return limbs.map((whole) => {
      if (this.#isFused) return { whole, high: whole, low: whole };
      const magic = this.#constants.doubles(1.5 * 2 ** 78);
      const high = this.#body.let(v128.fsub(v128.fadd(whole, magic), magic));
      return { whole, high, low: this.#body.let(v128.fsub(whole, high)) };
    });
  }

  /**
   * The patterns of lo and hi. Without a fused instruction hi comes of a b as it was rounded, which moves lo by 2^48
   * at most, and lo of products of halves: multiples of 2^26 below 2^26 2^26, and rests of at most 2^25. Each of
   * the sums on the way is a multiple of its smallest term's unit and has less than 53 bits above it.
   */
  #product(a: Factor, b: Factor): readonly [V128, V128] {
    if (this.#isFused) {
      const hi = this.#body.let(v128.relaxedFma(a.whole, b.whole, this.#high));
      return [v128.relaxedFma(a.whole, b.whole, v128.fsub(this.#both, hi)), hi];
    }
    const hi = this.#body.let(v128.fadd(v128.fmul(a.whole, b.whole), this.#high));
    const parts = [
      [a.high, b.high],
      [a.high, b.low],
      [a.low, b.high],
      [a.low, b.low],
    ] as const;
    let lo = v128.fsub(this.#both, hi);
    for (const [x, y] of parts) lo = v128.fadd(lo, v128.fmul(x, y));
    return [lo, hi];
  }

  #columns(terms: readonly Term[]): Columns {
    const sums: { sum?: V128; bias: bigint }[] = Array.from({ length: 2 * limbCount }, () => ({
      bias: 0n,
    }));
    const addTo = (column: number, pattern: V128, bias: bigint): void => {
      const before = sums[column];
      if (before === undefined) throw new TypeError('field: no such column');
      before.sum = this.#body.let(before.sum ? v128.add(before.sum, pattern) : pattern);
      before.bias += bias;
    };
    for (const [column, a, b] of terms) {
      const [lo, hi] = this.#product(a, b);
      addTo(column, lo, lowMagicBits);
      addTo(column + 1, hi, highMagicBits);
    }
    return Array.from({ length: limbCount }, (_, i) => {
      const [low, high] = [sums[i], sums[i + limbCount]];
      if (!low?.sum || !high?.sum) throw new TypeError('field: an empty column');
      const bias = this.#constants.integers(-low.bias - 19n * high.bias);
      return this.#body.let(v128.add(v128.add(low.sum, bias), times19(high.sum)));
    });
  }

  /** Sums of up to four columns to reduced limbs; adds `extra` to each column of a lane first. */
  carry(columns: Columns, extra: readonly [bigint, bigint] = [0n, 0n]): Limbs {
    // Positive, and digits of [0, 2^51) for those of [-2^50, 2^50).
    const bias = 2n ** 62n + 2n ** 50n;
    const start = this.#constants.integers(bias + extra[0], bias + extra[1]);
    const positive = columns.map((column) => this.#body.let(v128.add(column, start)));
    const over = positive.map((column) => this.#body.let(v128.ushr(column, limbBits)));
    const mask = this.#constants.integers(2n ** BigInt(limbBits) - 1n);
    const unit = this.#constants.integers(unitBits);
    return positive.map((column, i) => {
      const carried = over[(i + limbCount - 1) % limbCount] ?? column;
      const sum = v128.add(v128.and(column, mask), i === 0 ? times19(carried) : carried);
      // What the bias has become, in this limb and from the one below: 2^62 / 2^51.
      const excess = 2 ** 52 + 2 ** 50 + (i === 0 ? 19 : 1) * 2 ** 11;
      return this.#body.let(v128.fsub(v128.or(sum, unit), this.#constants.doubles(excess)));
    });
  }
  /** Limbs of up to 2^52 to reduced ones. */
  settle(limbs: Limbs): Limbs {
    const magic = this.#high;
    const over = limbs.map((limb) => this.#body.let(v128.fsub(v128.fadd(limb, magic), magic)));
    return limbs.map((limb, i) => {
      const carried = over[(i + limbCount - 1) % limbCount] ?? limb;
      const factor = this.#constants.doubles((i === 0 ? 19 : 1) * 2 ** -limbBits);
      const rest = v128.fsub(limb, over[i] ?? limb);
      return this.#body.let(v128.fadd(rest, v128.fmul(carried, factor)));
    });
  }

  product(a: Limbs, b: Limbs): Limbs {
    return this.carry(this.multiply(a, b));
  }

  /** Of 255 bits in four words to a lane; a number of p and more stays what it is. */
  fromWords(first: readonly I64[], second: readonly I64[]): Limbs {
    const [a, b] = [first, second].map((words) => this.#limbWords(words));
    const unit = this.#constants.integers(unitBits);
    const limbs = Array.from({ length: limbCount }, (_, i) => {
      const pair = v128.pair(a?.[i] ?? i64.const(0n), b?.[i] ?? i64.const(0n));
      return this.#body.let(v128.fsub(v128.or(pair, unit), this.#constants.doubles(2 ** 52)));
    });
    return this.settle(limbs);
  }
  #limbWords([w0, w1, w2, w3]: readonly I64[]): I64[] {
    if (!w0 || !w1 || !w2 || !w3) throw new TypeError('field: four words');
    const mask = i64.const(2n ** 51n - 1n);
    return [
      i64.and(w0, mask),
      i64.and(i64.or(i64.ushr(w0, 51), i64.shl(w1, 13)), mask),
      i64.and(i64.or(i64.ushr(w1, 38), i64.shl(w2, 26)), mask),
      i64.and(i64.or(i64.ushr(w2, 25), i64.shl(w3, 39)), mask),
      i64.and(i64.ushr(w3, 12), mask),
    ];
  }

  /** The number of one lane of reduced limbs, below p, in four words. */
  toWords(limbs: Limbs, lane: 0 | 1): I64[] {
    const body = this.#body;
    const magic = this.#constants.doubles(lowMagic);
    const mask = i64.const(2n ** 51n - 1n);
    // 2p is added, whose limbs are larger than those of a reduced number.
    let limb = limbs.map((one, i) => {
      const twice = 2n ** 52n - (i === 0 ? 38n : 2n);
      return body.let(
        i64.add(i64.lane(v128.fadd(one, magic), lane), i64.const(twice - lowMagicBits)),
      );
    });
    // Around once, which leaves a number below 2^255 + 57, and so below 2 p.
    let carried = i64.const(0n);
    limb = limb.map((one) => {
      const sum = body.let(i64.add(one, carried));
      carried = body.let(i64.shr(sum, 51));
      return body.let(i64.and(sum, mask));
    });
    limb[0] = body.let(i64.add(limb[0] ?? carried, i64.mul(carried, i64.const(19n))));
    // 1 if the number is p or more, which adding 19 carries to 2^255.
    let over = i64.const(19n);
    for (const one of limb) over = body.let(i64.shr(i64.add(one, over), 51));
    carried = i64.mul(over, i64.const(19n));
    limb = limb.map((one) => {
      const sum = body.let(i64.add(one, carried));
      carried = body.let(i64.shr(sum, 51));
      return body.let(i64.and(sum, mask));
    });
    const [l0, l1, l2, l3, l4] = limb;
    if (!l0 || !l1 || !l2 || !l3 || !l4) throw new TypeError('field: five limbs');
    return [
      i64.or(l0, i64.shl(l1, 51)),
      i64.or(i64.ushr(l1, 13), i64.shl(l2, 38)),
      i64.or(i64.ushr(l2, 26), i64.shl(l3, 25)),
      i64.or(i64.ushr(l3, 39), i64.shl(l4, 12)),
    ].map((word) => body.let(word));
  }
}

function times19(value: V128): V128 {
  return v128.add(v128.add(value, v128.shl(value, 1)), v128.shl(value, 4));
}
function zip(a: Limbs, b: Limbs, join: (x: V128, y: V128) => V128): V128[] {
  return a.map((limb, i) => join(limb, b[i] ?? limb));
}
