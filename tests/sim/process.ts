/**
 * A process of the simulation, node or client, from its start to its end: its clock, its randomness and
 * its log. When it dies, nothing of it happens any more: timers are dropped and calls never return,
 * though its objects are still there.
 */
import { createHash } from 'node:crypto';
import type { Clock, Log, LogFields, Random, Runtime, Timer } from '@quicprochat/proto';
import type { Scheduler } from './scheduler.ts';

/** Start of simulated time (Unix ms). */
export const epochMs = Date.UTC(2027, 0, 15);

/** How a process's clock differs from true time. */
export interface ClockError {
  /** Wall clock minus true time (ms). */
  offsetMs: number;
  /** Seconds that pass on it in one true second. */
  readonly rate: number;
}

export const trueClock: ClockError = { offsetMs: 0, rate: 1 };

export type LogSink = (process: string, level: string, event: string, fields: LogFields) => void;

export class Process {
  readonly name: string;
  readonly runtime: Runtime;
  #isDead = false;
  readonly #onDeath: (() => void)[] = [];

  constructor(
    name: string,
    scheduler: Scheduler,
    options: { readonly random: Random; readonly clock?: ClockError; readonly onLog?: LogSink },
  ) {
    this.name = name;
    const clock = new ProcessClock(scheduler, this, options.clock ?? trueClock);
    this.runtime = { clock, random: options.random, log: this.#makeLog(options.onLog) };
  }

  get isDead(): boolean {
    return this.#isDead;
  }

  /** What becomes of the outside at the moment of death. */
  onDeath(work: () => void): void {
    this.#onDeath.push(work);
  }

  /** From here on nothing of this process reaches anybody. Idempotent. */
  die(): void {
    if (this.#isDead) return;
    this.#isDead = true;
    for (const work of this.#onDeath) work();
  }

  #makeLog(onLog: LogSink | undefined): Log {
    const write =
      (level: string) =>
      (event: string, fields: LogFields = {}): void => {
        if (!this.#isDead) onLog?.(this.name, level, event, fields);
      };
    return {
      debug: write('debug'),
      info: write('info'),
      warn: write('warn'),
      error: write('error'),
    };
  }
}

/** A promise that a dead process waits for. */
export function never<T>(): Promise<T> {
  return new Promise<T>(() => {});
}

class ProcessClock implements Clock {
  readonly #scheduler: Scheduler;
  readonly #process: Process;
  readonly #error: ClockError;

  constructor(scheduler: Scheduler, process: Process, error: ClockError) {
    this.#scheduler = scheduler;
    this.#process = process;
    this.#error = error;
  }

  now(): number {
    return Math.floor(epochMs + this.#error.offsetMs + this.monotonic());
  }

  monotonic(): number {
    return this.#scheduler.nowMs * this.#error.rate;
  }

  timer(ms: number, callback: () => void): Timer {
    return this.#scheduler.after(ms / this.#error.rate, () => {
      if (!this.#process.isDead) callback();
    });
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    const slept = Promise.withResolvers<void>();
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
}

/** Seeded bytes and choices (sfc32, 128 bits of state): for simulations only. */
export class SimRandom implements Random {
  #a: number;
  #b: number;
  #c: number;
  #count: number;

  /** Equal names give equal streams, others unrelated ones. */
  constructor(...name: readonly (string | number)[]) {
    const seed = createHash('sha256').update(JSON.stringify(name)).digest();
    this.#a = seed.readInt32LE(0);
    this.#b = seed.readInt32LE(4);
    this.#c = seed.readInt32LE(8);
    this.#count = seed.readInt32LE(12) | 1;
  }

  bytes(length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; at += 4) {
      const word = this.#word();
      for (let byte = 0; byte < 4 && at + byte < length; byte += 1) {
        bytes[at + byte] = word >>> (8 * byte);
      }
    }
    return bytes;
  }

  /** In [0, 1). */
  share(): number {
    return (this.#word() >>> 0) / 2 ** 32;
  }
  /** A whole number in [0, bound). */
  int(bound: number): number {
    return Math.floor(this.share() * bound);
  }
  between(low: number, high: number): number {
    return low + this.share() * (high - low);
  }
  chance(share: number): boolean {
    return this.share() < share;
  }
  /** Throws for an empty list. */
  pick<T>(list: readonly T[]): T {
    const one = list[this.int(list.length)];
    if (one === undefined) throw new Error('nothing to pick from');
    return one;
  }

  #word(): number {
    const sum = (this.#a + this.#b + this.#count) | 0;
    this.#count = (this.#count + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    this.#c |= 0;
    return sum;
  }
}
