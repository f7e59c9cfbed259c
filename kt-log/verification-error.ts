/**
 * The one error of everything that checks another party's proof, answer or signature
 * (kt-log/README.md). It says what was checked and what was expected, never the
 * content. Browser-safe.
 */
import { QpcError, Status } from '@quicprochat/proto/status';

/** What a verification can fail on; programs switch on it, so a reason is never renamed. */
export const verificationReasons = [
  'BAD_VRF',
  'BAD_ROOT',
  'BAD_SIGNATURE',
  'COUNT',
  'NOT_MONOTONIC',
  'TOO_OLD',
  'TOO_NEW',
  'ROLLBACK',
  'LADDER',
  'EXPIRED',
  'NOT_FOUND',
  'CHAIN',
  'FORK',
  'MALFORMED',
] as const;
export type VerificationReason = (typeof verificationReasons)[number];

/** Status InvalidArgument. Whoever catches it has changed no state (protocol section 13). */
export class VerificationError extends QpcError {
  override name = 'VerificationError';
  declare readonly reason: VerificationReason;
  /** What was checked: a field, a count, a root, a signature. */
  readonly checked: string;
  /** What an honest answer would have had there. */
  readonly expected: string;

  constructor(reason: VerificationReason, checked: string, expected: string, cause?: unknown) {
    super(
      Status.InvalidArgument,
      reason,
      `${checked}: expected ${expected}`,
      cause === undefined ? {} : { cause },
    );
    this.checked = checked;
    this.expected = expected;
  }
}

/** Throws VerificationError unless `holds`. */
export function verify(
  holds: boolean,
  reason: VerificationReason,
  checked: string,
  expected: string,
): asserts holds {
  if (!holds) throw new VerificationError(reason, checked, expected);
}
