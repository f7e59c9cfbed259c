/**
 * Sessions of the memory engine: byte streams with windows, credit, resets and close codes as QUIC
 * has them, over ordered lanes that the network may delay or hold. No frames, no addresses.
 */
import { TransportError } from '../status.ts';
import { closedError, failureOfCloseCode, lost, streamCodes, streamError } from './session.ts';
import type { ByteStream, SessionHandlers, StreamKind, StreamReason } from './session.ts';
import type { StreamSession } from './session.ts';
import type { CloseInfo, PeerIdentity, TransportLimits } from './transport.ts';

/** Bytes of one stream direction that may be on their way or unread, as in the QUIC engine. */
const windowBytes = 1024 * 1024;
/** What was read is told once it is this much, as QUIC does: not with every piece. */
const windowUpdateBytes = windowBytes / 2;

/** Delivers actions in order, some time after they were sent. */
export interface Lane {
  send(action: () => void): void;
}
/** The two directions between a session's hosts; each call makes a lane with an order of its own. */
export interface Lanes {
  there(): Lane;
  back(): Lane;
  /** Largest piece of a write that travels as one (bytes). */
  readonly chunkBytes: number;
}

/** One direction of one stream: the sender's half and the receiver's half in one object. */
class Pipe {
  readonly stopped = Promise.withResolvers<TransportError>();
  readonly #forth: Lane;
  readonly #back: Lane;
  readonly #chunkBytes: number;
  readonly #onSent: () => void;
  readonly #onReceived: () => void;
  // The sender's half.
  #outstanding = 0;
  /** Tells the receiver of the stream, with the first thing that is sent on it. */
  #announce: (() => void) | undefined;
  #sendError: TransportError | undefined;
  #isFinished = false;
  #writes: Promise<void> = Promise.resolve();
  #wakeWriter = (): void => {};
  // The receiver's half.
  #chunks: Uint8Array[] = [];
  /** Read, and not yet told to the sender (bytes). */
  #untoldBytes = 0;
  #receiveError: TransportError | undefined;
  #isEnded = false;
  #isDone = false;
  #wakeReader = (): void => {};

  /** `onSent` and `onReceived` run when the half of that side needs nothing more. */
  constructor(lanes: Lanes, onSent: () => void, onReceived: () => void) {
    this.#forth = lanes.there();
    this.#back = lanes.back();
    this.#chunkBytes = lanes.chunkBytes;
    this.#onSent = onSent;
    this.#onReceived = onReceived;
  }

  /** Runs at the receiver before anything that is sent: a stream is known by its first bytes. */
  announce(action: () => void): void {
    this.#announce = action;
  }

  #send(action: () => void): void {
    const announce = this.#announce;
    this.#announce = undefined;
    this.#forth.send(() => {
      announce?.();
      action();
    });
  }

  /** `isLast`: the end of the stream travels with the last of the bytes. */
  write(bytes: Uint8Array, isLast = false): Promise<void> {
    const write = this.#writes.then(() => this.#write(bytes, isLast));
    this.#writes = write.catch(() => {});
    return write;
  }

  async #write(bytes: Uint8Array, isLast: boolean): Promise<void> {
    for (let offset = 0; offset < bytes.length;) {
      if (this.#sendError) throw this.#sendError;
      const room = Math.min(windowBytes - this.#outstanding, this.#chunkBytes);
      if (room <= 0) {
        await new Promise<void>((resolve) => (this.#wakeWriter = resolve));
        continue;
      }
      const piece = bytes.slice(offset, offset + room);
      offset += piece.length;
      this.#outstanding += piece.length;
      const isEnd = isLast && offset >= bytes.length;
      this.#isFinished ||= isEnd;
      this.#send(() => this.#receive(piece, isEnd));
    }
    if (this.#sendError) throw this.#sendError;
    if (!isLast) return;
    if (!this.#isFinished) {
      this.#isFinished = true;
      this.#send(() => this.#receive(new Uint8Array(), true));
    }
    this.#onSent();
  }

  /** The sender gives up: bytes on their way are lost. */
  abort(reason: StreamReason, error: TransportError): void {
    if (this.#sendError || this.#isFinished) return;
    this.failSender(error);
    this.#send(() => this.failReceiver(streamError(streamCodes[reason])));
  }

  failSender(error: TransportError): void {
    if (this.#sendError || this.#isFinished) return;
    this.#sendError = error;
    this.#wakeWriter();
    this.stopped.resolve(error);
    this.#onSent();
  }

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      if (this.#receiveError) throw this.#receiveError;
      const chunk = this.#chunks.shift();
      if (chunk) {
        this.#tellRead(chunk.length);
        return chunk;
      }
      if (this.#isEnded) {
        this.#received();
        return undefined;
      }
      await new Promise<void>((resolve) => (this.#wakeReader = resolve));
    }
  }

  #tellRead(byteLength: number): void {
    this.#untoldBytes += byteLength;
    const told = this.#untoldBytes;
    if (this.#isEnded || told < windowUpdateBytes) return;
    this.#untoldBytes = 0;
    this.#back.send(() => {
      this.#outstanding -= told;
      this.#wakeWriter();
    });
  }

  #receive(piece: Uint8Array, isEnd: boolean): void {
    if (this.#receiveError) return;
    if (piece.length > 0) this.#chunks.push(piece);
    this.#isEnded ||= isEnd;
    this.#wakeReader();
  }

  /** The receiver gives up: the sender's next write fails. */
  stop(reason: StreamReason, error: TransportError): void {
    if (this.#isDone) return;
    this.failReceiver(error);
    this.#back.send(() => this.failSender(streamError(streamCodes[reason])));
  }

  failReceiver(error: TransportError): void {
    if (this.#isDone) return;
    this.#receiveError = error;
    this.#chunks = [];
    this.#wakeReader();
    this.#received();
  }

  #received(): void {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#onReceived();
  }
}

/** One end of a stream; a push stream lacks one of the two pipes. */
class MemoryStream implements ByteStream {
  readonly #incoming: Pipe | undefined;
  readonly #outgoing: Pipe | undefined;

  constructor(incoming: Pipe | undefined, outgoing: Pipe | undefined) {
    this.#incoming = incoming;
    this.#outgoing = outgoing;
  }

  get stopped(): Promise<TransportError> {
    return this.#outgoing?.stopped.promise ?? new Promise(() => {});
  }

  async read(): Promise<Uint8Array | undefined> {
    return this.#incoming?.read();
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (!this.#outgoing) throw new TransportError('protocol', 'stream: runs the other way');
    await this.#outgoing.write(bytes);
  }

  async finish(last: Uint8Array): Promise<void> {
    if (!this.#outgoing) throw new TransportError('protocol', 'stream: runs the other way');
    await this.#outgoing.write(last, true);
  }

  stopReading(): void {
    this.#incoming?.stop('done', new TransportError('cancelled', 'stream: reading stopped'));
  }

  reset(reason: StreamReason): void {
    const error = new TransportError('cancelled', 'stream: reset here');
    this.#incoming?.stop(reason, error);
    this.#outgoing?.abort(reason, error);
  }

  fail(error: TransportError): void {
    this.#incoming?.failReceiver(error);
    this.#outgoing?.failSender(error);
  }
}

export class MemorySession implements StreamSession {
  readonly peer: PeerIdentity;
  readonly limits: TransportLimits;
  readonly #lanes: Lanes;
  readonly #onEnd: (session: MemorySession) => void;
  readonly #streams = new Set<MemoryStream>();
  readonly #opened = { call: 0, push: 0 };
  /** Streams of the peer that are over and that it does not know to be so. */
  readonly #untold = { call: 0, push: 0 };
  /** What arrived before `start`: a stream may overtake the end of the handshake. */
  #waiting: [StreamKind, ByteStream][] = [];
  #other: MemorySession | undefined;
  #handlers: SessionHandlers | undefined;
  #closeInfo: CloseInfo | undefined;

  /** `onEnd` runs once, when the session ended for whatever reason, before its handlers. */
  constructor(
    peer: PeerIdentity,
    limits: TransportLimits,
    lanes: Lanes,
    onEnd: (session: MemorySession) => void,
  ) {
    this.peer = peer;
    this.limits = limits;
    this.#lanes = lanes;
    this.#onEnd = onEnd;
  }

  static pair(one: MemorySession, two: MemorySession): void {
    one.#other = two;
    two.#other = one;
  }

  get other(): MemorySession | undefined {
    return this.#other;
  }

  get isClosed(): boolean {
    return this.#closeInfo !== undefined;
  }

  start(handlers: SessionHandlers): void {
    this.#handlers = handlers;
    if (this.#closeInfo) return handlers.onClosed(this.#closeInfo);
    for (const [kind, stream] of this.#waiting) handlers.onStream(kind, stream);
    this.#waiting = [];
  }

  streamCredit(kind: StreamKind): number {
    const limits = this.#other?.limits;
    if (!limits) return 0;
    const allowed = kind === 'call' ? limits.incomingStreams : limits.incomingPushStreams;
    return allowed - this.#opened[kind];
  }

  openStream(kind: StreamKind): ByteStream {
    const other = this.#other;
    if (this.#closeInfo || !other) throw closedError(this.#closeInfo ?? lost('not connected'));
    if (this.streamCredit(kind) <= 0) throw new TransportError('limit', 'stream: no credit');
    this.#opened[kind] += 1;
    const isDuplex = kind === 'call';
    // Counts the directions that are done: at zero, the side forgets its end of the stream.
    const afterBoth = (forget: () => void) => {
      let left = isDuplex ? 2 : 1;
      return (): void => {
        left -= 1;
        if (left === 0) forget();
      };
    };
    const nearDone = afterBoth(() => this.#streams.delete(near));
    const farDone = afterBoth(() => {
      other.#streams.delete(far);
      other.#untold[kind] += 1;
      other.#tellCredit(kind);
    });
    const forth = new Pipe(this.#lanes, nearDone, farDone);
    const back = isDuplex ? new Pipe(other.#lanes, farDone, nearDone) : undefined;
    const near = new MemoryStream(back, forth);
    const far = new MemoryStream(forth, back);
    this.#streams.add(near);
    forth.announce(() => other.#accept(kind, far));
    return near;
  }

  /** As in QUIC, not with every stream that ends: once half of what the peer may open is used. */
  #tellCredit(kind: StreamKind): void {
    const over = this.#untold[kind];
    const other = this.#other;
    const allowed = kind === 'call' ? this.limits.incomingStreams : this.limits.incomingPushStreams;
    if (over === 0 || other === undefined || other.#opened[kind] * 2 < allowed) return;
    this.#untold[kind] = 0;
    this.#lanes.there().send(() => {
      other.#opened[kind] -= over;
      if (!other.#closeInfo) other.#handlers?.onCredit();
    });
  }

  #accept(kind: StreamKind, stream: MemoryStream): void {
    if (this.#closeInfo) return;
    // The peer may have used up what it has, and wait.
    this.#tellCredit(kind);
    this.#streams.add(stream);
    if (this.#handlers) this.#handlers.onStream(kind, stream);
    else this.#waiting.push([kind, stream]);
  }

  async close(code: number, reason: string): Promise<void> {
    if (this.#closeInfo) return;
    const farInfo = { failure: failureOfCloseCode(code), code, reason, local: false };
    this.#lanes.there().send(() => this.#other?.end(farInfo));
    this.end({ failure: 'closed', code, reason, local: true });
  }

  /** Ends this side alone; the other side finds out by its idle time-out or not at all. */
  end(info: CloseInfo): void {
    if (this.#closeInfo) return;
    this.#closeInfo = info;
    this.#waiting = [];
    this.#onEnd(this);
    this.#handlers?.onClosed(info);
    for (const stream of this.#streams) stream.fail(closedError(info));
    this.#streams.clear();
  }
}
