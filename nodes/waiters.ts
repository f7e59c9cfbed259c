/** FetchWait: holds a call until its device's inbox gets a row. The newest waiter of a device wins. */
import type { Clock } from '@quicprochat/proto';

interface Wait extends Disposable {
  /** Resolves when rows came, the time is over, the call was cancelled or a newer waiter came. */
  readonly done: Promise<void>;
}

export class InboxWaiters {
  readonly #clock: Clock;
  readonly #byRid = new Map<string, () => void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  wait(rid: Uint8Array, waitMs: number, signal: AbortSignal): Wait {
    const key = Buffer.from(rid).toString('hex');
    this.#byRid.get(key)?.();
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = this.#clock.timer(waitMs, resolve);
    this.#byRid.set(key, resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
    return {
      done: promise,
      [Symbol.dispose]: () => {
        timer.cancel();
        if (this.#byRid.get(key) === resolve) this.#byRid.delete(key);
      },
    };
  }

  rowsAdded(ridHex: string): void {
    this.#byRid.get(ridHex)?.();
  }

  /** The device left: its waiter looks for itself now. */
  release(rid: Uint8Array): void {
    this.rowsAdded(Buffer.from(rid).toString('hex'));
  }

  /** Lets every waiter go, with what there is. */
  releaseAll(): void {
    for (const release of this.#byRid.values()) release();
  }
}
