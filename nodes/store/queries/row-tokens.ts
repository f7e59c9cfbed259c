/** Delivery tokens beside the devices of an outbox row: 16 bytes for each, zeros for none. */
import { deliveryTokenBytes } from '@quicprochat/proto';
import { needBytes } from '../bounds.ts';

/** For the row; undefined when no device has one. Throws InvalidArgumentError on a wrong length. */
export function joinTokens(tokens: readonly (Uint8Array | undefined)[]): Uint8Array | undefined {
  const none = new Uint8Array(deliveryTokenBytes);
  let isAny = false;
  const padded = tokens.map((token) => {
    if (token === undefined || token.length === 0) return none;
    needBytes(token, deliveryTokenBytes, 'token');
    isAny = true;
    return token;
  });
  return isAny ? Buffer.concat(padded) : undefined;
}

/** For each device its token; empty for none. */
export function splitTokens(tokens: Uint8Array): Uint8Array[] {
  return Array.from({ length: tokens.length / deliveryTokenBytes }, (_, index) => {
    const token = tokens.subarray(index * deliveryTokenBytes, (index + 1) * deliveryTokenBytes);
    return token.some((byte) => byte !== 0) ? token : new Uint8Array(0);
  });
}
