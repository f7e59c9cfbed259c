/**
 * Notices of the own node (docs/protocol/delivery.md): rows of kind 4 that say what became of
 * messages after it had taken them. State and cursor are one transaction, as with any row.
 */
import { fromBinary, NoticeSchema, NoticeType, type Notice } from '@quicprochat/proto/messages';
import { fullReason, takeBounce, type Bounced, type StuckPost } from './bounces.ts';
import type { ClientEvent } from '../events.ts';
import type { InboxRow } from '../store/inbox-rows.ts';
import type { ClientStore } from '../store/store.ts';
import type { Batch } from '../writer.ts';

export interface NoticeParts {
  readonly store: ClientStore;
  readonly emit: (event: ClientEvent) => void;
  /** Copies wait for a token, which may be known already. */
  readonly onWaits: () => void;
  /** Copies are due: to be sealed anew, or sent again. */
  readonly onDue: () => void;
  /** A channel refused a post though its group stands where it was sealed. */
  readonly onStuckPost: (groupId: Uint8Array, cid: Uint8Array) => void;
}

/**
 * Takes in a row of kind 4: the copies that it names change their state, and the application is told
 * once that is durable. What a later version means by a notice, or what names no copy of this store,
 * changes nothing.
 */
export function takeNotice(
  { store, emit, onWaits, onDue, onStuckPost }: NoticeParts,
  row: InboxRow,
  batch: Batch,
): void {
  const notice = parse(row.payload);
  if (notice === undefined) return;
  const events: ClientEvent[] = [];
  const stuck: StuckPost[] = [];
  let hasDue = false;
  batch.write(() => {
    const applied = apply(store, notice, row.receivedMs, batch.nowMs);
    events.push(...applied.told);
    stuck.push(...applied.stuck);
    ({ hasDue } = applied);
  });
  batch.after(() => {
    if (hasDue) onDue();
    for (const { groupId, cid } of stuck) onStuckPost(groupId, cid);
    if (events.some(({ type }) => type === 'waitsForToken')) onWaits();
    for (const event of events) emit(event);
  });
}

function parse(payload: Uint8Array): Notice | undefined {
  try {
    return fromBinary(NoticeSchema, payload);
  } catch {
    return undefined;
  }
}

/** Changes the store and returns what is to be told; a repeat changes nothing and tells nothing. */
function apply(store: ClientStore, notice: Notice, atMs: number, nowMs: number): Bounced {
  const { outbox, groupLog } = store;
  const { rid, reason, domain, mids } = notice;
  const none = { told: [], hasDue: false, stuck: [] };
  switch (notice.type) {
    case NoticeType.BOUNCE: {
      // It may be the own node's hub that tells of a Welcome, before it has answered to the commit.
      if (reason === fullReason) for (const mid of mids) groupLog.bounceWelcome(mid, rid);
      const bounced = mids.map((mid) => takeBounce(store, mid, rid, reason, nowMs));
      return {
        told: bounced.flatMap(({ told }) => told),
        hasDue: bounced.some(({ hasDue }) => hasDue),
        stuck: bounced.flatMap(({ stuck }) => stuck),
      };
    }
    case NoticeType.EXPIRED: {
      const lost = mids.flatMap((mid) => outbox.markLost(mid, rid, 'expired', 'TIMEOUT'));
      return { ...none, told: lost.map((messageId) => ({ type: 'expired', messageId, rid })) };
    }
    case NoticeType.DELAYED: {
      const sinceMs = Number(notice.sinceMs);
      const marked = mids.flatMap((mid) => outbox.markDelayed(mid, domain, atMs));
      if (marked.length === 0) return none;
      const messageIds = [...new Set(marked.filter((id) => id !== undefined))];
      return { ...none, told: [{ type: 'delayed', domain, sinceMs, messageIds }] };
    }
    case NoticeType.RESTORED:
      return { ...none, hasDue: outbox.resendTo(domain, nowMs) > 0 };
    default:
      return none;
  }
}
