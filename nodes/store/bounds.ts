/**
 * The bounds of the store that no operator changes, and the check of byte arguments. Bounds an
 * operator may change are `StoreLimits` in store.ts.
 */
import { InvalidArgumentError } from '@quicprochat/proto';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

export const storeBounds = {
  keyBytes: 32,
  ridBytes: 32,
  midBytes: 16,
  streamIdBytes: 16,
  claimIdBytes: 16,
  storeIdBytes: 8,
  markProofBytes: 16,
  /** One row's payload: control payloads (commit, Welcome) may be this large. */
  payloadBytes: 512 * 1024,
  /** KeyPackages that a device may have available, over all suites. */
  keyPackagesPerDevice: 512,
  claimReplayMs: 10 * minuteMs,
  claimWindowMs: hourMs,
  /** How long the ref of a consumed KeyPackage is known. */
  consumedRefMs: 90 * dayMs,
  deadLetterMs: 30 * dayMs,
  /** Notices that one inbox holds, beyond its quota if need be; what comes after leaves a gap. */
  noticesPerInbox: 1_000,
  noticeTtlMs: 30 * dayMs,
  /** Answers of one RelayStatus: one for each device of each message. */
  statusesPerAnswer: 2_048,
  /** A peer that is restored again and again is told of so often at once, and then so often: of all its losses since together. */
  lossesToldAtOnce: 4,
  lossToldMs: hourMs,
  /**
   * What a peer whose store has the same id says of another lane so soon is the same loss, so that what was passed on in
   * between is not lost.
   */
  sameLossMs: 15_000,
  /** Messages that one DELAYED names. */
  midsPerNotice: 256,
  /** A kind that the peer does not know is tried this long: it may be upgrading. */
  unknownKindMs: dayMs,
  /** First wait of a post for a channel, or a key, that the peer does not know: its update is on its way. */
  unknownChannelRetryMs: 1_000,
  /**
   * A message that was passed on so long ago goes to the peer once more when its sender repeats it:
   * below the 24 hours after which clients send again what nobody confirmed, as it may be lost there.
   */
  repeatMs: 12 * hourMs,
  /** Verdicts kept for one incoming lane until its sender settles them: at 61 bytes each they fit into a reply. */
  rejectsPerLane: 16_384,
  /** Devices of one row of an outbox. */
  ridsPerRow: 256,
  /** How long a sender with a token waits before it tries a full inbox again. */
  fullRetryMs: 10_000,
  /** Rows of each table that one sweep removes. */
  sweepRows: 1_000,
} as const;

/** Throws InvalidArgumentError BAD_FIELD unless `value` is exactly `length` bytes. */
export function needBytes(value: Uint8Array, length: number, name: string): void {
  if (value.length !== length) {
    throw new InvalidArgumentError('BAD_FIELD', `${name}: ${value.length} bytes, need ${length}`);
  }
}

/** Throws InvalidArgumentError BAD_FIELD unless `value` is an integer from 0 to 2^53 - 1. */
export function needSeq(value: number, name: string): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new InvalidArgumentError('BAD_FIELD', `${name}: not an integer from 0 to 2^53 - 1`);
  }
}
