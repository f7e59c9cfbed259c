/**
 * Records of the `tls` engine: what makes streams out of one TLS connection (docs/protocol/wire.md).
 * `stream_id u32 · type u8 · length u24 · payload`, big-endian. Pure codec, no streams.
 */
import { TransportError } from '../status.ts';

/** Numbers of the wire. */
export const RecordType = {
  /** Bytes of a stream. */
  Data: 0,
  /** Its last bytes. */
  End: 1,
  /** The sender gives its direction up: code u8. */
  Reset: 2,
  /** The receiver wants no more: code u8. */
  Stop: 3,
  /** The peer may send so many bytes more: u32. */
  Credit: 4,
  /** Streams of the kind that the peer may have opened in all: u32. */
  Streams: 5,
  /** End of the connection: code u32, reason in UTF-8. */
  Close: 6,
  Ping: 7,
  Pong: 8,
} as const;

/** Stands in the place of a stream id for what concerns the whole connection. */
export const connectionId = 0xffff_ffff;
/** Ids of streams as in QUIC (RFC 9000 section 2.1): who opened it, and whether it runs one way. */
export const listenerBit = 1;
export const pushBit = 2;
export const idStep = 4;

export const recordHeaderBytes = 8;
/** Largest payload of one record (bytes): so long a call may wait behind a blob's piece. */
export const maxRecordBytes = 16 * 1024;
/** Longest reason of a close (bytes). */
export const maxReasonBytes = 256;

export interface StreamRecord {
  readonly id: number;
  readonly type: number;
  /** Part of the memory that was parsed. */
  readonly payload: Uint8Array;
}

/** The header of a record with so many bytes behind it. */
export function recordHeader(id: number, type: number, length: number): Buffer {
  const header = Buffer.allocUnsafe(recordHeaderBytes);
  header.writeUInt32BE(id, 0);
  header.writeUInt32BE(((type << 24) | length) >>> 0, 4);
  return header;
}

/** A record whose payload is one number of 1 or 4 bytes, or nothing. */
export function numberRecord(id: number, type: number, value = 0, bytes: 0 | 1 | 4 = 4): Buffer {
  const record = Buffer.alloc(recordHeaderBytes + bytes);
  recordHeader(id, type, bytes).copy(record);
  if (bytes > 0) record.writeUIntBE(value, recordHeaderBytes, bytes);
  return record;
}

export function closeRecord(code: number, reason: string): Buffer {
  const text = Buffer.from(reason, 'utf8').subarray(0, maxReasonBytes);
  const payload = Buffer.alloc(4 + text.length);
  payload.writeUInt32BE(code);
  text.copy(payload, 4);
  return Buffer.concat([recordHeader(connectionId, RecordType.Close, payload.length), payload]);
}

/** Lengths that a payload may have, by type. */
const lengths: readonly (readonly [min: number, max: number])[] = [
  [0, maxRecordBytes],
  [0, maxRecordBytes],
  [1, 1],
  [1, 1],
  [4, 4],
  [4, 4],
  [4, 4 + maxReasonBytes],
  [0, 0],
  [0, 0],
];

/** Cuts incoming bytes, split anywhere, into records. Holds less than one record between calls. */
export class RecordParser {
  #rest: Buffer = Buffer.alloc(0);

  /**
   * Calls back for each record that is complete. Throws TransportError `protocol` for an unknown type
   * or a length out of bounds, as soon as its header is here.
   */
  push(chunk: Buffer, onRecord: (record: StreamRecord) => void): void {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (bytes.length >= recordHeaderBytes) {
      const id = bytes.readUInt32BE(0);
      const type = bytes.readUInt8(4);
      const length = bytes.readUIntBE(5, 3);
      const [min, max] = lengths[type] ?? [1, 0];
      if (length < min || length > max) {
        throw new TransportError('protocol', `record: ${length} bytes in one of type ${type}`);
      }
      const end = recordHeaderBytes + length;
      if (bytes.length < end) break;
      const payload = bytes.subarray(recordHeaderBytes, end);
      bytes = bytes.subarray(end);
      onRecord({ id, type, payload });
    }
    // A copy: a few bytes must not hold on to the memory of a whole chunk.
    this.#rest = bytes.length === 0 ? bytes : Buffer.from(bytes);
  }
}
