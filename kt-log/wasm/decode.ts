/**
 * The way from 32 bytes to a point (RFC 8032 section 5.1.3), two strings at once, since the one square root
 * that each takes is a power whose products come in pairs anyway. Which strings are points is for
 * everybody to see: candidates of the hash to the curve and parts of proofs are public.
 */
import type { Callable, I32, I64, Module, V128 } from './assembler.ts';
import { i32, i64, v128 } from './assembler.ts';
import type { Constants, Limbs } from './field.ts';
import { Field, pairBytes, powerModulo, prime } from './field.ts';
import type { FieldRoutines } from './field-routines.ts';

/** RFC 8032 section 5.1. */
export const curveD = -121665n * powerModulo(121666n, prime - 2n);
const rootOfMinusOne = powerModulo(2n, (prime - 1n) / 4n);

/**
 * `(points, strings) -> which`: two points, of section `points.ts`, and bit i set if string i is one.
 * `scratch`: room for seven pairs.
 */
export function defineDecode(
  module: Module,
  constants: Constants,
  isFused: boolean,
  routines: FieldRoutines,
  scratch: number,
): Callable {
  const rooms = [0, 1, 2, 3, 4, 5, 6].map((i) => i32.const(scratch + i * pairBytes));
  const [y, u, v, uv3, root, check, t] = rooms as [I32, I32, I32, I32, I32, I32, I32];

  return module.define('decode', 2, (body, points, strings) => {
    const field = new Field(body, constants, isFused);
    const times = (out: I32, a: I32, b: I32): void => body.call(routines.multiply, out, a, b);
    const one = constants.elements(1n, 1n);
    body.call(routines.thaw, y, strings);
    times(u, y, y);
    // x^2 = u / v = (y^2 - 1) / (d y^2 + 1).
    const yy = field.load(u);
    const dyy = field.product(yy, constants.elements(curveD, curveD));
    field.store(u, 0, field.settle(field.subtract(yy, one)));
    field.store(v, 0, field.settle(field.add(dyy, one)));
    // x = u v^3 (u v^7)^((p - 5) / 8), or that times a root of -1.
    times(t, v, v);
    times(t, t, v);
    times(uv3, u, t);
    times(t, uv3, t);
    times(t, t, v);
    body.call(routines.power, t, t);
    times(root, t, uv3);
    times(check, root, root);
    times(check, check, v);
    const [checked, wanted] = [field.load(check), field.load(u)];
    /** The canonical bytes of a pair, in four words to a lane; into `check`, which is done with. */
    const wordsOf = (pair: I32): I64[][] => {
      body.call(routines.freeze, check, pair);
      return [0, 32].map((from) =>
        [0, 8, 16, 24].map((offset) => body.load('i64', check, from + offset)),
      );
    };
    const areZero = (limbs: Limbs): I32[] => {
      field.store(t, 0, field.settle(limbs));
      return wordsOf(t).map((words) => body.let(i32.isZero(words.reduce(i64.or))));
    };
    const isDirect = areZero(field.subtract(checked, wanted));
    const isTurned = areZero(field.add(checked, wanted));
    const keep = pairOf(isDirect.map((is) => i64.sub(i64.const(0n), i64.extend(is))));
    const isKept = body.let(keep);
    const direct = field.load(root);
    const turned = field.product(direct, constants.elements(rootOfMinusOne, rootOfMinusOne));
    const either = turned.map((limb, i) => {
      const change = v128.and(isKept, v128.xor(limb, direct[i] ?? limb));
      return body.let(v128.xor(limb, change));
    });
    field.store(root, 0, either);
    const [xs, ys] = [wordsOf(root), wordsOf(y)];
    let which = i32.const(0);
    const flips = xs.map((x, lane) => {
      const given = [0, 8, 16, 24].map((offset) => body.load('i64', strings, 32 * lane + offset));
      const [x0, last] = [x[0], given[3]];
      if (!x0 || !last) throw new TypeError('decode: four words');
      const sign = body.let(i64.ushr(last, 63));
      // What the string has beside the sign and a number below p.
      const excess = (ys[lane] ?? []).map((word, i) => i64.xor(word, given[i] ?? word));
      excess[3] = i64.shl(excess[3] ?? last, 1);
      // x = 0 has no sign.
      const isBare = i32.and(i32.isZero(x.reduce(i64.or)), i32.of(sign));
      const isRoot = i32.or(isDirect[lane] ?? which, isTurned[lane] ?? which);
      const isCanonical = i32.isZero(excess.reduce(i64.or));
      const isPoint = i32.and(i32.and(isRoot, isCanonical), i32.xor(isBare, i32.const(1)));
      which = body.let(i32.or(which, i32.shl(isPoint, lane)));
      return i64.shl(i64.xor(sign, x0), 63);
    });
    const flip = body.let(pairOf(flips));
    const x = either.map((limb) => body.let(v128.xor(limb, flip)));
    const yLimbs = field.load(y);
    const xy = field.product(x, yLimbs);
    for (const [lane, pick] of [v128.lows, v128.highs].entries()) {
      const at = 2 * lane * pairBytes;
      field.store(
        points,
        at,
        x.map((limb, i) => pick(limb, yLimbs[i] ?? limb)),
      );
      field.store(
        points,
        at + pairBytes,
        xy.map((limb, i) => pick(limb, one[i] ?? limb)),
      );
    }
    return which;
  });
}

function pairOf([first, second]: readonly I64[]): V128 {
  return v128.pair(first ?? i64.const(0n), second ?? i64.const(0n));
}
