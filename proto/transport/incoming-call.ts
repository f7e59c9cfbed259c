/**
 * One call from the other side: reads one request frame under its deadline and bound, runs the
 * handler, writes one response frame. Whatever the peer or the handler does, only this stream ends.
 */
import { encodeResponse, FrameParser, requestFormat } from '../frame.ts';
import type { RequestFrame, ResponseFrame } from '../frame.ts';
import type { Runtime } from '../runtime.ts';
import { QpcError, Status, TransportError, type Reason } from '../status.ts';
import type { Deadlines } from './deadlines.ts';
import { asTransportError } from './outgoing-call.ts';
import type { ByteStream, Soon } from './session.ts';
import type { CallHandler, RequestBound, TransportLimits } from './transport.ts';

/** Payload of a response that the transport itself gives: an `Error` with field 1, the reason. */
export function errorPayload(reason: Reason): Uint8Array {
  const text = new TextEncoder().encode(reason);
  return Uint8Array.of(0x0a, text.length, ...text);
}

/** What an answer that waits takes besides its payload, about (bytes): a peer's window may be none. */
const waitingAnswerBytes = 1024;

export interface IncomingCallOptions {
  readonly runtime: Runtime;
  readonly limits: TransportLimits;
  readonly deadlines: Deadlines;
  readonly maxRequestBytes: RequestBound;
  /** So many bytes of an answer wait for their reader, until the function that this returns is called. */
  readonly hold: (bytes: number) => () => void;
  /** A promise until the layer above set its handler. */
  readonly handler: Soon<CallHandler>;
}

/** A request that is here in full, or the answer to one that was refused by its header. */
type Incoming = { readonly request: RequestFrame } | { readonly refusal: ResponseFrame };

/** Serves the call of one stream. Never rejects; resolves when the stream is done with. */
export async function serveCall(stream: ByteStream, options: IncomingCallOptions): Promise<void> {
  const { limits, deadlines } = options;
  try {
    const reader = new RequestReader(stream, options);
    // Mostly all of it is here, and the answer leaves at once: no deadline has to be set.
    const incoming =
      reader.next(stream.read()) ?? (await within(limits.requestReadMs, () => reader.rest()));
    // Length-prefixed: whatever follows the frame is not wanted, the end of the stream neither.
    stream.stopReading();
    const response =
      'refusal' in incoming ? incoming.refusal : await answer(stream, incoming.request, options);
    const written = stream.finish(encodeResponse(response));
    // A peer that does not take its response in within the idle time-out is as good as gone.
    if (written !== undefined) {
      const release = options.hold(waitingAnswerBytes + response.payload.length);
      await within(limits.idleMs, () => written).finally(release);
    }
  } catch (error) {
    // Not ours to tell: the peer cancelled, vanished, was too slow or sent garbage.
    options.runtime.log.debug('transport.call.ended', { failure: asTransportError(error).failure });
  }

  async function within<T>(ms: number, step: () => Promise<T>): Promise<T> {
    const met = deadlines.add(ms, () => stream.reset('timeout'));
    try {
      return await step();
    } finally {
      met();
    }
  }
}

class RequestReader {
  readonly #stream: ByteStream;
  readonly #parser: FrameParser<RequestFrame>;
  #requestId = 0;
  /** What the first read gave when it was not there at once. */
  #pending: Promise<Uint8Array | undefined> | undefined;

  constructor(stream: ByteStream, { limits, maxRequestBytes }: IncomingCallOptions) {
    this.#stream = stream;
    const format = requestFormat(maxRequestBytes);
    this.#parser = new FrameParser<RequestFrame>({
      ...format,
      maxPayloadBytes: (header) => {
        this.#requestId = header.getUint32(2);
        return Math.min(format.maxPayloadBytes(header), limits.maxPayloadBytes);
      },
    });
  }

  /** The request if this chunk completes it; undefined when more must come. */
  next(chunk: Soon<Uint8Array | undefined>): Incoming | undefined {
    if (chunk instanceof Promise) {
      this.#pending = chunk;
      return undefined;
    }
    if (chunk === undefined) {
      this.#stream.reset('protocol');
      throw new TransportError('protocol', 'request: ended early');
    }
    try {
      const [request] = this.#parser.push(chunk);
      return request && { request };
    } catch {
      // The only thing that a parser refuses is a length above its bound.
      const payload = errorPayload('TOO_LARGE');
      return {
        refusal: { status: Status.PayloadTooLarge, requestId: this.#requestId, payload },
      };
    }
  }

  async rest(): Promise<Incoming> {
    let chunk: Soon<Uint8Array | undefined> = this.#pending ?? this.#stream.read();
    for (;;) {
      const incoming = this.next(await chunk);
      if (incoming) return incoming;
      chunk = this.#stream.read();
    }
  }
}

/** Makes its signal when the handler asks for it: most never do. */
class CallContext {
  readonly #stream: ByteStream;
  #abort: AbortController | undefined;

  constructor(stream: ByteStream) {
    this.#stream = stream;
  }

  get signal(): AbortSignal {
    if (!this.#abort) {
      const abort = new AbortController();
      this.#abort = abort;
      void this.#stream.stopped.then((error) => abort.abort(error));
    }
    return this.#abort.signal;
  }

  get isAborted(): boolean {
    return this.#abort?.signal.aborted ?? false;
  }
}

async function answer(
  stream: ByteStream,
  request: RequestFrame,
  { handler, runtime }: IncomingCallOptions,
): Promise<ResponseFrame> {
  const context = new CallContext(stream);
  const handle = handler instanceof Promise ? await handler : handler;
  try {
    return await handle(request, context);
  } catch (error) {
    if (!context.isAborted) {
      const reason = error instanceof QpcError ? error.reason : 'unknown';
      runtime.log.error('transport.call.threw', { method: request.methodId, reason });
    }
    const { requestId } = request;
    return { status: Status.Internal, requestId, payload: errorPayload('INTERNAL') };
  }
}
