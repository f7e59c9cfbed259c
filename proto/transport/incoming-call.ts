/**
 * One call from the other side: reads one request frame under its deadline and bound, runs the
 * handler, writes one response frame. Whatever the peer or the handler does, only this stream ends.
 */
import { encodeResponse, FrameParser, requestFormat } from '../frame.ts';
import type { RequestFrame, ResponseFrame } from '../frame.ts';
import type { Runtime } from '../runtime.ts';
import { QpcError, Status, TransportError, type Reason } from '../status.ts';
import { asTransportError } from './outgoing-call.ts';
import type { ByteStream } from './session.ts';
import type { CallHandler, RequestBound, TransportLimits } from './transport.ts';

/** Payload of a response that the transport itself gives: an `Error` with field 1, the reason. */
function errorPayload(reason: Reason): Uint8Array {
  const text = new TextEncoder().encode(reason);
  return Uint8Array.of(0x0a, text.length, ...text);
}

export interface IncomingCallOptions {
  readonly runtime: Runtime;
  readonly limits: TransportLimits;
  readonly maxRequestBytes: RequestBound;
  /** Resolves when the layer above set its handler. */
  readonly handler: Promise<CallHandler>;
}

/** A request that is here in full, or the answer to one that was refused by its header. */
type Incoming = { readonly request: RequestFrame } | { readonly refusal: ResponseFrame };

/** Serves the call of one stream. Never rejects; resolves when the stream is done with. */
export async function serveCall(stream: ByteStream, options: IncomingCallOptions): Promise<void> {
  const { runtime, limits } = options;
  try {
    const incoming = await withDeadline(limits.requestReadMs, readRequest(stream, options));
    // Length-prefixed: whatever follows the frame is not wanted, the end of the stream neither.
    stream.stopReading();
    const response =
      'refusal' in incoming ? incoming.refusal : await answer(stream, incoming.request, options);
    // A peer that does not take its response in within the idle time-out is as good as gone.
    await withDeadline(limits.idleMs, stream.finish(encodeResponse(response)));
  } catch (error) {
    // Not ours to tell: the peer cancelled, vanished, was too slow or sent garbage.
    runtime.log.debug('transport.call.ended', { failure: asTransportError(error).failure });
  }

  async function withDeadline<T>(ms: number, step: Promise<T>): Promise<T> {
    const timer = runtime.clock.timer(ms, () => stream.reset('timeout'));
    try {
      return await step;
    } finally {
      timer.cancel();
    }
  }
}

async function readRequest(stream: ByteStream, options: IncomingCallOptions): Promise<Incoming> {
  const format = requestFormat(options.maxRequestBytes);
  let requestId = 0;
  const parser = new FrameParser<RequestFrame>({
    ...format,
    maxPayloadBytes(header) {
      requestId = header.getUint32(2);
      return Math.min(format.maxPayloadBytes(header), options.limits.maxPayloadBytes);
    },
  });
  for (;;) {
    const chunk = await stream.read();
    if (chunk === undefined) {
      stream.reset('protocol');
      throw new TransportError('protocol', 'request: ended early');
    }
    try {
      const [request] = parser.push(chunk);
      if (request) return { request };
    } catch {
      // The only thing that a parser refuses is a length above its bound.
      const payload = errorPayload('TOO_LARGE');
      return { refusal: { status: Status.PayloadTooLarge, requestId, payload } };
    }
  }
}

async function answer(
  stream: ByteStream,
  request: RequestFrame,
  options: IncomingCallOptions,
): Promise<ResponseFrame> {
  const abort = new AbortController();
  void stream.stopped.then((error) => abort.abort(error));
  const handler = await options.handler;
  try {
    return await handler(request, { signal: abort.signal });
  } catch (error) {
    if (!abort.signal.aborted) {
      const reason = error instanceof QpcError ? error.reason : 'unknown';
      options.runtime.log.error('transport.call.threw', { method: request.methodId, reason });
    }
    const { requestId } = request;
    return { status: Status.Internal, requestId, payload: errorPayload('INTERNAL') };
  }
}
