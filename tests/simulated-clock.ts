/**
 * Time that a test owns: nothing happens until it is advanced, and timers run in order of their
 * due time, with everything that they set in motion done before the next. Deterministic as long as
 * the parts under test wait only for this clock and for promises (no threads, no real I/O).
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock, Timer } from '@quicprochat/proto';

interface Pending {
  readonly dueMs: number;
  readonly callback: () => void;
}

export class SimulatedClock implements Clock {
  #elapsedMs = 0;
  #wallMs: number;
  /** In order of insertion; the earliest due one runs first, equal ones in that order. */
  readonly #pending = new Set<Pending>();

  constructor(wallMs = 1_800_000_000_000) {
    this.#wallMs = wallMs;
  }

  now(): number {
    return this.#wallMs + this.#elapsedMs;
  }

  monotonic(): number {
    return this.#elapsedMs;
  }

  timer(ms: number, callback: () => void): Timer {
    const pending = { dueMs: this.#elapsedMs + Math.max(0, ms), callback };
    this.#pending.add(pending);
    return { cancel: () => this.#pending.delete(pending) };
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    const slept = Promise.withResolvers<void>();
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    const onAbort = (): void => {
      timer.cancel();
      slept.reject(signal?.reason as Error);
    };
    const timer = this.timer(ms, () => {
      signal?.removeEventListener('abort', onAbort);
      slept.resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
    return slept.promise;
  }

  /** The wall clock steps, as by an operator; durations do not notice. */
  stepWall(byMs: number): void {
    this.#wallMs += byMs;
  }

  /** Until no promise has anything left to do without time passing. */
  async settle(): Promise<void> {
    // One turn of the event loop runs every promise job, also those that others start.
    await nextTurn();
  }

  /** Lets `ms` pass, and all that happens in it. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#elapsedMs + ms;
    await this.settle();
    for (let next = this.#earliest(endMs); next !== undefined; next = this.#earliest(endMs)) {
      await this.#run(next);
    }
    this.#elapsedMs = endMs;
    await this.settle();
  }

  /** Lets time pass until the condition holds, at most `maxMs`. Returns whether it does. */
  async runUntil(condition: () => boolean, maxMs: number): Promise<boolean> {
    const endMs = this.#elapsedMs + maxMs;
    await this.settle();
    while (!condition()) {
      const next = this.#earliest(endMs);
      if (next === undefined) break;
      await this.#run(next);
    }
    return condition();
  }

  #earliest(untilMs: number): Pending | undefined {
    let earliest: Pending | undefined;
    for (const pending of this.#pending) {
      if (pending.dueMs <= untilMs && !(earliest && earliest.dueMs <= pending.dueMs)) {
        earliest = pending;
      }
    }
    return earliest;
  }

  async #run(pending: Pending): Promise<void> {
    this.#pending.delete(pending);
    this.#elapsedMs = Math.max(this.#elapsedMs, pending.dueMs);
    pending.callback();
    await this.settle();
  }
}
