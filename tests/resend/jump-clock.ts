/**
 * The real clock, which a test can set ahead: timers that come due by a jump run at once, in order.
 * For clients that wait for minutes or days beside nodes that live in real time.
 */
import { systemClock, type Clock, type Timer } from '@quicprochat/proto';

interface Pending {
  readonly dueMs: number;
  readonly callback: () => void;
  timer: Timer;
}

export class JumpClock implements Clock {
  #aheadMs = 0;
  readonly #pending = new Set<Pending>();

  now(): number {
    return systemClock.now() + this.#aheadMs;
  }
  monotonic(): number {
    return systemClock.monotonic() + this.#aheadMs;
  }

  timer(ms: number, callback: () => void): Timer {
    const run = (): void => {
      this.#pending.delete(pending);
      callback();
    };
    const pending: Pending = {
      dueMs: this.monotonic() + ms,
      callback: run,
      timer: systemClock.timer(Math.min(ms, 2 ** 31 - 1), run),
    };
    this.#pending.add(pending);
    return {
      cancel: () => {
        this.#pending.delete(pending);
        pending.timer.cancel();
      },
    };
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const slept = Promise.withResolvers<void>();
    const timer = this.timer(ms, slept.resolve);
    const onAbort = (): void => {
      timer.cancel();
      slept.reject(signal?.reason as Error);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await slept.promise;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Later than anything that the clients do within `ms`. */
  jump(ms: number): void {
    this.#aheadMs += ms;
    const due = [...this.#pending]
      .filter(({ dueMs }) => dueMs <= this.monotonic())
      .sort((a, b) => a.dueMs - b.dueMs);
    for (const { timer, callback } of due) {
      timer.cancel();
      callback();
    }
  }
}
