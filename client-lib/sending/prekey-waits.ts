/**
 * Copies for devices that had no prekey when the message was sent (docs/protocol/delivery.md, "Waiting for a prekey"):
 * after a minute, then ever more seldom down to once an hour, and soon after such a device is heard of, it is looked
 * whether they have one. Who has is sealed for; who has none for 30 days fails.
 */
import { fetchPrekeys } from '../account/prekeys.ts';
import type { EventBus } from '../events.ts';
import { outboxBounds } from '../store/outbox-bounds.ts';
import type { SendingParts } from './sending-parts.ts';

const failure = 'NO_PREKEY';

export interface PrekeyWaitParts extends Pick<
  SendingParts,
  'store' | 'runtime' | 'contacts' | 'caller'
> {
  readonly events: EventBus;
}

/**
 * One question for all copies that are due; those of devices that still have no prekey wait on, for as long as they have
 * been waiting. Throws what the store throws.
 */
export async function lookForPrekeys(parts: PrekeyWaitParts): Promise<void> {
  const { store, runtime, contacts, events } = parts;
  const lacking = store.outbox
    .prekeyWaits(runtime.clock.now())
    .filter(({ rid }) => contacts.prekey(rid) === undefined);
  if (lacking.length === 0) return;
  // Who was heard of within a minute of the last question is asked about in the next one.
  const userIds = [...new Set(lacking.map(({ userId }) => userId))];
  const asked = userIds.filter((userId) => !contacts.lacksPrekeys(userId));
  try {
    await fetchPrekeys(parts, asked);
    contacts.noteAsked(asked);
  } catch (error) {
    runtime.log.info('prekeys that copies wait for did not come', { error: String(error) });
  }
  const nowMs = runtime.clock.now();
  const dueMs = (userId: string, sinceMs: number): number => {
    const { prekeyWaitMinMs, prekeyWaitMaxMs } = outboxBounds;
    if (!asked.includes(userId)) return nowMs + prekeyWaitMinMs;
    return nowMs + Math.min(Math.max(nowMs - sinceMs, prekeyWaitMinMs), prekeyWaitMaxMs);
  };
  const failed = store.transaction(() =>
    lacking
      .filter(({ rid }) => contacts.prekey(rid) === undefined)
      .flatMap(({ rid, userId, sinceMs }) =>
        store.outbox
          .postponePrekeyWaits(rid, dueMs(userId, sinceMs), failure, nowMs)
          .map((messageId) => ({ messageId, rid })),
      ),
  );
  for (const one of failed) events.emit({ type: 'sendFailed', ...one, reason: failure });
}
