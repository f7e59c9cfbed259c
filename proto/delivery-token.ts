/**
 * Delivery tokens: 16 random bytes that a device hands to those who may write to it freely. Its node
 * stores hashes only, and learns from a token that the sender is no stranger, not who it is.
 */
import { createHash } from 'node:crypto';

export const deliveryTokenBytes = 16;
/** Tokens of one inbox in force at the same time. */
export const maxDeliveryTokens = 8;
/** The token in force as one device finds it that had an earlier one, and all of them at a node (bytes). */
export const renewalBytes = 48;
export const maxRenewalsBytes = 1_024 * renewalBytes;

/** What the node stores (32 bytes): SHA-256("qpc/token/1" || 0x00 || token). */
export function deliveryTokenHash(token: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update('qpc/token/1\0').update(token).digest());
}
