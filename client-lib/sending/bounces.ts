/**
 * What becomes of a copy that came back (docs/protocol/delivery.md, "Delivery tokens"): it is lost, unless
 * its inbox was full for strangers, when it waits for a delivery token (the one that it went with, if any, is no
 * longer its device's), or it was a post whose key a node knows no more, when it is sealed anew.
 */
import { isDeadReason } from '../channels/dead-posts.ts';
import type { ClientEvent } from '../events.ts';
import type { OutboxRows } from '../store/outbox-copies.ts';

/** The reason for which a node takes nothing more without a valid token, of those that it gives at once too. */
export const fullReason = 'QUEUE_FULL';

/** What a bounce leads to. */
export interface Bounced {
  /** To be told; a repeat changes nothing and tells nothing. */
  readonly told: readonly ClientEvent[];
  /** Copies are due: to be sealed anew, or sent again. */
  readonly hasDue: boolean;
}

/** In the caller's transaction. */
export function takeBounce(
  outbox: OutboxRows,
  mid: Uint8Array,
  rid: Uint8Array,
  reason: string,
  nowMs: number,
): Bounced {
  if (isDeadReason(reason) && outbox.returnPosts(mid, rid, nowMs) > 0) {
    return { told: [], hasDue: true };
  }
  const waiting = reason === fullReason ? outbox.returnForToken(mid, rid, nowMs) : [];
  // What waits already came back before: this tells of the same once more.
  const isWaiting = reason === fullReason && outbox.isWaitingForToken(mid, rid);
  const lost = isWaiting ? [] : outbox.markLost(mid, rid, 'bounced', reason);
  const told = [
    ...waiting.map((messageId) => ({ type: 'waitsForToken', messageId, rid }) as const),
    ...lost.map((messageId) => ({ type: 'bounced', messageId, rid, reason }) as const),
  ];
  return { told, hasDue: false };
}
