/**
 * The store's thread, seen from outside: calls of one turn travel in one message, at most two
 * batches are under way (one commits, one waits), and what waits here is bounded. Reads of the key
 * log do not go there: they have a connection in this thread.
 */
import { Worker } from 'node:worker_threads';
import {
  InternalError,
  ResourceExhaustedError,
  UnavailableError,
  type Clock,
  type Runtime,
} from '@quicprochat/proto';
import { isFatal, storeFailed } from './failure.ts';
import {
  errorFromMessage,
  pack,
  type FromWorker,
  type OutcomeMessage,
  type ToWorker,
  type WorkerStart,
} from './messages.ts';
import type {
  OperationArgs,
  OperationName,
  OperationRequest,
  OperationResult,
} from './operations.ts';
import { ReadConnection, type StoreReads } from './reads.ts';
import { RowListeners } from './row-listeners.ts';
import type { StoreChannel } from './store-client.ts';

/** Bounds of what the thread has not answered yet. */
export const channelLimits = {
  batchesUnderWay: 2,
  callsPerBatch: 512,
  bytesPerBatch: 4 * 1024 * 1024,
  callsWaiting: 8_192,
  bytesWaiting: 64 * 1024 * 1024,
  overloadRetryMs: 200,
} as const;

interface PendingCall {
  readonly request: OperationRequest;
  readonly buffer: ArrayBuffer;
  /** Of `buffer`, which is empty once it is transferred. */
  readonly bytes: number;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class WorkerChannel implements StoreChannel {
  readonly failed: Promise<Error>;
  readonly #worker: Worker;
  readonly #clock: Clock;
  readonly #listeners: RowListeners;
  readonly #waiting: PendingCall[] = [];
  readonly #underWay: PendingCall[][] = [];
  readonly #opened = Promise.withResolvers<Uint8Array>();
  readonly #closed = Promise.withResolvers<void>();
  #storeId: Uint8Array = new Uint8Array();
  #reader: ReadConnection | undefined;
  #callCount = 0;
  #byteCount = 0;
  #isFlushPlanned = false;
  #isClosing = false;
  #isCloseSent = false;
  #failure: Error | undefined;
  readonly #reportFailure: (error: Error) => void;

  /** Starts the thread. Rejects with StoreOpenError. The key is copied; the copy is wiped. */
  static async open(start: WorkerStart, runtime: Runtime): Promise<WorkerChannel> {
    const key = new Uint8Array(start.key);
    // The extension is not rewritten inside a URL when this file is emitted as JavaScript.
    const file = import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js';
    const workerData: WorkerStart = { path: start.path, key, limits: { ...start.limits } };
    const worker = new Worker(new URL(file, import.meta.url), {
      name: 'qpc-store',
      workerData,
      transferList: [key.buffer],
    });
    const channel = new WorkerChannel(worker, runtime);
    channel.#storeId = await channel.#opened.promise;
    try {
      channel.#reader = new ReadConnection(start.path, start.key);
      return channel;
    } catch (error) {
      await channel.close();
      throw error;
    }
  }

  private constructor(worker: Worker, { clock, log }: Runtime) {
    this.#worker = worker;
    this.#clock = clock;
    this.#listeners = new RowListeners(log);
    const failed = Promise.withResolvers<Error>();
    this.failed = failed.promise;
    this.#reportFailure = failed.resolve;
    worker.on('message', (message: FromWorker) => this.#receive(message));
    worker.on('error', (error) => this.#fail(asError(error)));
    worker.on('exit', (code) => this.#exited(code));
  }

  get storeId(): Uint8Array {
    return this.#storeId;
  }

  call<N extends OperationName>(name: N, ...args: OperationArgs<N>): Promise<OperationResult<N>> {
    return new Promise<OperationResult<N>>((resolve, reject) => {
      const refusal = this.#refusal();
      if (refusal !== undefined) {
        reject(refusal);
        return;
      }
      // Copied now: the caller may use its buffers again.
      const packed = pack(args);
      this.#waiting.push({
        // The signature of `call` pairs them.
        request: { name, args: packed.value } as unknown as OperationRequest,
        buffer: packed.buffer,
        bytes: packed.buffer.byteLength,
        // The worker answers an operation with its result.
        resolve: (value) => resolve(value as OperationResult<N>),
        reject,
      });
      this.#callCount += 1;
      this.#byteCount += packed.buffer.byteLength;
      this.#planFlush();
    });
  }

  read<T>(query: (reads: StoreReads) => T): T {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#reader === undefined) throw closedError();
    try {
      return query(this.#reader.reads);
    } catch (error) {
      if (!isFatal(error)) throw error;
      const failure = storeFailed(error);
      this.#fail(failure);
      throw failure;
    }
  }

  onRows(listener: (ridHex: string) => void): Disposable {
    return this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    // Before the thread: the last connection that closes puts the WAL away, and this one only reads.
    this.#reader?.[Symbol.dispose]();
    this.#reader = undefined;
    this.#flush();
    await this.#closed.promise;
  }

  #refusal(): Error | undefined {
    if (this.#failure !== undefined) return this.#failure;
    if (this.#isClosing) return closedError();
    const isFull =
      this.#callCount >= channelLimits.callsWaiting ||
      this.#byteCount >= channelLimits.bytesWaiting;
    if (!isFull) return undefined;
    return new ResourceExhaustedError('OVERLOADED', 'the store has too much to do', {
      retryAfterMs: channelLimits.overloadRetryMs,
    });
  }

  #planFlush(): void {
    if (this.#isFlushPlanned || this.#underWay.length >= channelLimits.batchesUnderWay) return;
    this.#isFlushPlanned = true;
    queueMicrotask(() => {
      this.#isFlushPlanned = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#failure !== undefined) return;
    while (this.#waiting.length > 0 && this.#underWay.length < channelLimits.batchesUnderWay) {
      this.#send(this.#nextBatch());
    }
    if (!this.#isClosing || this.#isCloseSent || this.#waiting.length > 0) return;
    this.#isCloseSent = true;
    this.#post({ type: 'close' }, []);
  }

  #nextBatch(): PendingCall[] {
    let count = 0;
    let bytes = 0;
    for (const call of this.#waiting) {
      bytes += call.bytes;
      if (count > 0 && bytes > channelLimits.bytesPerBatch) break;
      count += 1;
      if (count === channelLimits.callsPerBatch) break;
    }
    return this.#waiting.splice(0, count);
  }

  #send(batch: PendingCall[]): void {
    this.#underWay.push(batch);
    const requests = batch.map(({ request }) => request);
    const buffers = batch.map(({ buffer }) => buffer).filter((buffer) => buffer.byteLength > 0);
    this.#post({ type: 'batch', nowMs: this.#clock.now(), requests }, buffers);
  }

  #post(message: ToWorker, buffers: ArrayBuffer[]): void {
    this.#worker.postMessage(message, buffers);
  }

  #receive(message: FromWorker): void {
    switch (message.type) {
      case 'done':
        this.#storeId = message.storeId;
        this.#settle(message.batches, message.outcomes);
        this.#listeners.tell(message.woken);
        this.#flush();
        break;
      case 'failed':
        this.#fail(errorFromMessage(message.error));
        break;
      case 'open':
        this.#opened.resolve(message.storeId);
        break;
      case 'closed':
        break;
    }
  }

  #settle(batches: number, outcomes: readonly OutcomeMessage[]): void {
    const calls = this.#underWay.splice(0, batches).flat();
    for (const [index, call] of calls.entries()) {
      this.#callCount -= 1;
      this.#byteCount -= call.bytes;
      const outcome = outcomes[index];
      if (outcome === undefined) call.reject(new InternalError('store: a call has no outcome'));
      else if (outcome.isOk) call.resolve(outcome.value);
      else call.reject(errorFromMessage(outcome.error));
    }
  }

  /** What was under way may be on disk or not; nobody is told that it is. */
  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    const calls = [...this.#underWay.splice(0).flat(), ...this.#waiting.splice(0)];
    for (const call of calls) call.reject(error);
    // Not terminated: a thread that ends closes the database, and that would sync again.
    this.#worker.unref();
    this.#opened.reject(error);
    this.#closed.resolve();
    this.#reportFailure(error);
  }

  #exited(code: number): void {
    if (this.#isCloseSent && code === 0 && this.#underWay.length === 0) this.#closed.resolve();
    else this.#fail(new InternalError(`store: the thread ended with code ${code}`));
  }
}

function closedError(): UnavailableError {
  return new UnavailableError('DRAINING', 'the store is closed');
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new InternalError(`store: ${String(error)}`);
}
