/**
 * What a program reaches besides its interfaces, in a simulation's hands: `Date.now`, which ts-mls reads,
 * is simulated time; threads (OPAQUE) and WebCrypto are counted. While accounts are prepared, simulated
 * time waits for those; in a run there must be none. Errors that nobody caught, which would end a
 * process, are collected.
 */
import { setTimeout as realSleep } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { answerAtOnce } from './instant-crypto.ts';
import { epochMs } from './process.ts';
import type { Scheduler } from './scheduler.ts';

export class Outside implements Disposable {
  /** What would have ended the process. */
  readonly uncaught: string[] = [];
  #outstanding = 0;
  #begun = 0;
  readonly #onWorker = (worker: Worker): void => {
    this.#begin();
    worker.once('exit', () => this.#end());
  };
  readonly #onUncaught = (error: unknown): void => {
    this.uncaught.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
  };
  readonly #restore: (() => void)[] = [];

  readonly #scheduler: Scheduler;

  /** `isQuick`: errors have no stacks. */
  constructor(scheduler: Scheduler, isQuick = false) {
    this.#scheduler = scheduler;
    const { now } = Date;
    Date.now = () => Math.floor(epochMs + scheduler.nowMs);
    this.#restore.push(() => {
      Date.now = now;
    });
    // Every lost reply is an error, and half of its cost would be a stack that nobody reads.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = isQuick ? 0 : stackTraceLimit;
    this.#restore.push(() => {
      Error.stackTraceLimit = stackTraceLimit;
    });
    const any = AbortSignal.any.bind(AbortSignal);
    AbortSignal.any = joined;
    this.#restore.push(() => {
      AbortSignal.any = any;
    });
    process.on('worker', this.#onWorker);
    process.on('unhandledRejection', this.#onUncaught);
    process.on('uncaughtException', this.#onUncaught);
    const { subtle } = globalThis.crypto;
    for (const name of [
      'importKey',
      'sign',
      'verify',
      'generateKey',
      'digest',
      'exportKey',
    ] as const) {
      const original: unknown = Reflect.get(subtle, name);
      if (typeof original !== 'function') continue;
      const counted = (...args: unknown[]): unknown => {
        const answer = answerAtOnce(name, args);
        if (answer !== undefined) return Promise.resolve(answer);
        this.#begin();
        const result: unknown = Reflect.apply(original, subtle, args);
        void Promise.resolve(result).then(
          () => this.#end(),
          () => this.#end(),
        );
        return result;
      };
      Reflect.defineProperty(subtle, name, { value: counted, configurable: true });
      this.#restore.push(() => Reflect.deleteProperty(subtle, name));
    }
  }

  /** Pieces of work that were begun since this counter was made. */
  get begun(): number {
    return this.#begun;
  }

  /** Runs the simulation until the promise settles; time stands still while other work is going on. */
  async finish<T>(work: Promise<T>, maxMs: number): Promise<T> {
    const scheduler = this.#scheduler;
    let isOver = false;
    const settled = work.finally(() => (isOver = true));
    settled.catch(() => undefined);
    const endMs = scheduler.nowMs + maxMs;
    while (!isOver && scheduler.nowMs < endMs) {
      await scheduler.run(scheduler.nowMs, () => isOver);
      if (isOver) break;
      if (this.#outstanding > 0) await realSleep(1);
      else await scheduler.step();
    }
    if (!isOver) throw new Error(`not done in ${maxMs} simulated ms`);
    return settled;
  }

  [Symbol.dispose](): void {
    process.off('worker', this.#onWorker);
    process.off('unhandledRejection', this.#onUncaught);
    process.off('uncaughtException', this.#onUncaught);
    for (const restore of this.#restore) restore();
  }

  #begin(): void {
    this.#outstanding += 1;
    this.#begun += 1;
  }
  #end(): void {
    this.#outstanding -= 1;
  }
}

/**
 * Node keeps what `AbortSignal.any` made for as long as somebody listens to it, and a process that died here
 * never stops listening: all that it held would stay for good.
 */
export function joined(signals: Iterable<AbortSignal>): AbortSignal {
  const controller = new AbortController();
  for (const one of signals) {
    const onAbort = (): void => controller.abort(one.reason);
    if (one.aborted) onAbort();
    else one.addEventListener('abort', onAbort, { once: true });
  }
  return controller.signal;
}
