/** A stream of libp2p as a ByteStream, and what its errors mean here. */
import { TransportError } from '@quicprochat/proto';
import type { Stream } from '@libp2p/interface';
import type { ByteStream } from './byte-stream.ts';

/**
 * Wraps a stream. The engine's `send` returns false after every write over QUIC: that is its pacing,
 * it queues and goes on by itself, and callers here bound what they queue.
 */
export function byteStream(stream: Stream): ByteStream {
  const closed = Promise.withResolvers<void>();
  stream.addEventListener('close', () => closed.resolve(), { once: true });
  if (stream.status !== 'open') closed.resolve();
  const abort = (reason: string): void => {
    stream.abort(new Error(reason));
    closed.resolve();
  };
  // The other side has said all it will: our protocols have no half-open streams.
  stream.addEventListener('remoteCloseWrite', () => abort('the other side ended the stream'), {
    once: true,
  });
  return {
    get pendingBytes() {
      return stream.writeBufferLength;
    },
    write(bytes) {
      if (stream.writeStatus === 'writable') stream.send(bytes);
    },
    onData(listener) {
      stream.addEventListener('message', ({ data }) => listener(data.subarray()));
    },
    closed: closed.promise,
    abort,
  };
}

/** An error of libp2p as one of ours, by its name; the texts change from version to version. */
export function transportError(error: unknown, signal?: AbortSignal): TransportError {
  if (error instanceof TransportError) return error;
  const cause = error instanceof AggregateError ? (error.errors[0] as unknown) : error;
  const text = cause instanceof Error ? cause.message : String(cause);
  const name = cause instanceof Error ? cause.name : '';
  if (signal?.aborted === true || name === 'TimeoutError' || name === 'AbortError') {
    return new TransportError('timeout', text, { cause });
  }
  switch (name) {
    case 'UnsupportedProtocolError':
    case 'LimitedConnectionError':
      return new TransportError('protocol', text, { cause });
    case 'ConnectionClosedError':
    case 'StreamResetError':
    case 'StreamStateError':
    case 'MuxerUnavailableError':
      return new TransportError('closed', text, { cause });
    default:
      return new TransportError('unreachable', text, { cause });
  }
}
