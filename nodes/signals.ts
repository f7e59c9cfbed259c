/** What the operator says to a running node by signals. */

/** SIGHUP, which may come before there is anything that reads its files again: then it is remembered. */
export class Hangups {
  #reload: (() => void) | undefined;
  #isDue = false;

  constructor() {
    process.on('SIGHUP', () => {
      if (this.#reload === undefined) this.#isDue = true;
      else this.#reload();
    });
  }

  take(reload: () => void): void {
    this.#reload = reload;
    if (this.#isDue) reload();
  }
}

export function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    process.once('SIGTERM', () => resolve());
    process.once('SIGINT', () => resolve());
  });
}
