/**
 * Rows that peers refused for now: each goes back to the tail of its lane when it is due, and rows past
 * their age become dead letters (store.ts says which). One loop for all peers of a node.
 */
import { QpcError, type Runtime } from '@quicprochat/proto';
import type { OutboxStore } from './store.ts';
import { Wakeup } from './wakeup.ts';

export const requeueLimits = {
  /** It is looked this often, whatever the clock of the store does in between (ms). */
  everyMs: 30_000,
  /** Between two looks, however many rows are refused meanwhile (ms). */
  pauseMs: 250,
} as const;

export interface RequeueOptions {
  readonly store: Pick<OutboxStore, 'requeueDue'>;
  readonly runtime: Runtime;
  /** The peer has rows to be sent again. */
  readonly notify: (peer: string) => void;
}

export class Requeue {
  readonly #options: RequeueOptions;
  readonly #wakeup: Wakeup;

  constructor(options: RequeueOptions) {
    this.#options = options;
    this.#wakeup = new Wakeup(options.runtime.clock);
  }

  /** A peer has just refused rows for now. */
  noteDeferred(): void {
    this.#wakeup.raise();
  }

  /** Runs until the signal is aborted. Never throws. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options.runtime;
    const { everyMs, pauseMs } = requeueLimits;
    signal.addEventListener('abort', () => this.#wakeup.raise(), { once: true });
    while (!signal.aborted) {
      const dueInMs = await this.#requeue();
      await this.#wakeup.wait(Math.min(Math.max(dueInMs - pauseMs, 0), everyMs));
      // The only rejection is the own stop.
      await clock.sleep(pauseMs, signal).catch(() => undefined);
    }
  }

  /** Returns how long nothing more is due (ms). */
  async #requeue(): Promise<number> {
    const { store, runtime, notify } = this.#options;
    try {
      const { requeuedPeers, deadRows, dueInMs } = await store.requeueDue();
      for (const peer of requeuedPeers) notify(peer);
      if (deadRows > 0) runtime.log.warn('outbox rows expired', { rows: deadRows });
      return dueInMs ?? Number.POSITIVE_INFINITY;
    } catch (error) {
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      runtime.log.error('outbox sweep failed', { reason, error: String(error) });
      return Number.POSITIVE_INFINITY;
    }
  }
}
