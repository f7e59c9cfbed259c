/**
 * The frames of the wire (big-endian) and an incremental parser for them. Pure: no I/O, no time.
 * A payload's length is checked against its bound before anything is allocated for it.
 */
import { TransportError } from './status.ts';

/** `method_id u16 · request_id u32 · payload_len u32 · protobuf` */
export interface RequestFrame {
  readonly methodId: number;
  readonly requestId: number;
  readonly payload: Uint8Array;
}
/** `status u8 · request_id u32 · payload_len u32 · protobuf` */
export interface ResponseFrame {
  readonly status: number;
  readonly requestId: number;
  readonly payload: Uint8Array;
}
/** `event_type u16 · payload_len u32 · protobuf` */
export interface PushFrame {
  readonly eventType: number;
  readonly payload: Uint8Array;
}

export const requestHeaderBytes = 10;
export const responseHeaderBytes = 9;
export const pushHeaderBytes = 6;

/** Bound of a payload unless the method's row says otherwise (bytes). */
export const defaultMaxPayloadBytes = 1024 * 1024;
/** No row may exceed this (bytes). */
export const hardMaxPayloadBytes = 4 * 1024 * 1024;

/** Small frames share memory: one of its own costs more than all else that a small frame needs. */
const sharedBytes = 64 * 1024;
const smallFrameBytes = 4 * 1024;
let shared = new Uint8Array(0);
let sharedUsed = 0;

function room(length: number): Uint8Array<ArrayBuffer> {
  if (length > smallFrameBytes) return new Uint8Array(length);
  if (sharedUsed + length > shared.length) {
    shared = new Uint8Array(sharedBytes);
    sharedUsed = 0;
  }
  sharedUsed += length;
  return shared.subarray(sharedUsed - length, sharedUsed);
}

function frame(headerBytes: number, payload: Uint8Array): [Uint8Array<ArrayBuffer>, DataView] {
  const out = room(headerBytes + payload.length);
  out.set(payload, headerBytes);
  const view = new DataView(out.buffer, out.byteOffset, headerBytes);
  view.setUint32(headerBytes - 4, payload.length);
  return [out, view];
}

export function encodeRequest(request: RequestFrame): Uint8Array<ArrayBuffer> {
  const [out, view] = frame(requestHeaderBytes, request.payload);
  view.setUint16(0, request.methodId);
  view.setUint32(2, request.requestId);
  return out;
}

export function encodeResponse(response: ResponseFrame): Uint8Array<ArrayBuffer> {
  const [out, view] = frame(responseHeaderBytes, response.payload);
  view.setUint8(0, response.status);
  view.setUint32(1, response.requestId);
  return out;
}

export function encodePush(push: PushFrame): Uint8Array<ArrayBuffer> {
  const [out, view] = frame(pushHeaderBytes, push.payload);
  view.setUint16(0, push.eventType);
  return out;
}

/** How one kind of frame reads its header. */
export interface FrameFormat<F> {
  readonly headerBytes: number;
  /** Bound of the payload, from the header alone. */
  readonly maxPayloadBytes: (header: DataView) => number;
  readonly make: (header: DataView, payload: Uint8Array) => F;
}

/** Requests; `maxPayloadBytes` is asked with the method id. */
export function requestFormat(
  maxPayloadBytes: (methodId: number) => number,
): FrameFormat<RequestFrame> {
  return {
    headerBytes: requestHeaderBytes,
    maxPayloadBytes: (header) => maxPayloadBytes(header.getUint16(0)),
    make: (header, payload) => ({
      methodId: header.getUint16(0),
      requestId: header.getUint32(2),
      payload,
    }),
  };
}

export function responseFormat(maxPayloadBytes: number): FrameFormat<ResponseFrame> {
  return {
    headerBytes: responseHeaderBytes,
    maxPayloadBytes: () => maxPayloadBytes,
    make: (header, payload) => ({
      status: header.getUint8(0),
      requestId: header.getUint32(1),
      payload,
    }),
  };
}

export function pushFormat(maxPayloadBytes: number): FrameFormat<PushFrame> {
  return {
    headerBytes: pushHeaderBytes,
    maxPayloadBytes: () => maxPayloadBytes,
    make: (header, payload) => ({ eventType: header.getUint16(0), payload }),
  };
}

const none = new Uint8Array(0);
/** First allocation for a payload; it doubles as bytes really arrive. */
const firstAllocationBytes = 16 * 1024;

/**
 * Incremental parser: chunks may split anywhere, inside the header too. `push` returns the frames
 * that the chunk completed. Throws TransportError `protocol` on a length above the bound, after
 * which the parser must not be used. Memory grows with the bytes that arrived, never with the
 * length that was declared, and never above twice the bound.
 */
export class FrameParser<F> {
  readonly #format: FrameFormat<F>;
  #header = none;
  #view = new DataView(none.buffer);
  #headerFilled = 0;
  #length = -1;
  #payload = none;
  #filled = 0;

  constructor(format: FrameFormat<F>) {
    this.#format = format;
  }

  /** True when no part of a frame is held. */
  get isEmpty(): boolean {
    return this.#headerFilled === 0;
  }

  push(chunk: Uint8Array): F[] {
    const whole = this.isEmpty ? this.#whole(chunk) : undefined;
    if (whole !== undefined) return [whole];
    const frames: F[] = [];
    let offset = 0;
    // The second condition completes a frame whose payload is empty without a further byte.
    while (offset < chunk.length || this.#length === 0) {
      if (this.#length < 0) offset = this.#readHeader(chunk, offset);
      else offset = this.#readPayload(chunk, offset, frames);
    }
    return frames;
  }

  /**
   * The frame that the chunk is, neither less nor more: most are. Its payload stays where it is, in
   * memory that holds nothing else.
   */
  #whole(chunk: Uint8Array): F | undefined {
    const { headerBytes } = this.#format;
    if (chunk.length < headerBytes || chunk.length !== chunk.buffer.byteLength) return undefined;
    const header = new DataView(chunk.buffer, 0, headerBytes);
    if (header.getUint32(headerBytes - 4) !== chunk.length - headerBytes) return undefined;
    this.#check(header, chunk.length - headerBytes);
    return this.#format.make(header, chunk.subarray(headerBytes));
  }

  #check(header: DataView, length: number): void {
    const bound = this.#format.maxPayloadBytes(header);
    if (length <= bound) return;
    throw new TransportError('protocol', `payload: ${length} bytes, at most ${bound}`);
  }

  #readHeader(chunk: Uint8Array, offset: number): number {
    if (this.#header === none) {
      this.#header = new Uint8Array(this.#format.headerBytes);
      this.#view = new DataView(this.#header.buffer);
    }
    const wanted = this.#format.headerBytes - this.#headerFilled;
    const part = chunk.subarray(offset, offset + wanted);
    this.#header.set(part, this.#headerFilled);
    this.#headerFilled += part.length;
    if (this.#headerFilled === this.#format.headerBytes) {
      const length = this.#view.getUint32(this.#format.headerBytes - 4);
      this.#check(this.#view, length);
      this.#length = length;
      this.#payload = new Uint8Array(Math.min(length, firstAllocationBytes));
    }
    return offset + part.length;
  }

  #readPayload(chunk: Uint8Array, offset: number, frames: F[]): number {
    const part = chunk.subarray(offset, offset + this.#length - this.#filled);
    this.#reserve(this.#filled + part.length);
    this.#payload.set(part, this.#filled);
    this.#filled += part.length;
    if (this.#filled === this.#length) {
      frames.push(this.#format.make(this.#view, this.#payload));
      this.#headerFilled = 0;
      this.#length = -1;
      this.#filled = 0;
    }
    return offset + part.length;
  }

  #reserve(wanted: number): void {
    if (wanted <= this.#payload.length) return;
    const grown = new Uint8Array(
      Math.min(this.#length, Math.max(wanted, this.#payload.length * 2)),
    );
    grown.set(this.#payload);
    this.#payload = grown;
  }
}
