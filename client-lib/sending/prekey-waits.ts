/**
 * Copies for devices that had no prekey when the message was sent (docs/protocol/delivery.md, "Waiting for a prekey"):
 * after a minute, then ever more seldom down to once an hour, and soon after such a device is heard of, it is looked
 * whether they have one. Who has is sealed for; who has none for 30 days fails.
 */
import { TransportError, type Runtime } from '@quicprochat/proto';
import { fetchPrekeys } from '../account/prekeys.ts';
import type { Contacts } from '../contacts/contacts.ts';
import type { Caller } from '../dial.ts';
import type { EventBus } from '../events.ts';
import { outboxBounds } from '../store/outbox-bounds.ts';
import type { PrekeyWaitRows } from '../store/prekey-wait-rows.ts';
import type { ClientStore } from '../store/store.ts';
import { noPrekey } from './fan-out.ts';

export interface PrekeyWaitParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly contacts: Contacts;
  readonly caller: Caller;
  readonly events: EventBus;
}

/** A device without a prekey, whose copies were due. */
export type Lacking = ReturnType<PrekeyWaitRows['prekeyWaits']>[number];

/** The question is given up after this long (ms): what else is to be sent again does not wait for a node that is away. */
const askMs = 15_000;

/** Devices whose copies are due though they have no prekey, put off for a minute: what else is due can go. */
export function putOffLacking({ store, runtime, contacts }: PrekeyWaitParts): readonly Lacking[] {
  const nowMs = runtime.clock.now();
  const waiting = store.outbox.prekeyWaits(nowMs);
  const lacking = waiting.filter(({ rid }) => contacts.prekey(rid) === undefined);
  if (lacking.length === 0) return [];
  const dueMs = nowMs + outboxBounds.prekeyWaitMinMs;
  store.transaction(() => {
    for (const { rid } of lacking) store.outbox.postponePrekeyWaits(rid, dueMs, nowMs);
  });
  return lacking;
}

/**
 * One question for all of these. What waits for those that have a prekey now is due; that of others waits on, for as long
 * as it has been waiting, and ends after 30 days of it. Throws what the store throws.
 */
export async function askForPrekeys(
  parts: PrekeyWaitParts,
  lacking: readonly Lacking[],
): Promise<void> {
  const { store, runtime, contacts, events } = parts;
  // Who was heard of within a minute of the last question is asked about in the next one.
  const asked = lacking.filter(({ userId }) => !contacts.lacksPrekeys(userId));
  if (asked.length === 0 || !(await isAnswered(parts, asked))) return;
  const nowMs = runtime.clock.now();
  const ended = store.transaction(() =>
    asked.flatMap(({ rid, sinceMs }) => {
      store.outbox.prekeyWaitsDue(rid, nowMs);
      if (contacts.prekey(rid) !== undefined) return [];
      const { prekeyWaitMinMs, prekeyWaitMaxMs } = outboxBounds;
      const waitMs = Math.min(Math.max(nowMs - sinceMs, prekeyWaitMinMs), prekeyWaitMaxMs);
      const messages = store.outbox.endPrekeyWaits(rid, noPrekey, nowMs);
      store.outbox.postponePrekeyWaits(rid, nowMs + waitMs, nowMs);
      return messages.map((messageId) => ({ messageId, rid }));
    }),
  );
  for (const one of ended) events.emit({ type: 'sendFailed', ...one, reason: noPrekey });
}

async function isAnswered(parts: PrekeyWaitParts, asked: readonly Lacking[]): Promise<boolean> {
  const { runtime, contacts } = parts;
  const userIds = [...new Set(asked.map(({ userId }) => userId))];
  const limit = new AbortController();
  const timer = runtime.clock.timer(askMs, () =>
    limit.abort(new TransportError('timeout', 'prekeys: no answer in time')),
  );
  try {
    await fetchPrekeys(parts, userIds, limit.signal);
    contacts.noteAsked(userIds);
    return true;
  } catch (error) {
    runtime.log.info('prekeys that copies wait for did not come', { error: String(error) });
    return false;
  } finally {
    timer.cancel();
  }
}
