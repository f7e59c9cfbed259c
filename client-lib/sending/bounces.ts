/**
 * What becomes of a copy that came back (docs/protocol/delivery.md, "Delivery tokens"): it is lost, unless
 * its inbox was full for strangers, when it waits for a delivery token (the one that it went with, if any, is no
 * longer its device's), or it was a post whose key a node knows no more, or not yet, when it is sealed anew.
 */
import { deadPostVerdict, isDeadReason } from '../channels/dead-posts.ts';
import type { ClientEvent } from '../events.ts';
import { outboxBounds } from '../store/outbox-bounds.ts';
import type { OutboxRow } from '../store/outbox-copies.ts';
import type { ClientStore } from '../store/store.ts';

/** The reason for which a node takes nothing more without a valid token, of those that it gives at once too. */
export const fullReason = 'QUEUE_FULL';

/** What a bounce leads to. */
export interface Bounced {
  /** To be told; a repeat changes nothing and tells nothing. */
  readonly told: readonly ClientEvent[];
  /** Copies are due, or will be: to be sealed anew, or sent again. */
  readonly hasDue: boolean;
  /** Channels that refused a post though its group stands where it was sealed. */
  readonly stuck: readonly StuckPost[];
}

export interface StuckPost {
  readonly groupId: Uint8Array;
  readonly cid: Uint8Array;
}

/** In the caller's transaction. */
export function takeBounce(
  store: Pick<ClientStore, 'outbox' | 'channels' | 'groups'>,
  mid: Uint8Array,
  rid: Uint8Array,
  reason: string,
  nowMs: number,
): Bounced {
  const { outbox } = store;
  if (isDeadReason(reason)) {
    const stuck: StuckPost[] = [];
    const dueMs = (post: OutboxRow): number => {
      if (deadPostVerdict(store, post) === 'anew') return nowMs;
      if (post.groupId !== undefined) stuck.push({ groupId: post.groupId, cid: post.rid });
      return nowMs + repostWaitMs(post.resends);
    };
    if (outbox.returnPosts(mid, rid, dueMs) > 0) return { told: [], hasDue: true, stuck };
  }
  const waiting = reason === fullReason ? outbox.returnForToken(mid, rid, nowMs) : [];
  // What waits already came back before: this tells of the same once more.
  const isWaiting = reason === fullReason && outbox.isWaitingForToken(mid, rid);
  const lost = isWaiting ? [] : outbox.markLost(mid, rid, 'bounced', reason);
  const told = [
    ...waiting.map((messageId) => ({ type: 'waitsForToken', messageId, rid }) as const),
    ...lost.map((messageId) => ({ type: 'bounced', messageId, rid, reason }) as const),
  ];
  return { told, hasDue: false, stuck: [] };
}

function repostWaitMs(resends: number): number {
  const { repostWaitMinMs, repostWaitMaxMs, resendAfterMs } = outboxBounds;
  // A post counts from the start as sent again as often as any copy.
  return Math.min(repostWaitMaxMs, repostWaitMinMs * 2 ** (resends - resendAfterMs.length));
}
