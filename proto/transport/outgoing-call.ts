/**
 * One call from our side: waits for a slot, writes the request, reads one response frame. It ends
 * exactly once: with the response, at its deadline, by its signal, or with the connection.
 */
import { encodeRequest, FrameParser, responseFormat } from '../frame.ts';
import type { RequestFrame, ResponseFrame } from '../frame.ts';
import { TransportError } from '../status.ts';
import type { Deadlines } from './deadlines.ts';
import type { ByteStream, StreamSession } from './session.ts';
import type { StreamSlots } from './stream-slots.ts';
import type { CallOptions } from './transport.ts';

/** Our own errors pass as they are; whatever else a broken engine throws becomes `internal`. */
export function asTransportError(error: unknown): TransportError {
  if (error instanceof TransportError) return error;
  return new TransportError('internal', 'transport: unexpected error', { cause: error });
}

/** What a call needs of its connection. */
export interface CallHost {
  readonly session: StreamSession;
  readonly slots: StreamSlots;
  readonly deadlines: Deadlines;
  /** The calls that have not ended. */
  readonly calls: Set<OutgoingCall>;
}

export class OutgoingCall {
  /** The response; rejects with TransportError only. */
  readonly response: Promise<ResponseFrame>;
  readonly #host: CallHost;
  readonly #request: RequestFrame;
  readonly #options: CallOptions;
  readonly #parser: FrameParser<ResponseFrame>;
  #resolve!: (response: ResponseFrame) => void;
  #reject!: (error: TransportError) => void;
  #meetDeadline: () => void;
  #withdraw: (() => void) | undefined;
  #stream: ByteStream | undefined;
  #isWritten = false;
  #isEnded = false;

  /** Queues the call. */
  constructor(host: CallHost, request: RequestFrame, options: CallOptions) {
    this.#host = host;
    this.#request = request;
    this.#options = options;
    this.#parser = new FrameParser(responseFormat(options.maxResponseBytes));
    this.response = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    const { deadlineMs, signal } = options;
    host.calls.add(this);
    this.#meetDeadline = host.deadlines.add(deadlineMs, () => {
      this.fail(new TransportError('timeout', `call: no response within ${deadlineMs} ms`));
    });
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (signal?.aborted) this.#onAbort();
    else this.#place();
  }

  #place(): void {
    try {
      this.#withdraw = this.#host.slots.request(() => this.#start());
    } catch (error) {
      this.fail(asTransportError(error));
    }
  }

  /** Ends the call with the error, unless it ended before; the peer is told that nobody waits. */
  fail(error: TransportError): void {
    if (this.#isEnded) return;
    this.#stream?.reset('cancelled');
    this.#end();
    this.#reject(error);
  }

  readonly #onAbort = (): void => {
    const { signal } = this.#options;
    this.fail(new TransportError('cancelled', 'call: cancelled', { cause: signal?.reason }));
  };

  #end(): void {
    this.#isEnded = true;
    this.#meetDeadline();
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#withdraw?.();
    if (this.#stream) this.#host.slots.release();
    this.#host.calls.delete(this);
  }

  #start(): void {
    try {
      this.#stream = this.#host.session.openStream('call');
    } catch (error) {
      this.#host.slots.release();
      this.fail(asTransportError(error));
      return;
    }
    this.#write(this.#stream);
    this.#read(this.#stream);
  }

  #write(stream: ByteStream): void {
    const written = stream.finish(encodeRequest(this.#request));
    if (written === undefined) this.#isWritten = true;
    else written.then(this.#onWritten, ignore);
  }

  readonly #onWritten = (): void => {
    this.#isWritten = true;
  };

  #read(stream: ByteStream): void {
    const chunk = stream.read();
    if (chunk instanceof Promise) chunk.then(this.#onChunk, this.#onError);
    else this.#onChunk(chunk);
  }

  readonly #onError = (error: unknown): void => this.fail(asTransportError(error));

  readonly #onChunk = (chunk: Uint8Array | undefined): void => {
    const stream = this.#stream;
    if (this.#isEnded || !stream) return;
    try {
      if (chunk === undefined) throw new TransportError('protocol', 'response: ended early');
      const frames = this.#parser.push(chunk);
      if (frames.length === 0) this.#read(stream);
      else this.#succeed(stream, frames);
    } catch (error) {
      this.fail(asTransportError(error));
    }
  };

  #succeed(stream: ByteStream, frames: readonly ResponseFrame[]): void {
    const [response] = frames;
    const isExact = frames.length === 1 && this.#parser.isEmpty;
    if (response?.requestId !== this.#request.requestId || !isExact) {
      throw new TransportError('protocol', 'response: not the one frame of this request');
    }
    // The message ended where its length says. The end of the stream is not waited for.
    if (this.#isWritten) stream.stopReading();
    else stream.reset('done');
    this.#end();
    this.#resolve(response);
  }
}

function ignore(): void {
  // The peer stopped reading: it may have answered early, so the read side tells what happened.
}
