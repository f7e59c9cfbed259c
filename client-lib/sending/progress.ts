/** How far an own message has come, and the wait until it is somewhere (docs/protocol/delivery.md, "States"). */
import { NotFoundError } from '@quicprochat/proto';
import type { Progress } from '../client-types.ts';
import type { EventBus } from '../events.ts';
import { ClosedError } from '../link.ts';
import type { SendState } from '../store/message-rows.ts';
import type { ClientStore } from '../store/store.ts';

const progress: readonly SendState[] = ['accepted', 'relayed', 'delivered', 'read'];

/** True also for a message that will not come further. */
function hasReached(state: SendState, wanted: Progress): boolean {
  return (
    state !== 'sealed' &&
    (!progress.includes(state) || progress.indexOf(state) >= progress.indexOf(wanted))
  );
}

/**
 * The state of an own message once it is `wanted`, or further, or lost. Throws NotFoundError when it is not there
 * (any more), ClosedError when the client closes before that, the signal's reason when it is aborted.
 */
export async function untilReached(
  { messages }: Pick<ClientStore, 'messages'>,
  bus: EventBus,
  messageId: number | undefined,
  wanted: Progress,
  signal?: AbortSignal,
): Promise<SendState> {
  // Subscribed first: what happens after the look at the store is not missed.
  const events = bus.subscribe(signal);
  try {
    for (;;) {
      const state = messageId === undefined ? undefined : messages.sendState(messageId);
      if (state === undefined) {
        throw new NotFoundError('UNKNOWN_GROUP', 'message: none of this device with this id');
      }
      if (hasReached(state, wanted)) return state;
      const { done } = await events.next();
      signal?.throwIfAborted();
      if (done === true) throw new ClosedError();
    }
  } finally {
    await events.return?.();
  }
}
