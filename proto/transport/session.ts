/**
 * The seam between the frames and an engine: reliable byte streams under flow control over one
 * authenticated session. `connection.ts` puts calls and pushes on top, the same for every engine.
 */
import { TransportError, type TransportFailure } from '../status.ts';
import type { CloseInfo, PeerIdentity } from './transport.ts';
import { CloseCode } from './transport.ts';

/** A call's stream is bidirectional, a push stream runs from its opener to the other side only. */
export type StreamKind = 'call' | 'push';

/**
 * Why a stream is given up; the number is the application error code of its RESET_STREAM and
 * STOP_SENDING frames.
 */
export const streamCodes = {
  /** Nothing is wrong: the rest is not needed. */
  done: 0,
  cancelled: 1,
  timeout: 2,
  protocol: 3,
  internal: 4,
} as const;
export type StreamReason = keyof typeof streamCodes;

/** The error of a stream that the peer gave up with the code. */
export function streamError(code: number): TransportError {
  const reason = Object.entries(streamCodes).find(([, known]) => known === code)?.[0];
  const failure: TransportFailure =
    reason === 'timeout' || reason === 'protocol' || reason === 'internal' ? reason : 'cancelled';
  return new TransportError(failure, `stream: given up by the peer (${reason ?? code})`);
}

/** The error of what was in flight when a connection ended. */
export function closedError(info: CloseInfo): TransportError {
  const message = `connection: ${info.reason || 'closed'}`;
  return new TransportError(info.failure, message, info.local ? {} : { closeCode: info.code });
}

/** The end of a session whose peer fell silent. */
export function lost(reason: string): CloseInfo {
  return { failure: 'closed', code: 0, reason, local: true };
}

/** What an application close code means to the side that receives it. */
export function failureOfCloseCode(code: number): TransportFailure {
  if (code === CloseCode.Protocol) return 'protocol';
  if (code === CloseCode.RefusedIdentity) return 'refusedIdentity';
  if (code === CloseCode.Limit) return 'limit';
  return 'closed';
}

/** What a stream does at once where it can: most calls then need no promise. */
export type Soon<T> = T | Promise<T>;

/**
 * One reliable byte stream. Nothing of it throws at once; every error that its promises reject with is
 * a TransportError.
 */
export interface ByteStream {
  /** The next bytes in order, split anywhere; undefined at the end. One read at a time. */
  read(): Soon<Uint8Array | undefined>;
  /** Done when the engine took all bytes under flow control. */
  write(bytes: Uint8Array): Soon<void>;
  /**
   * Writes the last bytes, and says with them that none follow. Done as `write` is; whether the end
   * arrives is never waited for. After it nothing may be written.
   */
  finish(last: Uint8Array): Soon<void>;
  /**
   * The message is complete, or the rest of it not wanted: whatever still comes is thrown away, and
   * a peer that goes on is told to stop. Idempotent.
   */
  stopReading(): void;
  /** Gives up both directions; a read or write that waits here fails `cancelled`. Idempotent. */
  reset(reason: StreamReason): void;
  /**
   * Resolves when the peer wants no more of our bytes before it has all of them, or when the
   * session ended. Never rejects.
   */
  readonly stopped: Promise<TransportError>;
}

/** What the layer above hears from a session. None of these may throw. */
export interface SessionHandlers {
  onStream(kind: StreamKind, stream: ByteStream): void;
  /** The peer may let us open more streams than before. */
  onCredit(): void;
  /** Once; after it nothing else is called. */
  onClosed(info: CloseInfo): void;
}

export interface StreamSession {
  readonly peer: PeerIdentity;
  /** Sets the handlers, once, in the turn in which the session was handed out. */
  start(handlers: SessionHandlers): void;
  /** How many streams of the kind the peer lets us open now. */
  streamCredit(kind: StreamKind): number;
  /** Opens a stream; the caller looked at the credit. Throws TransportError. */
  openStream(kind: StreamKind): ByteStream;
  /**
   * Ends the session with an application close code, at once: `onClosed` runs before this returns
   * its promise, which resolves when the engine let go (bounded by the engine). Idempotent.
   */
  close(code: number, reason: string): Promise<void>;
}
