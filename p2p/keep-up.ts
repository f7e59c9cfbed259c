/**
 * Something that shall be up for ever, such as a connection to a peer or a reservation at a relay:
 * tried again after rand(0, 1 s doubling to 60 s), from the start after it was up for a minute.
 * libp2p itself gives up after five tries.
 */
import { jitter, TransportError, type Runtime, type Timer } from '@quicprochat/proto';

export const keepUpLimits = {
  firstMs: 1_000,
  capMs: 60_000,
  /** Up that long, the next failure counts as the first (ms). */
  steadyMs: 60_000,
  /** One try (ms). */
  tryMs: 15_000,
  /** Between two looks whether it is still up, beside being told (ms). */
  lookMs: 30_000,
} as const;

export interface KeepUpOptions {
  readonly runtime: Pick<Runtime, 'clock' | 'random'>;
  /** Brings it up, or throws. */
  readonly connect: (signal: AbortSignal) => Promise<void>;
  readonly isUp: () => boolean;
  /** Told after each change, and why a try failed. */
  readonly onChange: (isUp: boolean, error?: unknown) => void;
}

export class KeepUp {
  readonly #options: KeepUpOptions;
  readonly #ended = new AbortController();
  #timer: Timer | undefined;
  #tries = 0;
  #upSinceMs: number | undefined;
  #isTrying = false;

  constructor(options: KeepUpOptions) {
    this.#options = options;
    void this.#try();
  }

  get isUp(): boolean {
    return this.#upSinceMs !== undefined;
  }

  /** To be called when it may have ended. */
  look(): void {
    if (this.#upSinceMs === undefined || this.#options.isUp()) return;
    const { clock } = this.#options.runtime;
    if (clock.monotonic() - this.#upSinceMs >= keepUpLimits.steadyMs) this.#tries = 0;
    this.#upSinceMs = undefined;
    this.#options.onChange(false);
    this.#plan();
  }

  /** Tries at once: the network or the other side is back. */
  wake(): void {
    if (this.#upSinceMs !== undefined || this.#isTrying) return;
    this.#tries = 0;
    void this.#try();
  }

  close(): void {
    this.#ended.abort(new TransportError('closed', 'not wanted any more'));
    this.#timer?.cancel();
  }

  async #try(): Promise<void> {
    this.#timer?.cancel();
    const { runtime, connect, isUp, onChange } = this.#options;
    const { clock } = runtime;
    const one = new AbortController();
    const signal = AbortSignal.any([this.#ended.signal, one.signal]);
    const timer = clock.timer(keepUpLimits.tryMs, () =>
      one.abort(new TransportError('timeout', `not up in ${keepUpLimits.tryMs} ms`)),
    );
    this.#isTrying = true;
    try {
      // What does not listen to the signal does not hold up the next try.
      await Promise.race([connect(signal), rejection(signal)]);
      if (!isUp()) throw new TransportError('closed', 'ended at once');
      this.#upSinceMs = clock.monotonic();
      if (!this.#ended.signal.aborted) onChange(true);
    } catch (error) {
      if (!this.#ended.signal.aborted) onChange(false, error);
    } finally {
      timer.cancel();
      this.#isTrying = false;
    }
    this.#plan();
  }

  #plan(): void {
    if (this.#ended.signal.aborted) return;
    const { runtime } = this.#options;
    this.#timer?.cancel();
    if (this.#upSinceMs !== undefined) {
      this.#timer = runtime.clock.timer(keepUpLimits.lookMs, () => {
        this.look();
        if (this.isUp) this.#plan();
      });
      return;
    }
    const { firstMs, capMs } = keepUpLimits;
    const boundMs = Math.min(capMs, firstMs * 2 ** Math.min(this.#tries, 16));
    this.#tries += 1;
    this.#timer = runtime.clock.timer(jitter(runtime.random, boundMs + 1), () => void this.#try());
  }
}

async function rejection(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}
