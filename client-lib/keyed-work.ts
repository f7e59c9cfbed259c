/**
 * Work that is wanted by key: one run of a key at a time, a few keys at once, and what failed again
 * later with a back-off of its own, so that one that hangs or fails holds up no other.
 */
import { jitter, type Runtime } from '@quicprochat/proto';

export interface KeyedWorkOptions<T> {
  readonly runtime: Pick<Runtime, 'clock' | 'random'>;
  /** Runs at once at most; one that waits after a failure is none. */
  readonly atOnce: number;
  /** First and longest wait after a failure (ms). */
  readonly backOffMinMs: number;
  readonly backOffMaxMs: number;
  /** False: to be run again. Must not throw. */
  readonly run: (item: T, signal: AbortSignal) => Promise<boolean>;
}

interface Job<T> {
  readonly item: T;
  failures: number;
  /** It was wanted once more while it ran. */
  isAgain: boolean;
  state: 'ready' | 'running' | 'waiting';
}

export class KeyedWork<T> {
  readonly #options: KeyedWorkOptions<T>;
  readonly #jobs = new Map<string, Job<T>>();
  readonly #stop = new AbortController();
  #hurry = new AbortController();
  readonly #tasks = new Set<Promise<void>>();
  #running = 0;

  constructor(options: KeyedWorkOptions<T>) {
    this.#options = options;
  }

  /**
   * Runs the item, or once more when a run of its key is under way. One that waits after a failure is
   * not hurried. Nothing after `stop`.
   */
  want(key: string, item: T): void {
    if (this.#stop.signal.aborted) return;
    const known = this.#jobs.get(key);
    if (known === undefined) {
      this.#jobs.set(key, { item, failures: 0, isAgain: false, state: 'ready' });
      this.#startReady();
    } else if (known.state === 'running') known.isAgain = true;
  }

  /** What waits after a failure runs now. */
  hurry(): void {
    this.#hurry.abort();
    this.#hurry = new AbortController();
  }

  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  get isIdle(): boolean {
    return this.#jobs.size === 0;
  }

  /** Resolves when nothing is wanted any more. */
  async idle(): Promise<void> {
    while (this.#tasks.size > 0) await Promise.all(this.#tasks);
  }

  /** Resolves when nothing runs; what was wanted is forgotten. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.idle();
    this.#jobs.clear();
  }

  #startReady(): void {
    for (const [key, job] of this.#jobs) {
      if (this.#running >= this.#options.atOnce) return;
      if (job.state !== 'ready') continue;
      job.state = 'running';
      this.#running += 1;
      const task = this.#runOne(key, job).finally(() => this.#tasks.delete(task));
      this.#tasks.add(task);
    }
  }

  async #runOne(key: string, job: Job<T>): Promise<void> {
    const { run, runtime, backOffMinMs, backOffMaxMs } = this.#options;
    const { signal } = this.#stop;
    // Asked for inside of an event: whoever did that goes on first.
    await Promise.resolve();
    const isDone = signal.aborted || (await run(job.item, signal));
    this.#running -= 1;
    if (isDone && !job.isAgain) this.#jobs.delete(key);
    else {
      job.isAgain = false;
      job.state = isDone ? 'ready' : 'waiting';
      job.failures = isDone ? 0 : Math.min(job.failures + 1, 16);
    }
    if (signal.aborted) return;
    this.#startReady();
    if (job.state !== 'waiting' || isDone) return;
    const boundMs = Math.min(backOffMaxMs, backOffMinMs * 2 ** job.failures);
    // Half of the bound at least: without a connection each try fails at once.
    const waitMs = boundMs / 2 + jitter(runtime.random, boundMs / 2);
    const awake = AbortSignal.any([signal, this.#hurry.signal]);
    await runtime.clock.sleep(waitMs, awake).catch(() => undefined);
    if (signal.aborted) return;
    job.state = 'ready';
    this.#startReady();
  }
}
