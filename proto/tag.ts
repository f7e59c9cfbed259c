/**
 * The tag by which every hop recognises one ciphertext: 16 bytes of
 * SHA-256("qpc-tag" || mid || payload). It binds the sender's id to the bytes, so that somebody
 * who saw a `mid` cannot occupy it with junk.
 */
import { createHash } from 'node:crypto';

export const tagBytes = 16;
export const midBytes = 16;

/** Tag (16 bytes) of a message id (16 bytes) and its payload. */
export function messageTag(mid: Uint8Array, payload: Uint8Array): Uint8Array {
  const digest = createHash('sha256').update('qpc-tag').update(mid).update(payload).digest();
  return new Uint8Array(digest.subarray(0, tagBytes));
}
