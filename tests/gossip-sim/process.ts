/**
 * One life of a simulated node: its clock and its disk stop answering when it dies, so nothing of it
 * happens afterwards. Wall clocks move in steps of ten minutes, so that what is signed with the time is
 * the same in many runs; durations are exact.
 */
import type { Clock, Log, Runtime, Timer } from '@quicprochat/proto';
import type { Dice } from '../cluster/dice.ts';
import type { Scheduler } from '../sim/scheduler.ts';

const epochMs = 1_800_000_000_000;
const wallStepMs = 600_000;

export class Process {
  readonly #scheduler: Scheduler;
  readonly runtime: Runtime;
  #isDead = false;

  constructor(scheduler: Scheduler, dice: Dice, log: Log) {
    this.#scheduler = scheduler;
    const random = { bytes: (length: number) => dice.bytes(length) };
    this.runtime = { clock: this.#clock(), random, log };
  }

  get isDead(): boolean {
    return this.#isDead;
  }

  kill(): void {
    this.#isDead = true;
  }

  #clock(): Clock {
    const scheduler = this.#scheduler;
    const timer = (ms: number, run: () => void): Timer =>
      scheduler.after(ms, () => {
        if (!this.#isDead) run();
      });
    return {
      now: () => epochMs + Math.floor(scheduler.nowMs / wallStepMs) * wallStepMs,
      monotonic: () => scheduler.nowMs,
      timer,
      sleep(ms, signal) {
        const { promise, resolve, reject } = Promise.withResolvers<void>();
        if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
        const onAbort = (): void => {
          slept.cancel();
          reject(signal?.reason as Error);
        };
        const slept = timer(ms, () => {
          signal?.removeEventListener('abort', onAbort);
          resolve();
        });
        signal?.addEventListener('abort', onAbort, { once: true });
        return promise;
      },
    };
  }

  /**
   * The store as this life sees it: writes take a moment and happen only if it still lives then;
   * nothing is answered to the dead.
   */
  disk<T extends object>(store: T, writes: readonly (keyof T)[], writeMs: () => number): T {
    const never = new Promise<never>(() => undefined);
    return new Proxy(store, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name);
        if (typeof value !== 'function') return value;
        const isWrite = writes.includes(name as keyof T);
        return async (...given: unknown[]): Promise<unknown> => {
          if (isWrite) await this.runtime.clock.sleep(writeMs());
          if (this.#isDead) return never;
          const answer: unknown = await Reflect.apply(value, target, given);
          return this.#isDead ? never : answer;
        };
      },
    });
  }
}
