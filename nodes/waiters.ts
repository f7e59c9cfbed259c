/** FetchWait: holds a call until one of its logs gets a row. The newest waiter of a device wins. */
import type { Clock } from '@quicprochat/proto';

interface Wait extends Disposable {
  /** Resolves when rows came, the time is over, the call was cancelled or a newer waiter came. */
  readonly done: Promise<void>;
}

export class LogWaiters {
  readonly #clock: Clock;
  readonly #byRid = new Map<string, () => void>();
  /** By the key of each log that is waited for (log-reader.ts). */
  readonly #byLog = new Map<string, Set<() => void>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `logs`: wake keys, each once. */
  wait(rid: Uint8Array, logs: readonly string[], waitMs: number, signal: AbortSignal): Wait {
    const key = Buffer.from(rid).toString('hex');
    this.#byRid.get(key)?.();
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = this.#clock.timer(waitMs, resolve);
    this.#byRid.set(key, resolve);
    for (const log of logs) {
      const waiting = this.#byLog.get(log) ?? new Set();
      this.#byLog.set(log, waiting.add(resolve));
    }
    signal.addEventListener('abort', () => resolve(), { once: true });
    return {
      done: promise,
      [Symbol.dispose]: () => {
        timer.cancel();
        if (this.#byRid.get(key) === resolve) this.#byRid.delete(key);
        for (const log of logs) {
          const waiting = this.#byLog.get(log);
          waiting?.delete(resolve);
          if (waiting?.size === 0) this.#byLog.delete(log);
        }
      },
    };
  }

  rowsAdded(log: string): void {
    for (const release of this.#byLog.get(log) ?? []) release();
  }

  /** The device left: its waiter looks for itself now. */
  release(rid: Uint8Array): void {
    this.#byRid.get(Buffer.from(rid).toString('hex'))?.();
  }

  /** Lets every waiter go, with what there is. */
  releaseAll(): void {
    for (const release of this.#byRid.values()) release();
  }
}
