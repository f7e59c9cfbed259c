/** Who is told of new rows. A listener that throws does not keep the others from hearing. */
import type { Log } from '@quicprochat/proto';

export class RowListeners {
  readonly #log: Log;
  readonly #listeners = new Set<(ridHex: string) => void>();

  constructor(log: Log) {
    this.#log = log;
  }

  add(listener: (ridHex: string) => void): Disposable {
    // The same function may be added twice, and each time ends by itself.
    const own = (ridHex: string): void => listener(ridHex);
    this.#listeners.add(own);
    return { [Symbol.dispose]: () => void this.#listeners.delete(own) };
  }

  tell(woken: readonly string[]): void {
    for (const ridHex of woken) {
      for (const listener of this.#listeners) {
        try {
          listener(ridHex);
        } catch (error) {
          // The commit stands; the reader finds the row with its next fetch.
          this.#log.error('row listener failed', { error: String(error) });
        }
      }
    }
  }
}
