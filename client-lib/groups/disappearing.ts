/**
 * Takes away the text of messages whose time is over (docs/protocol/groups.md, "The timer"): at its time
 * while the client runs, and before anything is shown after it did not. A courtesy among honest clients.
 */
import type { Runtime } from '@quicprochat/proto';
import type { EventBus } from '../events.ts';
import type { ClientStore } from '../store/store.ts';

export const disappearingLimits = {
  /** Texts that go in one transaction. */
  batch: 256,
  /** Longest wait before the store is looked at again (ms). */
  lookMs: 3_600_000,
} as const;

export interface DisappearingParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
}

export class Disappearing {
  readonly #parts: DisappearingParts;
  #timer: { cancel(): void } | undefined;
  #isRunning = false;

  constructor(parts: DisappearingParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#isRunning = true;
    this.sweep();
  }

  stop(): void {
    this.#isRunning = false;
    this.#timer?.cancel();
  }

  /** The time of a text began to run. */
  wake(): void {
    this.#timer?.cancel();
    const { store, runtime } = this.#parts;
    const nextMs = this.#isRunning ? store.messages.nextExpiryMs() : undefined;
    if (nextMs === undefined) return;
    const waitMs = Math.max(0, nextMs - runtime.clock.now());
    const { lookMs } = disappearingLimits;
    this.#timer = runtime.clock.timer(Math.min(waitMs, lookMs), () => this.sweep());
  }

  /** Everything that is due, now; durable on return. */
  sweep(): void {
    const { store, runtime } = this.#parts;
    const { batch } = disappearingLimits;
    let gone;
    let count = 0;
    do {
      gone = store.transaction(() => store.messages.expire(runtime.clock.now(), batch));
      count += gone.length;
      this.#tell(gone);
    } while (gone.length === batch);
    // Until then the log of writes holds the pages as they were.
    if (count > 0) store.checkpoint();
    this.wake();
  }

  #tell(gone: ReturnType<ClientStore['messages']['expire']>): void {
    const { events } = this.#parts;
    const byConversation = Map.groupBy(gone, ({ conversationId }) =>
      Buffer.from(conversationId).toString('hex'),
    );
    for (const messages of byConversation.values()) {
      const [first] = messages;
      if (first === undefined) continue;
      const ids = messages.map(({ innerId }) => innerId);
      events.emit({ type: 'disappeared', conversationId: first.conversationId, ids });
    }
  }
}
