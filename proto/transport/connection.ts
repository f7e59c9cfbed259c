/**
 * Calls and pushes over the byte streams of any engine: one call is one bidirectional stream with
 * one request and one response frame, a push stream carries frames one way. Pure of engines; all
 * time comes from the Clock.
 */
import { encodePush, FrameParser, pushFormat } from '../frame.ts';
import type { PushFrame, RequestFrame, ResponseFrame } from '../frame.ts';
import type { Runtime } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { Deadlines } from './deadlines.ts';
import { serveCall, type IncomingCallOptions } from './incoming-call.ts';
import { asTransportError, OutgoingCall, type CallHost } from './outgoing-call.ts';
import { closedError } from './session.ts';
import type { ByteStream, StreamKind, StreamSession } from './session.ts';
import { StreamSlots } from './stream-slots.ts';
import { CloseCode } from './transport.ts';
import type {
  CallHandler,
  CallOptions,
  CloseInfo,
  Connection,
  PeerIdentity,
  PushHandler,
  PushWriter,
  RequestBound,
  TransportLimits,
} from './transport.ts';
import { UnreadAnswers } from './unread-answers.ts';

/**
 * The Connection of every engine. `session` must be fresh: its handlers are set here. `unread` is what
 * a listener's connections share.
 */
export class FramedConnection implements Connection {
  readonly peer: PeerIdentity;
  readonly closed: Promise<CloseInfo>;
  readonly #runtime: Runtime;
  readonly #session: StreamSession;
  readonly #limits: TransportLimits;
  readonly #outgoing: CallHost;
  readonly #pushSlots: StreamSlots;
  #incoming: IncomingCallOptions;
  readonly #callHandler = Promise.withResolvers<CallHandler>();
  readonly #pushHandler = Promise.withResolvers<PushHandler>();
  #closeInfo: CloseInfo | undefined;
  #callsServing = 0;
  /** Calls that wait, unread, for one of those to end. */
  #callsUnread: ByteStream[] = [];
  #pushesReading = 0;

  constructor(
    runtime: Runtime,
    session: StreamSession,
    limits: TransportLimits,
    maxRequestBytes: RequestBound,
    unread = new UnreadAnswers(limits.unreadAnswerBytes),
  ) {
    this.#runtime = runtime;
    this.#session = session;
    this.#limits = limits;
    this.peer = session.peer;
    const deadlines = new Deadlines(runtime.clock);
    const slots = new StreamSlots(
      { open: limits.callsInFlight, queued: limits.callsQueued },
      () => session.streamCredit('call') > 0,
    );
    const calls = new Set<OutgoingCall>();
    this.#outgoing = { session, slots, deadlines, calls };
    // Push streams are few and live long: a queue of more than this is a fault of the layer above.
    this.#pushSlots = new StreamSlots(
      { open: limits.incomingPushStreams, queued: limits.incomingPushStreams },
      () => session.streamCredit('push') > 0,
    );
    const handler = this.#callHandler.promise;
    const reader = { bytes: 0, end: () => this.#endReader() };
    const hold = (bytes: number): (() => void) => unread.hold(reader, bytes);
    this.#incoming = { runtime, limits, deadlines, maxRequestBytes, handler, hold };
    const closed = Promise.withResolvers<CloseInfo>();
    this.closed = closed.promise;
    session.start({
      onStream: (kind, stream) => this.#serve(kind, stream),
      onCredit: () => {
        slots.pump();
        this.#pushSlots.pump();
      },
      onClosed: (info) => {
        this.#closeInfo = info;
        this.#callsUnread = [];
        for (const call of calls) call.fail(closedError(info));
        closed.resolve(info);
      },
    });
  }

  call(request: RequestFrame, options: CallOptions): Promise<ResponseFrame> {
    if (this.#closeInfo) return Promise.reject(closedError(this.#closeInfo));
    return new OutgoingCall(this.#outgoing, request, options).response;
  }

  onCall(handler: CallHandler): void {
    this.#callHandler.resolve(handler);
    this.#incoming = { ...this.#incoming, handler };
  }

  onPushStream(handler: PushHandler): void {
    this.#pushHandler.resolve(handler);
  }

  /** Throws TransportError `limit` when none may be opened within `openPushMs`. */
  openPushStream(): Promise<PushWriter> {
    if (this.#closeInfo) return Promise.reject(closedError(this.#closeInfo));
    const opened = Promise.withResolvers<PushWriter>();
    const timer = this.#runtime.clock.timer(this.#limits.openPushMs, () => {
      withdraw?.();
      opened.reject(new TransportError('limit', 'push: the peer allows no further stream'));
    });
    let withdraw: (() => void) | undefined;
    const start = (): void => {
      timer.cancel();
      try {
        opened.resolve(new FramedPushWriter(this.#session.openStream('push'), this.#pushSlots));
      } catch (error) {
        this.#pushSlots.release();
        opened.reject(asTransportError(error));
      }
    };
    try {
      withdraw = this.#pushSlots.request(start);
    } catch (error) {
      timer.cancel();
      opened.reject(asTransportError(error));
    }
    return opened.promise;
  }

  close(code: number, reason: string): Promise<void> {
    return this.#session.close(code, reason);
  }

  #endReader(): void {
    this.#runtime.log.warn('transport.answers.unread', { address: this.peer.address });
    void this.#session.close(CloseCode.Limit, 'answers that nobody reads');
  }

  #serve(kind: StreamKind, stream: ByteStream): void {
    if (kind === 'push') void this.#servePushes(stream);
    else this.#serveCall(stream);
  }

  /**
   * A call that its caller gave up makes room for another stream at once, while its handler still runs:
   * who opens and resets without end must not have more handlers than who waits.
   */
  #serveCall(stream: ByteStream): void {
    const { incomingStreams } = this.#limits;
    if (this.#callsServing < incomingStreams) {
      this.#callsServing += 1;
      void serveCall(stream, this.#incoming).then(this.#onServed);
    } else if (this.#callsUnread.length < incomingStreams) {
      this.#callsUnread.push(stream);
    } else {
      // Behind its arrival: the stock engine is still making it.
      queueMicrotask(() => stream.reset('cancelled'));
    }
  }

  readonly #onServed = (): void => {
    this.#callsServing -= 1;
    const next = this.#callsUnread.shift();
    if (next) this.#serveCall(next);
  };

  async #servePushes(stream: ByteStream): Promise<void> {
    // The engine's own limit may be wider.
    if (this.#pushesReading >= this.#limits.incomingPushStreams) return stream.reset('cancelled');
    this.#pushesReading += 1;
    try {
      const handler = await this.#pushHandler.promise;
      await handler(this.#frames(stream));
    } catch (error) {
      if (!this.#closeInfo) {
        const { failure } = asTransportError(error);
        this.#runtime.log.warn('transport.push.threw', { failure });
      }
    } finally {
      this.#pushesReading -= 1;
      stream.reset('done');
    }
  }

  async *#frames(stream: ByteStream): AsyncGenerator<PushFrame, void, void> {
    const parser = new FrameParser(pushFormat(this.#limits.maxPayloadBytes));
    for (;;) {
      const chunk = await stream.read();
      if (chunk !== undefined) yield* parser.push(chunk);
      else if (parser.isEmpty) return;
      else throw new TransportError('protocol', 'push: ended inside a frame');
    }
  }
}

class FramedPushWriter implements PushWriter {
  readonly #stream: ByteStream;
  readonly #release: () => void;
  #error: TransportError | undefined;

  constructor(stream: ByteStream, slots: StreamSlots) {
    this.#stream = stream;
    let isReleased = false;
    this.#release = () => {
      if (!isReleased) slots.release();
      isReleased = true;
    };
    void stream.stopped.then((error) => {
      this.#error ??= error;
      this.#release();
    });
  }

  async write(frame: PushFrame): Promise<void> {
    if (this.#error) throw this.#error;
    await this.#stream.write(encodePush(frame));
  }

  async close(): Promise<void> {
    if (this.#error) return;
    this.#error = new TransportError('cancelled', 'push: closed here');
    this.#release();
    try {
      await this.#stream.finish(new Uint8Array());
    } catch {
      // The reader or the connection was gone first: closed all the same.
    }
  }
}
