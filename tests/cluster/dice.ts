/**
 * Seeded choices of a test (mulberry32): the same seed asks for the same kills and payloads. Real
 * processes still race, so a seed repeats the plan of a run and not the run. Not fit for keys.
 */
import { randomInt } from 'node:crypto';

export class Dice {
  readonly seed: number;
  #state: number;

  /** Without a seed: QPC_SEED from the environment, else a fresh one, to be printed. */
  constructor(seed = Number(process.env['QPC_SEED'] ?? randomInt(2 ** 32))) {
    this.seed = seed;
    this.#state = seed >>> 0;
  }

  /** Dice of a part of the test, which rolls apart from the others. */
  branch(index: number): Dice {
    return new Dice((this.seed ^ Math.imul(index + 1, 0x9e3779b1)) >>> 0);
  }

  /** An integer in [0, bound). */
  int(bound: number): number {
    return Math.floor((this.#next() / 2 ** 32) * bound);
  }

  /** True in `share` of all rolls. */
  chance(share: number): boolean {
    return this.#next() < share * 2 ** 32;
  }

  bytes(length: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length }, () => this.#next() >>> 24);
  }

  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }
}
