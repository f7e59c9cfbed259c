/**
 * The hash chain of a relay stream, by which sender and receiver see that they mean the same rows
 * (docs: protocol/federation): chain_n = first 16 bytes of SHA-256(chain_(n-1) || tag_n).
 */
import { createHash } from 'node:crypto';

export const chainBytes = 16;

/** Chain value (16 bytes) after a row with this tag. */
export function nextChain(chain: Uint8Array, tag: Uint8Array): Uint8Array {
  const digest = createHash('sha256').update(chain).update(tag).digest();
  return new Uint8Array(digest.subarray(0, chainBytes));
}

/** chain_0: zeros. */
export function emptyChain(): Uint8Array {
  return new Uint8Array(chainBytes);
}
