/**
 * Copies for devices that had no prekey when the message was sent (docs/protocol/delivery.md, "Waiting for a prekey"):
 * once an hour, or soon after such a device is heard of, it is looked whether they have one. Who has is sealed for; who
 * has none for 30 days fails.
 */
import { fetchPrekeys } from '../account/prekeys.ts';
import type { EventBus } from '../events.ts';
import type { SendingParts } from './sending-parts.ts';

const failure = 'NO_PREKEY';

export interface PrekeyWaitParts extends Pick<
  SendingParts,
  'store' | 'runtime' | 'contacts' | 'caller'
> {
  readonly events: EventBus;
}

/** One question for all copies that are due; those of devices that still have no prekey wait on. Throws what the store throws. */
export async function lookForPrekeys(parts: PrekeyWaitParts): Promise<void> {
  const { store, runtime, contacts, events } = parts;
  const lacking = store.outbox
    .prekeyWaits(runtime.clock.now())
    .filter(({ rid }) => contacts.prekey(rid) === undefined);
  if (lacking.length === 0) return;
  try {
    await fetchPrekeys(parts, [...new Set(lacking.map(({ userId }) => userId))]);
  } catch (error) {
    runtime.log.info('prekeys that copies wait for did not come', { error: String(error) });
  }
  const nowMs = runtime.clock.now();
  const failed = store.transaction(() =>
    lacking
      .filter(({ rid }) => contacts.prekey(rid) === undefined)
      .flatMap(({ rid }) =>
        store.outbox
          .postponePrekeyWaits(rid, failure, nowMs)
          .map((messageId) => ({ messageId, rid })),
      ),
  );
  for (const one of failed) events.emit({ type: 'sendFailed', ...one, reason: failure });
}
