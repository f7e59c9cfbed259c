/**
 * The answering side of a stream of frames. Handlers run beside each other up to a bound; above it
 * the answer is a typed refusal. What a peer can make this side hold is bounded in calls and bytes,
 * a request that does not come to its end and answers that are not taken end the stream.
 */
import {
  encodeResponse,
  errorToWire,
  FrameParser,
  requestFormat,
  ResourceExhaustedError,
  TransportError,
  type RequestFrame,
  type ResponseFrame,
  type Runtime,
  type Timer,
} from '@quicprochat/proto';
import type { RequestBound } from '@quicprochat/proto/transport';
import type { ByteStream } from './byte-stream.ts';

export const frameServeLimits = {
  /** Handlers of one stream at a time. */
  calls: 64,
  /** Of their requests together (bytes). */
  bytes: 8 * 1024 * 1024,
  /** Time to complete a request that has begun (ms). */
  requestReadMs: 15_000,
  /** Answers that the peer has not taken (bytes). */
  answerBytes: 1024 * 1024,
  overloadRetryMs: 1_000,
} as const;

/**
 * Answers with the payload of status 0, or with a status and its payload; a QpcError that it throws
 * becomes the error frame.
 */
export type FrameHandler = (
  request: RequestFrame,
  signal: AbortSignal,
) => Promise<Uint8Array | Pick<ResponseFrame, 'status' | 'payload'>>;

/** Answers every request of the stream until it ends; never throws. */
export function serveFrames(
  stream: ByteStream,
  handler: FrameHandler,
  {
    maxRequestBytes,
    runtime,
  }: { readonly maxRequestBytes: RequestBound; readonly runtime: Runtime },
): void {
  const { clock, log, random } = runtime;
  const { signal, abort } = endOf(stream);
  const parser = new FrameParser(requestFormat(maxRequestBytes));
  let calls = 0;
  let bytes = 0;
  let timer: Timer | undefined;

  function answer(requestId: number, status: number, payload: Uint8Array): void {
    if (signal.aborted) return;
    stream.write(encodeResponse({ status, requestId, payload }));
    if (stream.pendingBytes > frameServeLimits.answerBytes) abort('answers are not taken');
  }

  async function run(frame: RequestFrame): Promise<void> {
    const { length } = frame.payload;
    const isFree = calls < frameServeLimits.calls && bytes + length <= frameServeLimits.bytes;
    calls += 1;
    bytes += length;
    try {
      if (!isFree) {
        throw new ResourceExhaustedError('OVERLOADED', `${calls} calls of this stream`, {
          retryAfterMs: frameServeLimits.overloadRetryMs,
        });
      }
      const answered = await handler(frame, signal);
      if (answered instanceof Uint8Array) answer(frame.requestId, 0, answered);
      else answer(frame.requestId, answered.status, answered.payload);
    } catch (error) {
      const method = String(frame.methodId);
      const [status, payload] = errorToWire(error, { log, random, method });
      answer(frame.requestId, status, payload);
    } finally {
      calls -= 1;
      bytes -= length;
    }
  }

  stream.onData((chunk) => {
    if (signal.aborted) return;
    let frames: RequestFrame[];
    try {
      frames = parser.push(chunk);
    } catch (error) {
      abort(error instanceof TransportError ? error.message : String(error));
      return;
    }
    if (frames.length > 0 || parser.isEmpty) {
      timer?.cancel();
      timer = undefined;
    }
    if (!parser.isEmpty) {
      timer ??= clock.timer(frameServeLimits.requestReadMs, () => abort('a request took too long'));
    }
    for (const frame of frames) void run(frame);
  });
  void stream.closed.then(() => timer?.cancel());
}

/** A signal that the stream's end aborts, and what ends it. */
function endOf(stream: ByteStream): { signal: AbortSignal; abort: (reason: string) => void } {
  const controller = new AbortController();
  void stream.closed.then(() => controller.abort(new TransportError('closed', 'stream ended')));
  return {
    signal: controller.signal,
    abort(reason) {
      controller.abort(new TransportError('protocol', reason));
      stream.abort(reason);
    },
  };
}
