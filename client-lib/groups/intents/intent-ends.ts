/** Who waits for the end of a wish for a group, and why wishes of this start of the device were refused. */
import type { QpcError } from '@quicprochat/proto';
import type { EventBus } from '../../events.ts';
import { ClosedError } from '../../link.ts';
import type { ClientStore } from '../../store/store.ts';
import { GroupChangeError } from './group-intents.ts';

export class IntentEnds {
  readonly #store: Pick<ClientStore, 'groupLog'>;
  readonly #events: EventBus;
  readonly #errors = new Map<number, QpcError>();
  readonly #waiting = new Set<() => void>();

  constructor({ store, events }: { readonly store: ClientStore; readonly events: EventBus }) {
    this.#store = store;
    this.#events = events;
  }

  /** For whoever waits; the row says only the reason. */
  refused(id: number, error: QpcError): void {
    this.#errors.set(id, error);
  }

  /** The device stops: nobody waits any longer. */
  stop(): void {
    for (const wake of this.#waiting) wake();
  }

  /**
   * Resolves when the intent is done, by this device or another one. Throws why it was refused, the
   * signal's reason, or ClosedError once `stopped` is aborted; in the last two cases it goes on, now or at the
   * next start.
   */
  async of(id: number, stopped: () => boolean, signal?: AbortSignal): Promise<void> {
    const change = Promise.withResolvers<void>();
    let { promise, resolve } = change;
    const wake = (): void => {
      resolve();
      ({ promise, resolve } = Promise.withResolvers<void>());
    };
    this.#waiting.add(wake);
    signal?.addEventListener('abort', wake);
    using _listening = this.#events.listen(({ type }) => {
      if (type === 'groupChange') wake();
    });
    try {
      for (;;) {
        signal?.throwIfAborted();
        const intent = this.#store.groupLog.intent(id);
        if (intent?.state === 'DONE' || intent?.state === 'SUPERSEDED') return;
        if (intent?.state !== 'OPEN') {
          throw this.#errors.get(id) ?? new GroupChangeError(intent?.reason ?? 'UNKNOWN_GROUP');
        }
        if (stopped()) throw new ClosedError();
        await promise;
      }
    } finally {
      this.#waiting.delete(wake);
      signal?.removeEventListener('abort', wake);
      this.#errors.delete(id);
    }
  }
}
