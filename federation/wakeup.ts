/**
 * One loop's alarm: whatever the loop waits for (rows, replies, timers, a closing link) raises it.
 * A raise before the wait is not lost, and many raises before one wait count as one.
 */
import type { Clock } from '@quicprochat/proto';

export class Wakeup {
  readonly #clock: Clock;
  #isRaised = false;
  #resume: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  raise(): void {
    const resume = this.#resume;
    this.#resume = undefined;
    if (resume === undefined) this.#isRaised = true;
    else resume();
  }

  /** Resolves at the next raise, or after `ms` (never without it). One waiter at a time. */
  async wait(ms: number = Number.POSITIVE_INFINITY): Promise<void> {
    if (this.#isRaised) {
      this.#isRaised = false;
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#resume = resolve;
    const timer = Number.isFinite(ms) ? this.#clock.timer(ms, () => this.raise()) : undefined;
    await promise;
    timer?.cancel();
  }
}
