/**
 * Time of a simulation: a heap of what is due, run one after the other, each with everything that it
 * sets in motion done before the next. All work of a run happens inside of it, so the same seed gives
 * the same order of events.
 */
import type { Timer } from '@quicprochat/proto';

interface Due {
  readonly atMs: number;
  /** Equal times run in the order in which they were asked for. */
  readonly order: number;
  run: (() => void) | undefined;
}

export class Scheduler {
  #nowMs = 0;
  #order = 0;
  #steps = 0;
  readonly #heap: Due[] = [];

  /** Simulated ms since the run began. */
  get nowMs(): number {
    return this.#nowMs;
  }
  /** Events that ran. */
  get steps(): number {
    return this.#steps;
  }

  after(ms: number, run: () => void): Timer {
    const due: Due = { atMs: this.#nowMs + Math.max(0, ms), order: this.#order++, run };
    this.#push(due);
    return {
      cancel: () => {
        due.run = undefined;
      },
    };
  }

  /**
   * Runs what is due, one event after the other, until `isOver` or nothing is due before `untilMs`;
   * then it is `untilMs`.
   */
  async run(untilMs: number, isOver: () => boolean = () => false): Promise<void> {
    await quiet();
    while (!isOver() && (await this.step(untilMs)));
    if (!isOver()) this.#nowMs = Math.max(this.#nowMs, untilMs);
  }

  /** Runs the next event, whenever it is due, and all that it sets in motion. False: there is none. */
  async step(untilMs = Number.POSITIVE_INFINITY): Promise<boolean> {
    let due = this.#heap[0];
    while (due !== undefined && due.run === undefined) {
      this.#pop();
      due = this.#heap[0];
    }
    if (due?.run === undefined || due.atMs > untilMs) return false;
    this.#pop();
    this.#nowMs = due.atMs;
    this.#steps += 1;
    due.run();
    await quiet();
    return true;
  }

  #push(due: Due): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(due);
    while (at > 0) {
      const up = (at - 1) >> 1;
      const parent = heap[up];
      if (parent === undefined || !isBefore(due, parent)) break;
      heap[at] = parent;
      at = up;
    }
    heap[at] = due;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      const left = heap[2 * at + 1];
      const right = heap[2 * at + 2];
      if (left === undefined) break;
      const isRight = right !== undefined && isBefore(right, left);
      const child = isRight ? right : left;
      if (!isBefore(child, last)) break;
      heap[at] = child;
      at = 2 * at + (isRight ? 2 : 1);
    }
    heap[at] = last;
  }
}

function isBefore(one: Due, other: Due): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}

/** One turn of the event loop: every promise job has run, also those that others start. */
function quiet(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
