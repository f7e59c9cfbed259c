/**
 * The gate in front of new streams: at most `open` at a time, never more than the peer's credit, a
 * bounded queue in order of arrival behind it. Going over the peer's limit once breaks a connection
 * of the stock QUIC engine for good, so nothing opens a stream except through here.
 */
import { TransportError } from '../status.ts';

export class StreamSlots {
  readonly #open: number;
  readonly #queued: number;
  readonly #hasCredit: () => boolean;
  /** Insertion order is the order of service; deleting from the middle is cheap. */
  readonly #queue = new Set<() => void>();
  #opened = 0;
  #isPumping = false;

  constructor(
    limits: { readonly open: number; readonly queued: number },
    hasCredit: () => boolean,
  ) {
    this.#open = limits.open;
    this.#queued = limits.queued;
    this.#hasCredit = hasCredit;
  }

  /**
   * Runs `start` when a slot and credit are there, now if they are. `start` must open its stream
   * before it returns, must not throw, and owes one `release`. Returns a function that withdraws a
   * request that has not started; undefined when it has. Throws TransportError `limit` when the queue
   * is full.
   */
  request(start: () => void): (() => void) | undefined {
    if (this.#queue.size === 0 && !this.#isPumping && this.#isFree) {
      this.#opened += 1;
      start();
      return undefined;
    }
    if (this.#queue.size >= this.#queued) {
      throw new TransportError('limit', `streams: ${this.#queue.size} wait already`);
    }
    // A fresh function, so that the same `start` may wait twice.
    const entry = (): void => start();
    this.#queue.add(entry);
    this.pump();
    return () => void this.#queue.delete(entry);
  }

  release(): void {
    this.#opened -= 1;
    this.pump();
  }

  get #isFree(): boolean {
    return this.#opened < this.#open && this.#hasCredit();
  }

  /** Starts what may start; also to be called when the peer gave credit. */
  pump(): void {
    // A start that fails releases at once: the loop goes on by itself, without recursion.
    if (this.#isPumping || this.#queue.size === 0) return;
    this.#isPumping = true;
    for (const start of this.#queue) {
      if (!this.#isFree) break;
      this.#queue.delete(start);
      this.#opened += 1;
      start();
    }
    this.#isPumping = false;
  }
}
