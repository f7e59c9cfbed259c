/** Test support: the real runtime without a log, and a clock that a test moves on. */
import {
  silentLog,
  systemClock,
  systemRandom,
  type Clock,
  type Runtime,
  type Timer,
} from '@quicprochat/proto';

export const testRuntime: Runtime = { clock: systemClock, random: systemRandom, log: silentLog };

/** The real clock, ahead by what a test added; its timers run in real time. */
export class LaterClock implements Clock {
  #aheadMs = 0;
  now(): number {
    return systemClock.now() + this.#aheadMs;
  }
  monotonic(): number {
    return systemClock.monotonic() + this.#aheadMs;
  }
  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    await systemClock.sleep(ms, signal);
  }
  timer(ms: number, callback: () => void): Timer {
    return systemClock.timer(ms, callback);
  }
  advance(ms: number): void {
    this.#aheadMs += ms;
  }
}
