/** The calls in flight of a node that stops. */
import type { Middleware } from '@quicprochat/proto';

/** Counts the calls in flight, so that a stopping node can wait for them. */
export class Drain {
  isDraining = false;
  #inFlight = 0;
  #whenEmpty: (() => void)[] = [];

  counted(): Middleware {
    return async (call, next) => {
      this.#inFlight += 1;
      try {
        return await next(call);
      } finally {
        this.#inFlight -= 1;
        if (this.#inFlight === 0) for (const resolve of this.#whenEmpty.splice(0)) resolve();
      }
    };
  }

  async empty(): Promise<void> {
    if (this.#inFlight > 0) await new Promise<void>((resolve) => this.#whenEmpty.push(resolve));
  }
}
