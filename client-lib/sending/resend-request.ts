/**
 * What devices ask each other for and answer outside of MLS (docs/protocol/delivery.md, "End-to-end
 * re-send"): requests and gone notices, signed by device identity keys, built and parsed with the same
 * bounds. What a request is worth, and what a notice ends, is the callers' to judge.
 */
import {
  QpcError,
  signStatement,
  Status,
  verifyStatement,
  type SigningKey,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GoneSchema,
  ResendRequestSchema,
  toBinary,
  type NumberRange as WireRange,
} from '@quicprochat/proto/messages';

export const requestLimits = { ranges: 32, idBytes: 16 } as const;

/** The end of a range that takes in everything later. */
export const openEnd = Number.MAX_SAFE_INTEGER;

/** Numbers of a sending device, both ends included; `to` may be `openEnd`. */
export interface NumberRange {
  readonly from: number;
  readonly to: number;
}

export interface ResendRequest {
  /** 16 random bytes. */
  readonly id: Uint8Array;
  readonly groupId: Uint8Array;
  /** Devices (32 bytes): whose messages are missing, who asks, who is asked. */
  readonly sender: Uint8Array;
  readonly asker: Uint8Array;
  readonly to: Uint8Array;
  readonly ranges: readonly NumberRange[];
  /** The original bytes did not help. */
  readonly sealAnew: boolean;
}

export interface Gone {
  /** Of the request that it answers (16 bytes). */
  readonly requestId: Uint8Array;
  readonly groupId: Uint8Array;
  readonly sender: Uint8Array;
  readonly asker: Uint8Array;
  readonly ranges: readonly NumberRange[];
  /** They were sealed before the asker became a member: nothing is lost. */
  readonly neverYours: boolean;
}

/** Malformed, out of bounds, badly signed, or not for us. */
export class ResendError extends QpcError {
  override name = 'ResendError';
  constructor(message: string) {
    super(Status.InvalidArgument, 'BAD_RESEND', `resend: ${message}`);
  }
}

/** `key` is the asker's identity key. */
export function encodeRequest(request: ResendRequest, key: SigningKey): Uint8Array {
  const message = create(ResendRequestSchema, {
    ...request,
    ranges: request.ranges.map(wireRange),
  });
  const signature = signStatement('qpc/resend/1', toBinary(ResendRequestSchema, message), key);
  return toBinary(ResendRequestSchema, { ...message, signature });
}

/** Checks bounds and the asker's signature. Throws ResendError. */
export function parseRequest(bytes: Uint8Array): ResendRequest {
  const message = decoded(() => fromBinary(ResendRequestSchema, bytes));
  const { id, groupId, sender, asker, to, sealAnew, signature } = message;
  if (id.length !== requestLimits.idBytes) throw new ResendError(`id of ${id.length} bytes`);
  const ranges = parseRanges(message.ranges);
  const unsigned = toBinary(ResendRequestSchema, { ...message, signature: new Uint8Array(0) });
  if (!verifyStatement('qpc/resend/1', unsigned, signature, asker)) {
    throw new ResendError('the signature is not the asker’s');
  }
  return { id, groupId, sender, asker, to, ranges, sealAnew };
}

/** `key` is the sending device's identity key. */
export function encodeGone(gone: Gone, key: SigningKey): Uint8Array {
  const message = create(GoneSchema, { ...gone, ranges: gone.ranges.map(wireRange) });
  const signature = signStatement('qpc/gone/1', toBinary(GoneSchema, message), key);
  return toBinary(GoneSchema, { ...message, signature });
}

/** Checks bounds and the sending device's signature. Throws ResendError. */
export function parseGone(bytes: Uint8Array): Gone {
  const message = decoded(() => fromBinary(GoneSchema, bytes));
  const { requestId, groupId, sender, asker, neverYours, signature } = message;
  const ranges = parseRanges(message.ranges);
  const unsigned = toBinary(GoneSchema, { ...message, signature: new Uint8Array(0) });
  if (!verifyStatement('qpc/gone/1', unsigned, signature, sender)) {
    throw new ResendError('the signature is not the sender’s');
  }
  return { requestId, groupId, sender, asker, ranges, neverYours };
}

function decoded<T>(decode: () => T): T {
  try {
    return decode();
  } catch {
    throw new ResendError('no encoded message');
  }
}

function wireRange({ from, to }: NumberRange): { from: bigint; to: bigint } {
  return { from: BigInt(from), to: to === openEnd ? 0n : BigInt(to) };
}

function parseRanges(ranges: readonly WireRange[]): readonly NumberRange[] {
  if (ranges.length === 0 || ranges.length > requestLimits.ranges) {
    throw new ResendError(`${ranges.length} ranges, at most ${requestLimits.ranges}`);
  }
  return ranges.map(({ from, to }) => {
    if (from === 0n || from > BigInt(openEnd) || to > BigInt(openEnd) || (to !== 0n && to < from)) {
      throw new ResendError('a range of no numbers');
    }
    return { from: Number(from), to: to === 0n ? openEnd : Number(to) };
  });
}
