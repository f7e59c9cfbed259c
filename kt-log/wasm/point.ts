/**
 * Points of edwards25519 as WebAssembly, in the extended coordinates of Hisil, Wong, Carter and Dawson
 * (2008): x = X/Z, y = Y/Z, T = XY/Z. Their sum is four pairs of products, their doubling two pairs of
 * squares and two of products: one pair for a vector. The formulas are complete: they hold for any two
 * points of the curve, also of small order.
 *
 * In memory a point is two pairs, (X, Y) and (T, Z); a `cached` one, which is what can be added,
 * (Y - X, Y + X) and (2d T, 2 Z). All of it reduced (field.ts).
 */
import type { Body, Callable, I32, Module, V128 } from './assembler.ts';
import { i32, i64, v128 } from './assembler.ts';
import { curveD, defineDecode } from './decode.ts';
import type { Columns, Constants, Limbs } from './field.ts';
import { Field, pairBytes } from './field.ts';
import type { FieldRoutines } from './field-routines.ts';

export const pointBytes = 2 * pairBytes;
/** 1 P to 8 P, cached. */
const tableSize = 8;
export const tableBytes = tableSize * pointBytes;
const windowBits = 4;

export interface PointRoutines {
  /** `(points, strings) -> which`: two points from two times 32 bytes; bit i is set if string i is one. */
  readonly decode: Callable;
  /** `(out, point, inverse)`: 32 bytes; `inverse` is a pair whose second is 1/Z. */
  readonly encode: Callable;
  /** `(point, n)`: 2^n point, in place. */
  readonly double: Callable;
  /** `(point)`: the opposite, in place. */
  readonly negate: Callable;
  /** `(tables, bases, windows, point)`: tables of 16^(windows i) point, i below bases. Spoils point. */
  readonly build: Callable;
  /** `(out, tables, bases, windows, digits)`: see `walk`. */
  readonly walk: Callable;
  /** The same for digits that everybody may know. */
  readonly walkPublic: Callable;
}

export function definePoints(
  module: Module,
  constants: Constants,
  isFused: boolean,
  routines: FieldRoutines,
  scratch: number,
): PointRoutines {
  const fieldOf = (body: Body): Field => new Field(body, constants, isFused);
  const firstSign = constants.integers(2n ** 63n, 0n);

  /** (E, F) and (H, G) to the point (EF, GH), (EH, FG). */
  function finish(field: Field, out: I32, ef: Limbs, hg: Limbs): void {
    const lows = ef.map((limb, i) => v128.lows(limb, hg[i] ?? limb));
    const highs = ef.map((limb, i) => v128.highs(limb, hg[i] ?? limb));
    field.store(out, pairBytes, field.product(ef, hg));
    field.store(out, 0, field.product(lows, highs));
  }

  /** A = (Y1 - X1)(Y2 - X2), B = (Y1 + X1)(Y2 + X2), C = 2d T1 T2, D = 2 Z1 Z2. */
  function add(body: Body, field: Field, out: I32, point: I32, cached: I32): void {
    const ab = field.multiply(sumAndDifference(body, field.load(point)), field.load(cached));
    const cd = field.multiply(field.load(point, pairBytes), field.load(cached, pairBytes));
    const ac = ab.map((one, i) => body.let(v128.lows(one, cd[i] ?? one)));
    const bd = ab.map((one, i) => body.let(v128.highs(one, cd[i] ?? one)));
    const ef = field.carry(bd.map((one, i) => v128.sub(one, ac[i] ?? one)));
    const hg = field.carry(bd.map((one, i) => v128.add(one, ac[i] ?? one)));
    finish(field, out, ef, hg);
  }
  /** (Y - X, Y + X) of (X, Y), wide. */
  function sumAndDifference(body: Body, xy: Limbs): Limbs {
    return xy.map((limb) => body.let(v128.fadd(v128.cross(limb, limb), v128.xor(limb, firstSign))));
  }

  /**
   * A = X^2, B = Y^2, S = (X + Y)^2, and with all signs turned, which changes nothing of the point:
   * H = A + B, G = A - B, E = H - S, F = G + 2 Z^2. What is inverted bit by bit lacks 1.
   */
  const double = module.define('double', 2, (body, point, n) => {
    const field = fieldOf(body);
    body.countDown(i32.sub(n, i32.const(1)), () => {
      const [xy, tz] = [field.load(point), field.load(point, pairBytes)];
      const sz = field.settle(
        xy.map((limb, i) =>
          body.let(v128.outer(v128.fadd(limb, v128.cross(limb, limb)), tz[i] ?? limb)),
        ),
      );
      const ab = field.square(xy);
      const squares = field.square(sz);
      const [low, high] = [constants.integers(-1n, 0n), constants.integers(0n, -1n)];
      const hg: Columns = ab.map((one) =>
        body.let(v128.add(v128.lows(one, one), v128.xor(v128.highs(one, one), high))),
      );
      const ef: Columns = hg.map((one, i) => {
        const square = squares[i] ?? one;
        const twice = v128.add(v128.xor(square, low), v128.and(square, high));
        return v128.add(one, twice);
      });
      finish(field, point, field.carry(ef, [1n, 1n]), field.carry(hg, [0n, 1n]));
    });
  });

  const negate = module.define('negate', 1, (body, point) => {
    const field = fieldOf(body);
    for (const offset of [0, pairBytes]) {
      const limbs = field.load(point, offset).map((limb) => v128.xor(limb, firstSign));
      field.store(point, offset, limbs);
    }
  });

  const [selected, running, temporary] = [0, 1, 2].map((i) =>
    i32.const(scratch + i * pointBytes),
  ) as [I32, I32, I32];

  const addRoutine = module.define('add', 3, (body, out, point, cached) =>
    add(body, fieldOf(body), out, point, cached),
  );
  const twiceD = constants.elements(2n * curveD, 2n);
  const cache = module.define('cache', 2, (body, out, point) => {
    const field = fieldOf(body);
    const first = field.settle(sumAndDifference(body, field.load(point)));
    field.store(out, pairBytes, field.product(field.load(point, pairBytes), twiceD));
    field.store(out, 0, first);
  });

  const build = module.define('build', 4, (body, tables, bases, windows, point) => {
    const last = body.let(i32.sub(bases, i32.const(1)));
    body.countDown(last, (left) => {
      const table = body.let(i32.add(tables, i32.mul(i32.sub(last, left), i32.const(tableBytes))));
      body.call(cache, table, point);
      body.call(addRoutine, running, point, table);
      body.countDown(i32.const(tableSize - 2), (after) => {
        const index = i32.sub(i32.const(tableSize - 1), after);
        const entry = body.let(i32.add(table, i32.mul(index, i32.const(pointBytes))));
        body.call(cache, entry, running);
        body.call(addRoutine, running, running, table);
      });
      // Not behind the last one.
      const isMore = i32.sub(i32.const(1), i32.isSame(left, i32.const(0)));
      body.call(double, point, i32.mul(isMore, i32.mul(windows, i32.const(windowBits))));
    });
  });

  /** Entry `digit` of a table into `selected`, by reading all of it: its address would tell the digit. */
  const select = module.define('select', 2, (body, table, digit) => {
    const sign = body.let(i32.shr(digit, 31));
    const size = body.let(v128.splat32(i32.sub(i32.xor(digit, sign), sign)));
    const isEntry = (entry: number): V128 => {
      const entries = constants.integers(BigInt(entry) * 0x1_0000_0001n);
      return body.let(v128.same32(size, entries));
    };
    // 0 is the neutral element: (1, 1), (0, 2).
    const isNeutral = isEntry(0);
    const found = Array.from({ length: 10 }, (_, i) => {
      const start = i === 0 ? constants.doubles(1) : constants.doubles(0, 2);
      return body.let(i % 5 === 0 ? v128.and(isNeutral, start) : constants.integers(0n));
    });
    for (let entry = 1; entry <= tableSize; entry++) {
      const isThis = isEntry(entry);
      found.forEach((limb, i) => {
        const read = body.load('v128', table, (entry - 1) * pointBytes + 16 * i);
        body.set(limb, v128.or(limb, v128.and(isThis, read)));
      });
    }
    // The opposite has its first two exchanged, and another sign of T.
    const isNegative = body.let(v128.splat32(sign));
    found.forEach((limb, i) => {
      const change =
        i < 5
          ? v128.and(isNegative, v128.xor(limb, v128.cross(limb, limb)))
          : v128.and(isNegative, firstSign);
      body.store(selected, 16 * i, v128.xor(limb, change));
    });
  });

  /**
   * The sum of digit[i windows + w] 16^w point[i], where tables[i] is of point[i]: for each w from above 16 times
   * what there is, and one entry of each table. Of one point with 64 digits that is a product; with the
   * tables of `build` four bases share all but 16 windows of doublings.
   */
  const defineWalk = (name: string, isPublic: boolean): Callable =>
    module.define(name, 5, (body, out, tables, bases, windows, digits) => {
      const field = fieldOf(body);
      field.store(out, 0, constants.elements(0n, 1n));
      field.store(out, pairBytes, constants.elements(0n, 1n));
      body.countDown(i32.sub(windows, i32.const(1)), (window) => {
        body.call(double, out, i32.const(windowBits));
        body.countDown(i32.sub(bases, i32.const(1)), (base) => {
          const at = i32.add(digits, i32.add(window, i32.mul(base, windows)));
          const digit = body.loadByte(at);
          const table = i32.add(tables, i32.mul(base, i32.const(tableBytes)));
          const addEntry = (): void => {
            body.call(select, table, digit);
            body.call(addRoutine, out, out, selected);
          };
          if (!isPublic) return addEntry();
          // Once, or not at all for 0.
          body.countDown(i32.sub(i32.const(0), i32.isSame(digit, i32.const(0))), addEntry);
        });
      });
    });
  const walk = defineWalk('walk', false);
  const walkPublic = defineWalk('walkPublic', true);

  const encode = module.define('encode', 3, (body, out, point, inverse) => {
    const field = fieldOf(body);
    const inverses = field.load(inverse).map((limb) => body.let(v128.highs(limb, limb)));
    field.store(temporary, 0, field.product(field.load(point), inverses));
    body.call(routines.freeze, temporary, temporary);
    const sign = i64.shl(body.load('i64', temporary), 63);
    for (const i of [0, 1, 2, 3]) {
      const word = body.load('i64', temporary, 32 + 8 * i);
      body.store(out, 8 * i, i === 3 ? i64.or(word, sign) : word);
    }
  });

  return {
    decode: defineDecode(module, constants, isFused, routines, scratch + 3 * pointBytes),
    encode,
    double,
    negate,
    build,
    walk,
    walkPublic,
  };
}
