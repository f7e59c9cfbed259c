/**
 * Many deadlines on few timers: calls have one each, of few lengths, and nearly all are met. Those of
 * one length end in the order in which they began, so one timer for the first of them does.
 */
import type { Clock, Timer } from '../runtime.ts';

interface Deadline {
  readonly at: number;
  readonly onPassed: () => void;
}

interface Line {
  readonly waiting: Set<Deadline>;
  timer: Timer | undefined;
}

export class Deadlines {
  readonly #clock: Clock;
  /** By length (ms); a line goes when nobody is left in it. */
  readonly #lines = new Map<number, Line>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Runs `onPassed` after `ms`, unless the function that this returns was called before. */
  add(ms: number, onPassed: () => void): () => void {
    const line = this.#lines.get(ms) ?? { waiting: new Set(), timer: undefined };
    const deadline: Deadline = { at: this.#clock.monotonic() + ms, onPassed };
    line.waiting.add(deadline);
    if (line.timer === undefined) {
      this.#lines.set(ms, line);
      this.#arm(ms, line, ms);
    }
    return () => this.#leave(ms, line, deadline);
  }

  #arm(ms: number, line: Line, leftMs: number): void {
    line.timer = this.#clock.timer(leftMs, () => this.#pass(ms, line));
  }

  #leave(ms: number, line: Line, deadline: Deadline): void {
    if (line.waiting.delete(deadline) && line.waiting.size === 0) this.#drop(ms, line);
  }

  #drop(ms: number, line: Line): void {
    line.timer?.cancel();
    line.timer = undefined;
    // Another one may have begun in its place.
    if (this.#lines.get(ms) === line) this.#lines.delete(ms);
  }

  #pass(ms: number, line: Line): void {
    const now = this.#clock.monotonic();
    for (const deadline of line.waiting) {
      // Its timer would not have rung yet either: clocks and timers are coarse.
      if (deadline.at > now) return this.#arm(ms, line, deadline.at - now);
      line.waiting.delete(deadline);
      deadline.onPassed();
    }
    this.#drop(ms, line);
  }
}
