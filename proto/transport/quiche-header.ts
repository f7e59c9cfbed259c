/**
 * The part of QUIC packet headers that is the same in every version and that routing needs
 * (RFC 8999, RFC 9000 section 17.2). Pure; refuses what is too short, throws nothing.
 */
import { connectionIdBytes } from './quiche-native.ts';

/** QUIC version 1 (RFC 9000). */
export const version1 = 1;
/** Connection ids of version 1 have at most 20 bytes; a client's first one has at least 8. */
const maxConnectionIdBytes = 20;

export interface LongHeader {
  readonly version: number;
  readonly destinationId: Uint8Array;
  readonly sourceId: Uint8Array;
  /** Set for an Initial packet of version 1; empty when the client has none yet. */
  readonly token: Uint8Array | undefined;
}

/** The key under which a connection id is routed. */
export function routeKey(connectionId: Uint8Array): string {
  return Buffer.from(
    connectionId.buffer,
    connectionId.byteOffset,
    connectionId.byteLength,
  ).toString('latin1');
}

/** The route of a datagram's first packet, or undefined when it cannot be one of ours. */
export function routeOf(data: Buffer): string | undefined {
  const first = data[0];
  if (first === undefined) return undefined;
  if ((first & 0x80) === 0) {
    return data.length > connectionIdBytes
      ? data.toString('latin1', 1, 1 + connectionIdBytes)
      : undefined;
  }
  const length = data[5];
  if (length === undefined || 6 + length > data.length) return undefined;
  return data.toString('latin1', 6, 6 + length);
}

/** Whether a datagram's first packet names the connection id. */
export function isTo(connectionId: Uint8Array, data: Uint8Array): boolean {
  const isShort = ((data[0] ?? 0) & 0x80) === 0;
  if (!isShort && data[5] !== connectionId.length) return false;
  const start = isShort ? 1 : 6;
  // One that is too short has an undefined byte there.
  for (let index = 0; index < connectionId.length; index += 1) {
    if (data[start + index] !== connectionId[index]) return false;
  }
  return true;
}

/** The long header of a datagram, or undefined: a short one, or not well formed. */
export function parseLongHeader(data: Buffer): LongHeader | undefined {
  if (data.length < 7 || ((data[0] ?? 0) & 0x80) === 0) return undefined;
  const version = data.readUInt32BE(1);
  const destinationLength = data[5] ?? 0;
  const sourceAt = 6 + destinationLength;
  const sourceLength = data[sourceAt];
  if (sourceLength === undefined) return undefined;
  const end = sourceAt + 1 + sourceLength;
  if (end > data.length) return undefined;
  const destinationId = data.subarray(6, sourceAt);
  const sourceId = data.subarray(sourceAt + 1, end);
  if (version !== version1) return { version, destinationId, sourceId, token: undefined };
  if (Math.max(destinationLength, sourceLength) > maxConnectionIdBytes) return undefined;
  const isInitial = ((data[0] ?? 0) & 0x70) === 0x40;
  return { version, destinationId, sourceId, token: isInitial ? tokenAt(data, end) : undefined };
}

/** The token behind its variable-length integer (RFC 9000 section 16). */
function tokenAt(data: Buffer, at: number): Uint8Array | undefined {
  const first = data[at];
  if (first === undefined) return undefined;
  const lengthBytes = 1 << (first >> 6);
  if (at + lengthBytes > data.length) return undefined;
  let length = first & 0x3f;
  for (let index = 1; index < lengthBytes; index += 1) {
    length = length * 256 + (data[at + index] ?? 0);
  }
  const start = at + lengthBytes;
  return start + length <= data.length ? data.subarray(start, start + length) : undefined;
}
