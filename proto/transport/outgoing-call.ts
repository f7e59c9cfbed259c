/**
 * One call from our side: waits for a slot, writes the request, reads one response frame. It ends
 * exactly once: with the response, at its deadline, by its signal, or with the connection.
 */
import { encodeRequest, FrameParser, responseFormat } from '../frame.ts';
import type { RequestFrame, ResponseFrame } from '../frame.ts';
import type { Clock, Timer } from '../runtime.ts';
import { TransportError } from '../status.ts';
import type { ByteStream, StreamSession } from './session.ts';
import type { StreamSlots } from './stream-slots.ts';
import type { CallOptions } from './transport.ts';

/** Our own errors pass as they are; whatever else a broken engine throws becomes `internal`. */
export function asTransportError(error: unknown): TransportError {
  if (error instanceof TransportError) return error;
  return new TransportError('internal', 'transport: unexpected error', { cause: error });
}

export class OutgoingCall {
  readonly #session: StreamSession;
  readonly #slots: StreamSlots;
  readonly #request: RequestFrame;
  readonly #options: CallOptions;
  readonly #onEnd: (call: OutgoingCall) => void;
  readonly #result = Promise.withResolvers<ResponseFrame>();
  readonly #deadline: Timer;
  #withdraw: () => void = () => {};
  #stream: ByteStream | undefined;
  #isWritten = false;
  #isEnded = false;

  /** `onEnd` runs once, at the moment the call ends. Does nothing before `place`. */
  constructor(
    session: StreamSession,
    slots: StreamSlots,
    clock: Clock,
    request: RequestFrame,
    options: CallOptions,
    onEnd: (call: OutgoingCall) => void,
  ) {
    this.#session = session;
    this.#slots = slots;
    this.#request = request;
    this.#options = options;
    this.#onEnd = onEnd;
    const { deadlineMs } = options;
    this.#deadline = clock.timer(deadlineMs, () => {
      this.fail(new TransportError('timeout', `call: no response within ${deadlineMs} ms`));
    });
  }

  /** Queues the call. The promise is the response; it rejects with TransportError only. */
  place(): Promise<ResponseFrame> {
    const { signal } = this.#options;
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (signal?.aborted) this.#onAbort();
    try {
      if (!this.#isEnded) this.#withdraw = this.#slots.request(() => this.#start());
    } catch (error) {
      this.fail(asTransportError(error));
    }
    return this.#result.promise;
  }

  /** Ends the call with the error, unless it ended before; the peer is told that nobody waits. */
  fail(error: TransportError): void {
    if (this.#isEnded) return;
    this.#stream?.reset('cancelled');
    this.#end();
    this.#result.reject(error);
  }

  readonly #onAbort = (): void => {
    const { signal } = this.#options;
    this.fail(new TransportError('cancelled', 'call: cancelled', { cause: signal?.reason }));
  };

  #end(): void {
    this.#isEnded = true;
    this.#deadline.cancel();
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#withdraw();
    if (this.#stream) this.#slots.release();
    this.#onEnd(this);
  }

  #start(): void {
    try {
      this.#stream = this.#session.openStream('call');
    } catch (error) {
      this.#slots.release();
      this.fail(asTransportError(error));
      return;
    }
    void this.#write(this.#stream);
    void this.#read(this.#stream);
  }

  async #write(stream: ByteStream): Promise<void> {
    try {
      await stream.finish(encodeRequest(this.#request));
      this.#isWritten = true;
    } catch {
      // The peer stopped reading: it may have answered early, so the read side tells what happened.
    }
  }

  async #read(stream: ByteStream): Promise<void> {
    const parser = new FrameParser(responseFormat(this.#options.maxResponseBytes));
    try {
      let frames: ResponseFrame[] = [];
      while (frames.length === 0) {
        const chunk = await stream.read();
        if (chunk === undefined) throw new TransportError('protocol', 'response: ended early');
        frames = parser.push(chunk);
      }
      this.#succeed(stream, frames, parser.isEmpty);
    } catch (error) {
      this.fail(asTransportError(error));
    }
  }

  #succeed(stream: ByteStream, frames: readonly ResponseFrame[], isExact: boolean): void {
    const [response] = frames;
    if (response?.requestId !== this.#request.requestId || frames.length > 1 || !isExact) {
      throw new TransportError('protocol', 'response: not the one frame of this request');
    }
    if (this.#isEnded) return;
    // The message ended where its length says. The end of the stream is not waited for.
    if (this.#isWritten) stream.stopReading();
    else stream.reset('done');
    this.#end();
    this.#result.resolve(response);
  }
}
