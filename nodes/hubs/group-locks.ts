/** One at a time for each group: commits of one group are decided one after the other. */
import { ResourceExhaustedError } from '@quicprochat/proto';

export class GroupLocks {
  readonly #max: number;
  readonly #queues = new Map<string, { tail: Promise<void>; waiting: number }>();

  /** `max`: how many may wait for one group. */
  constructor(max: number) {
    this.#max = max;
  }

  /** Throws ResourceExhaustedError OVERLOADED when too many wait already, and what the work throws. */
  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const queue = this.#queues.get(key) ?? { tail: Promise.resolve(), waiting: 0 };
    if (queue.waiting > this.#max) {
      throw new ResourceExhaustedError('OVERLOADED', 'too many commits wait for this group');
    }
    this.#queues.set(key, queue);
    queue.waiting += 1;
    const before = queue.tail;
    const turn = Promise.withResolvers<void>();
    queue.tail = turn.promise;
    try {
      await before;
      return await work();
    } finally {
      queue.waiting -= 1;
      if (queue.waiting === 0) this.#queues.delete(key);
      turn.resolve();
    }
  }
}
