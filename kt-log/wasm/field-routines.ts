/** Field arithmetic as functions over memory: products, powers, inverses, each of a pair of elements. */
import type { Callable, I32, I64, Module } from './assembler.ts';
import { i32 } from './assembler.ts';
import type { Constants } from './field.ts';
import { Field, pairBytes } from './field.ts';

export interface FieldRoutines {
  /** `(out, a, b)`; any of them may be the same, as everywhere here. */
  readonly multiply: Callable;
  /** `(out, a)`: 1/a; 0 of 0. */
  readonly invert: Callable;
  /** `(out, a)`: a^(2^252 - 3), of which a square root is made (RFC 8032 section 5.1.3). */
  readonly power: Callable;
  /** `(out, a)`: both numbers as 32 bytes, below p. */
  readonly freeze: Callable;
  /** `(out, a)`: two times 32 bytes, of which the highest bit is left out. */
  readonly thaw: Callable;
}

/** `scratch`: room for four pairs. Operands are reduced, results too. */
export function defineField(
  module: Module,
  constants: Constants,
  isFused: boolean,
  scratch: number,
): FieldRoutines {
  const multiply = module.define('multiply', 3, (body, out, a, b) => {
    const field = new Field(body, constants, isFused);
    field.store(out, 0, field.product(field.load(a), field.load(b)));
  });

  /** `(out, a, n)`: a^(2^n), n from 1. */
  const squares = module.define('squares', 3, (body, out, a, n) => {
    const field = new Field(body, constants, isFused);
    const limbs = field.load(a);
    body.countDown(i32.sub(n, i32.const(1)), () => {
      const next = field.carry(field.square(limbs));
      limbs.forEach((limb, i) => body.set(limb, next[i] ?? limb));
    });
    field.store(out, 0, limbs);
  });

  const [z, eleven, t, u] = [0, 1, 2, 3].map((i) => i32.const(scratch + i * pairBytes)) as [
    I32,
    I32,
    I32,
    I32,
  ];
  /** z^(2^250 - 1) into t, with z and z^11 beside it. */
  const power250 = module.define('power250', 1, (body, a) => {
    const field = new Field(body, constants, isFused);
    field.store(z, 0, field.load(a));
    const square = (out: I32, of: I32, n: number): void =>
      body.call(squares, out, of, i32.const(n));
    const times = (out: I32, one: I32, other: I32): void => body.call(multiply, out, one, other);
    square(t, z, 1);
    square(u, t, 2);
    times(u, u, z);
    times(eleven, u, t);
    square(t, eleven, 1);
    // z^31, and so on: u holds z^(2^n - 1) while t is made of it.
    times(u, t, u);
    square(t, u, 5);
    times(u, t, u);
    // z^(2^10 - 1) is needed twice.
    const ten = i32.const(scratch + 4 * pairBytes);
    field.store(ten, 0, field.load(u));
    square(t, u, 10);
    times(u, t, u);
    square(t, u, 20);
    times(u, t, u);
    square(t, u, 10);
    times(u, t, ten);
    const fifty = ten;
    field.store(fifty, 0, field.load(u));
    square(t, u, 50);
    times(u, t, u);
    square(t, u, 100);
    times(u, t, u);
    square(t, u, 50);
    times(t, t, fifty);
  });

  const invert = module.define('invert', 2, (body, out, a) => {
    body.call(power250, a);
    body.call(squares, t, t, i32.const(5));
    body.call(multiply, out, t, eleven);
  });
  const power = module.define('power', 2, (body, out, a) => {
    body.call(power250, a);
    body.call(squares, t, t, i32.const(2));
    body.call(multiply, out, t, z);
  });
  const freeze = module.define('freeze', 2, (body, out, a) => {
    const field = new Field(body, constants, isFused);
    const limbs = field.load(a);
    for (const lane of [0, 1] as const) {
      const words = field.toWords(limbs, lane);
      words.forEach((word, i) => body.store(out, 32 * lane + 8 * i, word));
    }
  });
  const thaw = module.define('thaw', 2, (body, out, a) => {
    const field = new Field(body, constants, isFused);
    const words = (from: number): I64[] =>
      [0, 8, 16, 24].map((offset) => body.load('i64', a, from + offset));
    field.store(out, 0, field.fromWords(words(0), words(32)));
  });
  return { multiply, invert, power, freeze, thaw };
}
