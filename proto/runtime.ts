/**
 * The interfaces that a simulation owns: Clock, Random, Log; and the real ones beside them.
 * This file is the only home of Date, timers and the system's randomness outside `transport/`.
 */
import { randomBytes } from 'node:crypto';

/** Wall time, monotonic time and timers. */
export interface Clock {
  /** Milliseconds since the Unix epoch; may step. Only dates use it, never durations. */
  now(): number;
  /** Milliseconds, never goes back; the origin means nothing. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it is aborted first. The longest wait as of `timer`. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /**
   * Runs `callback` once after `ms` unless cancelled, and after 2^31 - 1 (24.8 days) at the latest: who waits for a
   * date looks again. Does not keep a process alive.
   */
  timer(ms: number, callback: () => void): Timer;
}
export interface Timer {
  cancel(): void;
}

/** A source of random bytes fit for keys. */
export interface Random {
  /** `length` fresh bytes, in memory of their own (never the shared Buffer pool). */
  bytes(length: number): Uint8Array<ArrayBuffer>;
}

export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;
/** A structured log. Fields are typed flat values: no objects, so no secret slips in whole. */
export interface Log {
  debug(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
}

/** What every part takes. */
export interface Runtime {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** The system takes a longer wait (ms) for one of a millisecond. */
const longestTimerMs = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep(ms, signal) {
    return new Promise<void>((resolve, reject) => {
      signal?.throwIfAborted();
      const onAbort = (): void => {
        clearTimeout(handle);
        reject(signal?.reason as Error);
      };
      const handle = setTimeout(
        () => {
          signal?.removeEventListener('abort', onAbort);
          resolve();
        },
        Math.min(ms, longestTimerMs),
      );
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  },
  timer(ms, callback) {
    const handle = setTimeout(callback, Math.min(ms, longestTimerMs));
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
};

export const systemRandom: Random = {
  bytes: (length) => new Uint8Array(randomBytes(length)),
};

/** A log that keeps nothing: the default of libraries. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };

/** A random integer in [0, bound), bound at most 2^32. Bias below 2^-20 is fine for jitter only. */
export function jitter(random: Random, bound: number): number {
  const bytes = random.bytes(6);
  let value = 0;
  for (const byte of bytes) value = value * 256 + byte;
  return Math.floor((value / 2 ** 48) * bound);
}
