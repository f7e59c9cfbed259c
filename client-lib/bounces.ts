/**
 * What becomes of a copy that came back (docs/protocol/delivery.md, "Delivery tokens"): it is lost, unless
 * it went without a delivery token to an inbox that was full for strangers. Then it waits for a token.
 */
import type { ClientEvent } from './events.ts';
import type { OutboxRows } from './store/store.ts';

/** The reason for which a node takes nothing more without a token, of those that it gives at once too. */
export const fullReason = 'QUEUE_FULL';

/** In the caller's transaction. Returns what is to be told; a repeat changes nothing and tells nothing. */
export function takeBounce(
  outbox: OutboxRows,
  mid: Uint8Array,
  rid: Uint8Array,
  reason: string,
  nowMs: number,
): readonly ClientEvent[] {
  const waiting = reason === fullReason ? outbox.returnForToken(mid, rid, nowMs) : [];
  // What waits already came back before: this tells of the same once more.
  const isWaiting = reason === fullReason && outbox.isWaitingForToken(mid, rid);
  const lost = isWaiting ? [] : outbox.markLost(mid, rid, 'bounced', reason);
  return [
    ...waiting.map((messageId) => ({ type: 'waitsForToken', messageId, rid }) as const),
    ...lost.map((messageId) => ({ type: 'bounced', messageId, rid, reason }) as const),
  ];
}
