/** Points in WebAssembly: their formulas at the bounds of limbs, decoding, and products against noble's. */
import { ed25519 } from '@noble/curves/ed25519.js';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { curveD } from './decode.ts';
import { digits, slot, table } from './curve.ts';
import { pairBytes, prime } from './field.ts';
import { at, baseTables, splitWindows } from './module.ts';
import { digitCount, order } from './scalar.ts';
import {
  arithmetics,
  encodingsOf,
  getLimbs,
  limbsAtBounds,
  numberOf,
  putLimbs,
  reduced,
} from './test-curve.ts';

const Point = ed25519.Point;
type Point = InstanceType<typeof Point>;
const modulo = (value: bigint): bigint => ((value % prime) + prime) % prime;
const bytesOf = (value: bigint): Uint8Array =>
  Uint8Array.from(Buffer.from(value.toString(16).padStart(64, '0'), 'hex').reverse());
const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 });

/** A point of order 8, all of small order, and encodings of p and more, with either sign bit. */
const torsion = Point.fromHex('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a');
const small = Array.from({ length: 8 }, (_, i) =>
  i === 0 ? Point.ZERO : torsion.multiplyUnsafe(BigInt(i)),
);
const odd = [
  ...small.map((point) => point.toBytes()),
  ...[prime - 1n, prime, prime + 1n, prime + 3n, 2n ** 255n - 1n].map(bytesOf),
].flatMap((bytes) => {
  const flipped = bytes.slice();
  flipped[31] = (flipped[31] ?? 0) ^ 0x80;
  return [bytes, flipped];
});
const scalars = [0n, 1n, 7n, 8n, 9n, 15n, 16n, order - 1n, order, 2n ** 253n, 2n ** 254n - 1n];
/** All digits 7, or -8 and 1 above them. */
scalars.push(BigInt(`0x${'7'.repeat(63)}`), BigInt(`0x${'8'.repeat(63)}`));

function nobleDecode(bytes: Uint8Array): Point | undefined {
  try {
    return Point.fromBytes(bytes, false);
  } catch {
    return undefined;
  }
}

for (const { name, curve } of arithmetics) {
  const { run, memory } = curve;
  type Coordinates = readonly number[][];
  const coordinates = fc.array(limbsAtBounds(reduced), { minLength: 4, maxLength: 4 });
  /** X, Y, T, Z, as they stand in memory. */
  const put = (number: number, values: Coordinates): void =>
    values.forEach((limbs, i) =>
      putLimbs(memory, slot(number) + (i >> 1) * pairBytes, i & 1, limbs),
    );
  const get = (address: number): bigint[] =>
    [0, 1, 2, 3].map((i) => {
      const limbs = getLimbs(memory, address + (i >> 1) * pairBytes, i & 1);
      for (const limb of limbs) assert.ok(Math.abs(limb) <= reduced, `${limb}`);
      return modulo(numberOf(limbs));
    });

  test(`${name}: sums and doublings are their formulas for any coordinates within the bounds`, () => {
    fc.assert(
      fc.property(coordinates, coordinates, (first, second) => {
        put(0, first);
        put(1, second);
        run.cache(slot(2), slot(1));
        const [x1 = 0n, y1 = 0n, t1 = 0n, z1 = 0n] = first.map(numberOf);
        const [x2 = 0n, y2 = 0n, t2 = 0n, z2 = 0n] = second.map(numberOf);
        const cached = [y2 - x2, y2 + x2, 2n * curveD * t2, 2n * z2].map(modulo);
        assert.deepEqual(get(slot(2)), cached);
        run.add(slot(3), slot(0), slot(2));
        const finish = (e: bigint, f: bigint, g: bigint, h: bigint): bigint[] =>
          [e * f, g * h, e * h, f * g].map(modulo);
        const [a, b] = [(y1 - x1) * (y2 - x2), (y1 + x1) * (y2 + x2)];
        const [c, d] = [2n * curveD * t1 * t2, 2n * z1 * z2];
        assert.deepEqual(get(slot(3)), finish(b - a, d - c, d + c, b + a));
        run.double(slot(0), 1);
        const [xx, yy, zz] = [x1 * x1, y1 * y1, z1 * z1];
        const e = (x1 + y1) ** 2n - xx - yy;
        assert.deepEqual(get(slot(0)), finish(e, yy - xx - 2n * zz, yy - xx, -xx - yy));
      }),
      { numRuns: 200 },
    );
  });

  test(`${name}: a string is a point exactly if it is one to noble, and comes back`, () => {
    const strings = fc.oneof(fc.constantFrom(...odd), bytes32);
    fc.assert(
      fc.property(strings, strings, (first, second) => {
        const which = curve.decode(first, second);
        for (const [lane, bytes] of [first, second].entries()) {
          const isPoint = ((which >> lane) & 1) === 1;
          assert.equal(
            isPoint,
            nobleDecode(bytes) !== undefined,
            Buffer.from(bytes).toString('hex'),
          );
          if (isPoint) assert.deepEqual(encodingsOf(curve, lane)[0], bytes);
        }
      }),
      { numRuns: 150 },
    );
  });

  const points = fc
    .tuple(fc.nat({ max: 7 }), fc.oneof(fc.constant(0n), fc.bigInt({ min: 1n, max: order - 1n })))
    .map(([times, scalar]) => {
      const part = scalar === 0n ? Point.ZERO : Point.BASE.multiplyUnsafe(scalar);
      return part.add(small[times] ?? Point.ZERO);
    });
  const anyScalar = fc.oneof(
    fc.constantFrom(...scalars),
    fc.bigInt({ min: 0n, max: 2n ** 254n - 1n }),
  );
  const setDigits = (number: number, scalar: bigint): void => {
    memory.set(bytesOf(scalar), at.scalar);
    run.digits(digits(number), at.scalar);
  };
  /** noble takes scalars below the order only, which are others for a point off the subgroup. */
  const product = (scalar: bigint, point: Point): Point => {
    const [quotient, rest] = [scalar / order, scalar % order];
    const whole = point.multiplyUnsafe(order - 1n).add(point);
    const times = (n: bigint, of: Point): Point => (n === 0n ? Point.ZERO : of.multiplyUnsafe(n));
    return times(quotient, whole).add(times(rest, point));
  };

  test(`${name}: products are noble's for any point of the curve, however they are shared`, () => {
    fc.assert(
      fc.property(points, anyScalar, fc.constantFrom(1, 2, 4), (point, scalar, bases) => {
        curve.decode(point.toBytes(), point.toBytes());
        setDigits(0, scalar);
        const windows = digitCount / bases;
        run.build(table(0), bases, windows, slot(0));
        run.walk(slot(2), table(0), bases, windows, digits(0));
        run.walkPublic(slot(3), table(0), bases, windows, digits(0));
        run.negativeDigits(digits(0), at.scalar);
        run.walk(slot(4), table(0), bases, windows, digits(0));
        const expected = product(scalar, point);
        const encoded = [expected, expected, expected.negate()].map((one) => one.toBytes());
        assert.deepEqual(encodingsOf(curve, 2, 3, 4), encoded);
        run.negate(slot(4));
        assert.deepEqual(encodingsOf(curve, 4), [encoded[0]]);
      }),
      { numRuns: 40 },
    );
  });

  test(`${name}: multiples of the base point, and sums of two products`, () => {
    fc.assert(
      fc.property(points, anyScalar, anyScalar, (point, first, second) => {
        setDigits(0, first);
        setDigits(1, second);
        run.walk(slot(2), at.base, baseTables, splitWindows, digits(0));
        const base = Point.BASE;
        curve.decode(base.toBytes(), point.toBytes());
        run.build(table(0), 1, digitCount, slot(0));
        run.build(table(1), 1, digitCount, slot(1));
        run.walkPublic(slot(3), table(0), 2, digitCount, digits(0));
        const expected = product(first, base);
        const sum = expected.add(product(second, point));
        assert.deepEqual(encodingsOf(curve, 2, 3), [expected.toBytes(), sum.toBytes()]);
      }),
      { numRuns: 30 },
    );
  });

  test(`${name}: points of small order are seen, and doublings go on for as long as they should`, () => {
    for (const [i, point] of small.entries()) {
      curve.decode(point.toBytes(), Point.BASE.toBytes());
      assert.equal(curve.hasZeroX(0), i % 4 === 0);
      assert.equal(curve.hasZeroX(1), false);
      run.double(slot(0), 3);
      assert.equal(curve.hasZeroX(0), true);
    }
    curve.decode(Point.BASE.toBytes(), Point.BASE.toBytes());
    run.double(slot(0), 200);
    run.double(slot(1), 0);
    const expected = Point.BASE.multiplyUnsafe(2n ** 200n % order);
    assert.deepEqual(encodingsOf(curve, 0, 1), [expected.toBytes(), Point.BASE.toBytes()]);
  });
}
