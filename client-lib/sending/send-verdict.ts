/** What an error of Enqueue means for the copy that it was about: sent again, given up, or log in first. */
import { hasReason, QpcError, Status, TransportError } from '@quicprochat/proto';
import { outboxBounds } from '../store/outbox-bounds.ts';
import { fullReason } from './bounces.ts';

/** Nothing can be brought to its domain's node. */
export const unreachableReason = 'PEER_UNREACHABLE';

/** How long a copy of a sealed sender waits for a valid delivery token (ms). */
export const sealedTokenWaitMs = 24 * 3600 * 1000;

export type SendVerdict = 'permanent' | 'temporary' | 'disconnected' | 'expired';

/** The inbox has no place for strangers, which stays so for us: the node says no time to come back. */
export function isFullForStrangers(error: unknown): boolean {
  return hasReason(error, fullReason) && error.retryAfterMs === undefined;
}

/** The node takes the token of a copy that went without a login for none; one of before sealed senders wants a login. */
export function isStaleToken(error: unknown): boolean {
  return hasReason(error, 'BLOCKED', 'NOT_LOGGED_IN');
}

/**
 * Pure: the copy is as old as any is kept, and its node cannot be reached: by the own node's word, which says so of one
 * that has been away for long, or as a sealed sender finds by itself.
 */
export function isAwayForGood(error: unknown, ageMs: number, isSealed: boolean): boolean {
  const isAway =
    hasReason(error, unreachableReason) || (isSealed && error instanceof TransportError);
  return isAway && ageMs >= outboxBounds.bytesKeptMs;
}

/** Pure: the verdict on an error of Enqueue. */
export function sendVerdict(error: unknown): SendVerdict {
  if (error instanceof TransportError) {
    return error.failure === 'protocol' || error.failure === 'internal'
      ? 'temporary'
      : 'disconnected';
  }
  if (!(error instanceof QpcError)) return 'temporary';
  if (isFullForStrangers(error)) return 'permanent';
  switch (error.status) {
    case Status.Unauthenticated:
      return 'expired';
    case Status.Unavailable:
    case Status.DeadlineExceeded:
    case Status.ResourceExhausted:
    case Status.Internal:
      return 'temporary';
    default:
      return 'permanent';
  }
}

/**
 * Pure: the same for a copy that went without a login. A token that is no longer valid may be followed by
 * another one of its device; the copy does not go with the sender's name instead. Never `expired`: another node's
 * word ends no session with the own one.
 */
export function sealedVerdict(error: unknown, ageMs: number): SendVerdict {
  if (isStaleToken(error)) {
    return ageMs < sealedTokenWaitMs ? 'temporary' : 'permanent';
  }
  const verdict = sendVerdict(error);
  return verdict === 'expired' ? 'temporary' : verdict;
}
