/**
 * Ascending numbers in few bytes: the difference of each to the one before, in LEB128 (seven bits a
 * byte, lowest first, the high bit says that more follow).
 */

/** Throws TypeError unless the numbers are integers from 0 to 2^53 - 1 that never descend. */
export function encodeDeltas(numbers: readonly number[]): Uint8Array {
  const bytes: number[] = [];
  let before = 0;
  for (const number of numbers) {
    if (!Number.isSafeInteger(number) || number < before) {
      throw new TypeError(`deltas: ${number} after ${before}`);
    }
    let rest = number - before;
    while (rest > 127) {
      // Beyond 2^31 no bit operation would do.
      bytes.push((rest % 128) + 128);
      rest = Math.floor(rest / 128);
    }
    bytes.push(rest);
    before = number;
  }
  return Uint8Array.from(bytes);
}

/** Inverse of `encodeDeltas`. Throws Error for bytes that it did not make. */
export function decodeDeltas(bytes: Uint8Array): number[] {
  const numbers: number[] = [];
  let before = 0;
  let factor = 1;
  let delta = 0;
  for (const byte of bytes) {
    delta += (byte & 127) * factor;
    if (byte > 127) {
      factor *= 128;
      continue;
    }
    before += delta;
    if (!Number.isSafeInteger(before)) throw new Error('deltas: a number out of bounds');
    numbers.push(before);
    factor = 1;
    delta = 0;
  }
  if (factor !== 1) throw new Error('deltas: cut off');
  return numbers;
}
