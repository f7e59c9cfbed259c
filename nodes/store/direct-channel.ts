/**
 * The store in this thread, one transaction for each call: for a simulation, which owns time and
 * order, and for tools. It blocks while it syncs; a node uses the worker.
 */
import { UnavailableError, type Runtime } from '@quicprochat/proto';
import { StoreCore } from './core.ts';
import { StoreFailedError } from './failure.ts';
import { pack } from './messages.ts';
import type {
  OperationArgs,
  OperationName,
  OperationRequest,
  OperationResult,
} from './operations.ts';
import type { StoreReads } from './reads.ts';
import { RowListeners } from './row-listeners.ts';
import type { StoreChannel } from './store-client.ts';
import type { StoreLimits } from './store-limits.ts';

export class DirectChannel implements StoreChannel {
  readonly failed: Promise<Error>;
  readonly #core: StoreCore;
  readonly #runtime: Runtime;
  readonly #listeners: RowListeners;
  readonly #reportFailure: (error: Error) => void;
  #isClosed = false;

  /** Throws StoreOpenError. */
  constructor(options: { path: string; key: Uint8Array; limits: StoreLimits; runtime: Runtime }) {
    this.#runtime = options.runtime;
    this.#core = new StoreCore({ ...options, random: options.runtime.random });
    this.#listeners = new RowListeners(options.runtime.log);
    const failed = Promise.withResolvers<Error>();
    this.failed = failed.promise;
    this.#reportFailure = failed.resolve;
  }

  get storeId(): Uint8Array {
    return this.#core.storeId;
  }

  async call<N extends OperationName>(
    name: N,
    ...args: OperationArgs<N>
  ): Promise<OperationResult<N>> {
    this.#needOpen();
    try {
      // The signature of `call` pairs name and arguments; they are copied as on the way to a thread.
      const request = { name, args: pack(args).value } as unknown as OperationRequest;
      const { outcomes, woken } = this.#core.run(this.#runtime.clock.now(), [request]);
      this.#core.checkpointIfDue();
      this.#listeners.tell(woken);
      const outcome = outcomes[0];
      if (outcome?.isOk !== true) throw outcome?.error ?? new StoreFailedError('no outcome');
      // The operation of this name returned it.
      return pack(outcome.value).value as OperationResult<N>;
    } catch (error) {
      throw this.#noted(error);
    }
  }

  read<T>(query: (reads: StoreReads) => T): T {
    this.#needOpen();
    try {
      return this.#core.read(query);
    } catch (error) {
      throw this.#noted(error);
    }
  }

  #needOpen(): void {
    if (this.#isClosed) throw new UnavailableError('DRAINING', 'the store is closed');
  }

  #noted(error: unknown): unknown {
    if (error instanceof StoreFailedError) this.#reportFailure(error);
    return error;
  }

  onRows(listener: (ridHex: string) => void): Disposable {
    return this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#core[Symbol.dispose]();
  }
}
