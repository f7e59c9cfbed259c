/**
 * How long the own node may owe an answer before it counts as silent (docs/protocol/p2p.md, "The ladder"): two
 * seconds, or twice the slowest answer of the last minutes, so that a node that is slow under load is not
 * taken for a dead one again and again.
 */
import type { Clock } from '@quicprochat/proto';

export const patienceLimits = {
  minMs: 2_000,
  maxMs: 8_000,
  /** After this time a slow answer counts for half (ms). */
  halfMs: 5 * 60_000,
} as const;

export class Patience {
  readonly #clock: Clock;
  #slowestMs = 0;
  #atMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get ms(): number {
    const { minMs, maxMs } = patienceLimits;
    return Math.min(maxMs, Math.max(minMs, 2 * this.#slowestNow()));
  }

  /** The node answered after so long, or is known to have lived through so long without an answer. */
  answered(afterMs: number): void {
    if (afterMs < this.#slowestNow()) return;
    this.#slowestMs = afterMs;
    this.#atMs = this.#clock.monotonic();
  }

  #slowestNow(): number {
    return (
      this.#slowestMs * 0.5 ** ((this.#clock.monotonic() - this.#atMs) / patienceLimits.halfMs)
    );
  }
}
