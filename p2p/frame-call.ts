/**
 * The calling side of a stream of frames: numbered requests, many in flight, answers in any order.
 * Bounded: what is above the bounds fails at once, so that a slow peer costs nothing but its calls.
 */
import {
  encodeRequest,
  FrameParser,
  responseFormat,
  TransportError,
  type Clock,
  type RequestFrame,
  type ResponseFrame,
} from '@quicprochat/proto';
import type { CallOptions } from '@quicprochat/proto/transport';
import type { ByteStream } from './byte-stream.ts';

export const frameCallLimits = {
  /** Requests without an answer; the other side refuses what is above. */
  calls: 64,
  /** Of those requests together (bytes). */
  bytes: 4 * 1024 * 1024,
  /** Calls that wait for a place. */
  waiting: 1_024,
  /** Bound of an answer (bytes). */
  responseBytes: 1024 * 1024,
} as const;

interface Pending {
  readonly bytes: number;
  settle(result: ResponseFrame | TransportError): void;
}
interface Waiting extends Pending {
  readonly send: () => void;
}

export class FrameCaller {
  readonly #stream: ByteStream;
  readonly #clock: Clock;
  readonly #pending = new Map<number, Pending>();
  readonly #waiting: Waiting[] = [];
  #bytes = 0;
  #lastId = 0;
  #ended: TransportError | undefined;

  constructor(stream: ByteStream, clock: Clock) {
    this.#stream = stream;
    this.#clock = clock;
    const parser = new FrameParser(responseFormat(frameCallLimits.responseBytes));
    stream.onData((chunk) => {
      if (this.#ended !== undefined) return;
      try {
        for (const frame of parser.push(chunk)) this.#answer(frame);
      } catch (error) {
        this.#end(
          error instanceof TransportError
            ? error
            : new TransportError('internal', 'answer', { cause: error }),
        );
      }
    });
    void stream.closed.then(() => this.#end(new TransportError('closed', 'the stream has ended')));
  }

  get isOpen(): boolean {
    return this.#ended === undefined;
  }
  get isIdle(): boolean {
    return this.#pending.size === 0 && this.#waiting.length === 0;
  }

  /**
   * Sends one request and resolves with its answer, whatever its status; the request's own id does
   * not travel. Throws TransportError `timeout`, `closed`, `cancelled`, `limit` or `protocol`.
   */
  call(request: RequestFrame, options: CallOptions): Promise<ResponseFrame> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (this.#waiting.length >= frameCallLimits.waiting) {
      return Promise.reject(new TransportError('limit', `${this.#waiting.length} calls wait`));
    }
    const id = (this.#lastId = (this.#lastId + 1) >>> 0);
    const { signal } = options;
    const result = Promise.withResolvers<ResponseFrame>();
    let isSettled = false;
    const settle = (outcome: ResponseFrame | TransportError): void => {
      if (isSettled) return;
      isSettled = true;
      timer.cancel();
      signal?.removeEventListener('abort', onAbort);
      if (outcome instanceof TransportError) result.reject(outcome);
      else if (outcome.payload.length <= options.maxResponseBytes) result.resolve(outcome);
      else result.reject(new TransportError('protocol', `answer: ${outcome.payload.length} bytes`));
    };
    const fail = (error: TransportError): void => {
      const at = this.#waiting.findIndex((one) => one.settle === settle);
      // A request that has left keeps its place until its answer comes or the stream ends.
      if (at >= 0) this.#waiting.splice(at, 1);
      settle(error);
    };
    const onAbort = (): void => fail(new TransportError('cancelled', 'the caller gave up'));
    const timer = this.#clock.timer(options.deadlineMs, () =>
      fail(new TransportError('timeout', `no answer in ${options.deadlineMs} ms`)),
    );
    signal?.addEventListener('abort', onAbort, { once: true });
    const bytes = request.payload.length;
    const send = (): void => {
      this.#pending.set(id, { bytes, settle });
      this.#bytes += bytes;
      this.#stream.write(encodeRequest({ ...request, requestId: id }));
    };
    this.#waiting.push({ bytes, settle, send });
    if (signal?.aborted === true) onAbort();
    this.#pump();
    return result.promise;
  }

  #pump(): void {
    for (;;) {
      const next = this.#waiting[0];
      if (next === undefined || this.#pending.size >= frameCallLimits.calls) return;
      // The first always goes: a request may be as large as the bound.
      if (this.#pending.size > 0 && this.#bytes + next.bytes > frameCallLimits.bytes) return;
      this.#waiting.shift();
      next.send();
    }
  }

  #answer(frame: ResponseFrame): void {
    const pending = this.#pending.get(frame.requestId);
    if (pending === undefined) {
      throw new TransportError('protocol', 'an answer to nothing');
    }
    this.#pending.delete(frame.requestId);
    this.#bytes -= pending.bytes;
    pending.settle(frame);
    this.#pump();
  }

  #end(error: TransportError): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    this.#stream.abort(error.message);
    for (const one of [...this.#pending.values(), ...this.#waiting]) one.settle(error);
    this.#pending.clear();
    this.#waiting.length = 0;
    this.#bytes = 0;
  }

  close(): void {
    this.#end(new TransportError('closed', 'closed here'));
  }
}
