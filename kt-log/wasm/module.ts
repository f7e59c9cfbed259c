/** The WebAssembly module of the curve: what is in it, where things are in its memory, and which kind runs here. */
import { i32, Module, v128 } from './assembler.ts';
import { Constants, pairBytes } from './field.ts';
import { defineField } from './field-routines.ts';
import { definePoints, pointBytes, tableBytes } from './point.ts';
import { defineScalars, digitCount } from './scalar.ts';
import { blockBytes, defineSha512, digestBytes, initialDigest, roundConstants } from './sha512.ts';

const bytesPerPage = 65_536;
const constantBytes = 4096;

/** Addresses one behind the other, from above 0, which is no address. */
function layOut<Name extends string>(
  sizes: readonly (readonly [Name, number])[],
): { readonly at: Readonly<Record<Name, number>>; readonly end: number } {
  let end = 64;
  const places: Partial<Record<Name, number>> = {};
  for (const [name, bytes] of sizes) {
    places[name] = end;
    end += Math.ceil(bytes / 16) * 16;
  }
  // Every name was given one.
  return { at: places as Record<Name, number>, end };
}

/** A table for each 256^i shares all but two windows of doublings. */
export const splitWindows = 2;
/** Tables of 256^i B for any scalar, and of 256^i Y for a challenge: 32 digits and a carry. */
export const baseTables = digitCount / splitWindows;
export const keyTables = 17;
/** Inputs of the VRF that are worked on together, and the points of each. */
export const batchMax = 8;
export const pointsPerInput = 5;
/** With two that are decoded. */
const pointSlots = 2 + batchMax * pointsPerInput;

/** What is hashed at a time: all of a label of 255 bytes, and what comes with it. */
export const messageBytes = 4 * blockBytes;

const layout = layOut([
  ['constants', constantBytes],
  ['rounds', 8 * 80],
  ['initialDigest', digestBytes],
  // Two strings, or two digests of which the first half is one.
  ['strings', 96],
  // The key's behind the base's: one walk goes through both.
  ['base', baseTables * tableBytes],
  ['key', keyTables * tableBytes],
  ['tables', 4 * tableBytes],
  ['encoded', pointSlots * 32],
  // All from here on depends on secrets.
  ['secret', 0],
  // And a block for the padding.
  ['message', messageBytes + blockBytes],
  ['fieldScratch', 5 * pairBytes],
  ['pointScratch', 3 * pointBytes + 7 * pairBytes],
  ['points', pointSlots * pointBytes],
  ['pairs', (pointSlots + 1) * pairBytes],
  ['wide', 64],
  ['challenge', 32],
  ['scalar', 32],
  ['nonces', batchMax * 32],
  ['digits', 2 * digitCount],
] as const);
export const { at } = layout;
export const memoryEnd = layout.end;

type Routine = (...parameters: readonly number[]) => number;
/** What the module exports and somebody calls; see the files that define them. */
export type CurveExports = Readonly<
  Record<
    | 'multiply'
    | 'squares'
    | 'invert'
    | 'power'
    | 'freeze'
    | 'thaw'
    | 'decode'
    | 'encode'
    | 'cache'
    | 'add'
    | 'double'
    | 'negate'
    | 'build'
    | 'walk'
    | 'walkPublic'
    | 'multiplyAdd'
    | 'digits'
    | 'negativeDigits'
    | 'sha512',
    Routine
  >
> & { readonly memory: WebAssembly.Memory };

/** How products are made: by a multiply-add that rounds once, or of halves where there is none. */
export type Arithmetic = 'fused' | 'plain';

export function curveModule(arithmetic: Arithmetic): Uint8Array<ArrayBuffer> {
  const isFused = arithmetic === 'fused';
  const module = new Module(Math.ceil(memoryEnd / bytesPerPage));
  const constants = new Constants(at.constants);
  const routines = defineField(module, constants, isFused, at.fieldScratch);
  definePoints(module, constants, isFused, routines, at.pointScratch);
  defineScalars(module);
  defineSha512(module, at.rounds);
  module.place(at.rounds, roundConstants());
  module.place(at.initialDigest, initialDigest());
  const { bytes } = constants;
  if (bytes.length > constantBytes) throw new TypeError('curve: no room for the constants');
  module.place(at.constants, bytes);
  return module.encoded();
}

/** Fused if engine and processor do that; undefined without vectors at all. */
export function arithmeticHere(): Arithmetic | undefined {
  // Node without a compiler (--jitless) has none.
  if (typeof WebAssembly === 'undefined') return undefined;
  const [a, c, out] = [64, 80, 96];
  const multiplyAdd = new Module(1);
  multiplyAdd.define('run', 0, (body) => {
    const base = i32.const(0);
    const factor = v128.at(a);
    body.store(base, out, v128.relaxedFma(factor, factor, v128.at(c)));
  });
  const bytes = multiplyAdd.encoded();
  if (WebAssembly.validate(bytes)) {
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes));
    const { memory, run } = exports as unknown as Probe;
    const doubles = new Float64Array(memory.buffer);
    // The square is 2^54 + 2^28 + 1; rounded before the sum it loses the 1.
    doubles.fill(2 ** 27 + 1, a / 8, a / 8 + 2).fill(-(2 ** 54), c / 8, c / 8 + 2);
    run();
    if (doubles[out / 8] === 2 ** 28 + 1) return 'fused';
  }
  const vectors = new Module(1);
  vectors.define('run', 0, (body) =>
    body.store(i32.const(0), out, v128.add(v128.at(a), v128.at(c))),
  );
  return WebAssembly.validate(vectors.encoded()) ? 'plain' : undefined;
}
interface Probe {
  readonly memory: WebAssembly.Memory;
  readonly run: () => void;
}
