/**
 * What is worth nothing in ten seconds, on its way to a peer (method 918): typing. Gathered for a
 * moment, sent over a link that is up anyway, one call in flight; whatever does not fit, fails or
 * waits for a link is dropped. Nothing here is written, counted or repeated.
 */
import { maxEphemeralItems, methods, type Runtime } from '@quicprochat/proto';
import type { EphemeralItemSchema, MessageInitShape } from '@quicprochat/proto/messages';
import type { LinkSession } from './link-session.ts';
import { Wakeup } from './wakeup.ts';

export const ephemeralLimits = {
  /** How long items gather (ms). */
  gatherMs: 250,
  /** How long an answer is waited for before the next batch (ms). */
  answerMs: 2_000,
} as const;

export type EphemeralItemIn = MessageInitShape<typeof EphemeralItemSchema>;

/** The items for one peer. */
export class EphemeralQueue {
  readonly #runtime: Runtime;
  readonly #wakeup: Wakeup;
  #items: EphemeralItemIn[] = [];
  #isLive = false;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
    this.#wakeup = new Wakeup(runtime.clock);
  }

  /** False when the item was dropped: there is no link, or 256 items wait already. */
  offer(item: EphemeralItemIn): boolean {
    if (!this.#isLive || this.#items.length >= maxEphemeralItems) return false;
    this.#items.push(item);
    this.#wakeup.raise();
    return true;
  }

  /** Sends until the session ends. Never throws. */
  async serve(session: LinkSession): Promise<void> {
    const { signal } = session;
    const { clock } = this.#runtime;
    const stop = (): void => this.#wakeup.raise();
    signal.addEventListener('abort', stop, { once: true });
    this.#isLive = true;
    try {
      while (!signal.aborted) {
        if (this.#items.length === 0) await this.#wakeup.wait();
        await clock.sleep(ephemeralLimits.gatherMs, signal);
        const items = this.#items.splice(0);
        if (items.length === 0) continue;
        const options = { deadlineMs: ephemeralLimits.answerMs };
        // Refused or lost: the next one may fare better.
        await session.call(methods.fedEphemeral, { items }, options).catch(() => undefined);
      }
    } catch {
      // The session ended while items gathered.
    } finally {
      this.#isLive = false;
      this.#items = [];
      signal.removeEventListener('abort', stop);
    }
  }
}
