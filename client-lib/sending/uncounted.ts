/**
 * Sealed contents that are no messages of the history and have no number in it (receipts, leaves, what
 * members are told besides), put on their way.
 */
import type { Batch } from '../writer.ts';
import type { Sealed } from './sealing.ts';
import type { SendingParts } from './sending-parts.ts';

/** Part of a batch: keys are used up and copies in the outbox, with what `also` writes. */
export function sendUncounted(
  { store, onOutbox }: Pick<SendingParts, 'store' | 'onOutbox'>,
  batch: Batch,
  groupId: Uint8Array,
  contents: readonly Sealed[],
  also: () => void,
): void {
  for (const { next, epoch, wipe } of contents) batch.useKeys(next, epoch, wipe);
  batch.write(() => {
    for (const { copies, epoch, generation } of contents) {
      const about = { kind: 'RECEIPT', groupId, epoch, generation } as const;
      for (const copy of copies) {
        store.outbox.add({ ...copy, messageId: undefined, about }, batch.nowMs);
      }
    }
    also();
  });
  batch.after(onOutbox);
}
