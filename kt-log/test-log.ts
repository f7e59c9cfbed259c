/**
 * Test support: a whole log with real keys over the memory store, under a clock that a test moves.
 * Not library code.
 */
import type { Clock, Random } from '@quicprochat/proto';
import { randomBytes } from 'node:crypto';
import { KtLog } from './log.ts';
import type { KtLogOptions } from './log.ts';
import { nativeSuite } from './native-suite.ts';
import { MemoryTreeStore } from './store.ts';
import { testLogKeys } from './test-keys.ts';
import { logVerifier } from './verify-response.ts';

/** Time that stands still until it is moved; timers without a wait run as soon as they can. */
export class ManualClock implements Clock {
  #nowMs = 1_700_000_000_000;
  #timers: { readonly dueMs: number; readonly run: () => void }[] = [];
  #onTimer: (() => void) | undefined;

  now(): number {
    return this.#nowMs;
  }
  monotonic(): number {
    return this.#nowMs;
  }
  sleep(): Promise<void> {
    return Promise.reject(new Error('nothing here sleeps'));
  }
  timer(ms: number, run: () => void): { cancel(): void } {
    const timer = { dueMs: this.#nowMs + ms, run };
    this.#timers.push(timer);
    this.#onTimer?.();
    if (ms <= 0) queueMicrotask(() => this.advance(0));
    return { cancel: () => void (this.#timers = this.#timers.filter((one) => one !== timer)) };
  }
  /** Resolves when somebody sets the next timer. */
  timerSet(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onTimer = resolve;
    return promise;
  }
  advance(ms: number): void {
    this.#nowMs += ms;
    const due = this.#timers.filter((timer) => timer.dueMs <= this.#nowMs);
    this.#timers = this.#timers.filter((timer) => timer.dueMs > this.#nowMs);
    for (const timer of due) timer.run();
  }
}

export const testRandom: Random = { bytes: (length) => new Uint8Array(randomBytes(length)) };
export const labelOf = (name: string): Uint8Array => new TextEncoder().encode(name);

/** Keys of `seed`: the same seed gives the same log again. */
export function testKeys(seed: number) {
  return testLogKeys('red.example', (n) => new Uint8Array(32).fill(seed + n));
}

export async function testLog(options: Partial<KtLogOptions> = {}) {
  const made = testKeys(40);
  const clock = new ManualClock();
  const store = options.store ?? new MemoryTreeStore();
  const log = await KtLog.open({
    ...made,
    store,
    suite: nativeSuite,
    clock,
    random: testRandom,
    sequencerLimits: { batchMs: 0 },
    ...options,
  });
  return { ...made, log, clock, store, verifier: logVerifier(made.config, nativeSuite) };
}
