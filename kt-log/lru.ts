/**
 * A cache that forgets what was not used for the longest time, bounded by a number of entries and by
 * their weight. Entries are immutable to it: whoever changes what they stand for removes them.
 */

export interface LruLimits {
  readonly countMax: number;
  /** Sum of the weights of all entries, in the unit of `weightOf`. */
  readonly weightMax: number;
}

export class LruCache<K, V> {
  readonly #limits: LruLimits;
  readonly #weightOf: (value: V) => number;
  /** Longest unused first: Map keeps the order of insertion. */
  readonly #entries = new Map<K, V>();
  #weight = 0;

  constructor(limits: LruLimits, weightOf: (value: V) => number) {
    this.#limits = limits;
    this.#weightOf = weightOf;
  }

  get size(): number {
    return this.#entries.size;
  }
  get weight(): number {
    return this.#weight;
  }

  get(key: K): V | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  /** Keeps a value as the one used last; one that is heavier than all of the cache is not kept. */
  set(key: K, value: V): void {
    this.delete(key);
    this.#entries.set(key, value);
    this.#weight += this.#weightOf(value);
    const { countMax, weightMax } = this.#limits;
    if (this.#entries.size > countMax || this.#weight > weightMax) this.#shrink();
  }

  /**
   * Down to 15/16 of the bounds: the iterator has to step over all that was deleted at the front, so
   * one by one each of a large cache would cost thousands of steps.
   */
  #shrink(): void {
    const countMax = lessSixteenth(this.#limits.countMax);
    const weightMax = lessSixteenth(this.#limits.weightMax);
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= countMax && this.#weight <= weightMax) return;
      this.delete(oldest);
    }
  }

  delete(key: K): void {
    const value = this.#entries.get(key);
    if (value === undefined) return;
    this.#entries.delete(key);
    this.#weight -= this.#weightOf(value);
  }

  clear(): void {
    this.#entries.clear();
    this.#weight = 0;
  }
}

const lessSixteenth = (limit: number): number => limit - Math.floor(limit / 16);
