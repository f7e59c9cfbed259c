/**
 * The lengths to which things are padded before they are sealed: multiples of 256 bytes up to
 * 4 KiB, PADME above (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
 * Communication with PURBs", 2019, section 4). Only arithmetic; who pads says with what.
 */
import assert from 'node:assert/strict';

const stepBytes = 256;
const stepUntilBytes = 4096;

/** The smallest length of the ladder that is at least `length` (bytes, at most 2^31 - 1). */
export function paddedLength(length: number): number {
  assert(Number.isInteger(length) && length >= 0 && length < 2 ** 31, 'padding: no length');
  if (length <= stepUntilBytes) return Math.max(roundUp(length, stepBytes), stepBytes);
  return padme(length);
}

/** The next multiple of `step` (a power of two) at or above `length`. */
export function roundUp(length: number, step: number): number {
  return Math.ceil(length / step) * step;
}

/**
 * PADME: keeps floor(log2 log2 L) + 1 leading bits of a length and rounds up, so that lengths
 * leak O(log log L) bits and grow by at most 12 %.
 */
function padme(length: number): number {
  const exponent = Math.floor(Math.log2(length));
  const keptBits = Math.floor(Math.log2(exponent)) + 1;
  return roundUp(length, 2 ** (exponent - keptBits));
}
