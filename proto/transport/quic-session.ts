/**
 * A StreamSession over one connection of the stock QUIC glue: its web streams as byte streams, its
 * end as a CloseInfo, and an end that comes within bounded time.
 */
import type { QUICStream } from '@matrixai/quic';
import type { ReadableStreamDefaultReader, WritableStreamDefaultWriter } from 'node:stream/web';
import type { Clock, Runtime, Timer } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { closeInfoOf, LocalReset, type Engine } from './quic-engine.ts';
import { catchListenerErrors, type Fence } from './quic-fence.ts';
import { closedError } from './session.ts';
import type { ByteStream, SessionHandlers, StreamKind, StreamReason } from './session.ts';
import type { StreamSession } from './session.ts';
import type { CloseInfo, PeerIdentity } from './transport.ts';
import { fitted } from './waiting-bytes.ts';

/** Time that a closed connection may drain before it is let go by force (ms). */
const drainMs = 500;
/** What may still come on a stream whose message is complete before it is stopped (ms, bytes). */
const lingerMs = 2000;
const lingerBytes = 4096;
/** A close reason must fit into one packet. */
const maxReasonBytes = 256;

export interface QuicSessionOptions {
  readonly engine: Engine;
  readonly runtime: Runtime;
  readonly fence: Fence;
  readonly peer: PeerIdentity;
  /** Set on the dialing side. */
  readonly keepAliveMs?: number;
  /** Runs once when the session ended, before its handlers. */
  readonly onEnd?: (session: QuicSession) => void;
  /** Runs once when the glue let go of the connection, or had its time to. */
  readonly letGo?: () => Promise<void>;
}

export class QuicSession implements StreamSession {
  readonly peer: PeerIdentity;
  readonly #options: QuicSessionOptions;
  readonly #ended = Promise.withResolvers<void>();
  #handlers: SessionHandlers | undefined;
  #closeInfo: CloseInfo | undefined;
  #keepAlive: Timer | undefined;

  /** The connection has started; nothing was awaited since. */
  constructor(options: QuicSessionOptions) {
    this.peer = options.peer;
    this.#options = options;
    const { engine, fence } = options;
    const { events } = engine;
    const { connection } = fence;
    connection.addEventListener(events.EventQUICConnectionClose.name, (event: Event) => {
      if (event instanceof events.EventQUICConnectionClose) {
        this.end(closeInfoOf(engine, event.detail));
      }
    });
    connection.addEventListener(events.EventQUICConnectionStopped.name, () =>
      this.#ended.resolve(),
    );
    this.#scheduleKeepAlive();
    const error = connection.closed ? connection.getConnectionError() : undefined;
    if (error) this.end({ failure: 'closed', code: 0, reason: 'closed at once', local: false });
  }

  /** What ended the session, if it has. */
  get closeInfo(): CloseInfo | undefined {
    return this.#closeInfo;
  }

  start(handlers: SessionHandlers): void {
    this.#handlers = handlers;
    if (this.#closeInfo) return handlers.onClosed(this.#closeInfo);
    const { engine, fence } = this.#options;
    const { events } = engine;
    fence.connection.addEventListener(events.EventQUICConnectionStream.name, (event: Event) => {
      if (event instanceof events.EventQUICConnectionStream) this.#accept(event.detail);
    });
    fence.onReceived = () => {
      if (!this.#closeInfo) handlers.onCredit();
    };
    fence.admitStreams();
  }

  streamCredit(kind: StreamKind): number {
    return this.#closeInfo ? 0 : this.#options.fence.streamsLeft(kind);
  }

  openStream(kind: StreamKind): ByteStream {
    if (this.#closeInfo) throw closedError(this.#closeInfo);
    const { connection } = this.#options.fence;
    let stream: QUICStream;
    try {
      stream = connection.newStream(kind === 'call' ? 'bidi' : 'uni');
    } catch (cause) {
      // After one refusal the glue refuses for ever: only a new connection helps.
      this.fail('stream refused');
      throw new TransportError('limit', 'stream: refused by the engine', { cause });
    }
    return this.#wrap(stream);
  }

  #accept(stream: QUICStream): void {
    const wrapped = this.#wrap(stream);
    if (this.#closeInfo || !this.#handlers) return;
    this.#handlers.onStream(stream.type === 'bidi' ? 'call' : 'push', wrapped);
  }

  #wrap(stream: QUICStream): QuicStream {
    catchListenerErrors(stream, (error) => {
      this.#options.runtime.log.debug('quic.stream.fault', { error: String(error) });
    });
    return new QuicStream(stream, this.#options, () => this.#closeInfo);
  }

  #scheduleKeepAlive(): void {
    const { keepAliveMs, runtime, fence } = this.#options;
    if (keepAliveMs === undefined || this.#closeInfo) return;
    this.#keepAlive = runtime.clock.timer(keepAliveMs, () => {
      fence.ping();
      this.#scheduleKeepAlive();
    });
  }

  async close(code: number, reason: string): Promise<void> {
    if (!this.#closeInfo) {
      const bytes = new TextEncoder().encode(reason).subarray(0, maxReasonBytes);
      this.#options.fence.closeNow(true, code, bytes);
      this.end({ failure: 'closed', code, reason, local: true });
    }
    await this.#ended.promise;
  }

  /** Ends the session because the engine broke. */
  fail(reason: string): void {
    const { fence, engine } = this.#options;
    const code = engine.native.ConnectionErrorCode.InternalError;
    this.end({ failure: 'internal', code: 0, reason, local: true });
    fence.closeNow(false, code, new Uint8Array());
  }

  /** Idempotent; the glue may tell the same end in several ways. */
  end(info: CloseInfo): void {
    if (this.#closeInfo) return;
    this.#closeInfo = info;
    this.#keepAlive?.cancel();
    this.#options.onEnd?.(this);
    this.#handlers?.onClosed(info);
    void this.#letGo();
  }

  async #letGo(): Promise<void> {
    const { fence, runtime, letGo } = this.#options;
    const timer = runtime.clock.timer(drainMs, () => this.#ended.resolve());
    try {
      await Promise.race([fence.connection.stop({ force: true }), this.#ended.promise]);
    } catch (error) {
      runtime.log.debug('quic.stop.fault', { error: String(error) });
    }
    timer.cancel();
    await letGo?.();
    this.#ended.resolve();
  }
}

class QuicStream implements ByteStream {
  readonly stopped: Promise<TransportError>;
  readonly #stream: QUICStream;
  readonly #fence: Fence;
  readonly #clock: Clock;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #closeInfo: () => CloseInfo | undefined;
  #isFinished = false;

  constructor(
    stream: QUICStream,
    { fence, runtime }: QuicSessionOptions,
    closeInfo: () => CloseInfo | undefined,
  ) {
    this.#stream = stream;
    this.#fence = fence;
    this.#clock = runtime.clock;
    this.#closeInfo = closeInfo;
    this.#reader = stream.readable.getReader();
    this.#writer = stream.writable.getWriter();
    this.#reader.closed.catch(() => {});
    this.stopped = new Promise((resolve) => {
      this.#writer.closed.catch((error: unknown) => {
        if (!this.#isFinished) resolve(this.#errorOf(error));
      });
    });
  }

  async read(): Promise<Uint8Array | undefined> {
    try {
      const { value } = await this.#reader.read();
      return value;
    } catch (error) {
      throw this.#errorOf(error);
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    try {
      await this.#writer.write(fitted(bytes));
    } catch (error) {
      throw this.#errorOf(error);
    }
  }

  async finish(last: Uint8Array): Promise<void> {
    if (last.length > 0) this.#fence.endWithNextWrite(this.#stream.streamId);
    await this.write(last);
    this.#isFinished = true;
    try {
      await this.#writer.close();
    } catch {
      // The peer stopped reading: there is nothing to finish.
    }
  }

  stopReading(): void {
    void this.#linger();
  }

  /**
   * Takes in the end that should be near. STOP_SENDING only when it is not: quiche 0.18 frees a
   * stream when somebody reads its end, which nobody can after it; doing it always would leak the
   * native memory of every fifth call, and the credit of push streams.
   */
  async #linger(): Promise<void> {
    const cancel = (): void => void this.#cancelReading();
    const timer = this.#clock.timer(lingerMs, cancel);
    try {
      for (let bytes = 0; bytes <= lingerBytes;) {
        const { value } = await this.#reader.read();
        if (value === undefined) return;
        bytes += value.length;
      }
      cancel();
    } catch {
      // Reset by either side or gone with its connection: that is an end too.
    } finally {
      timer.cancel();
    }
  }

  async #cancelReading(): Promise<void> {
    try {
      await this.#reader.cancel(new LocalReset('done'));
    } catch {
      // It ended with an error before: nobody reads any more, which is what was asked for.
    }
  }

  reset(reason: StreamReason): void {
    try {
      // Not `writer.abort`: it waits for a write that waits for flow control.
      this.#stream.cancel(new LocalReset(reason));
    } catch {
      // The connection is gone, and the stream with it.
    }
  }

  #errorOf(error: unknown): TransportError {
    const info = this.#closeInfo();
    if (info) return closedError(info);
    if (error instanceof TransportError) return error;
    return new TransportError('closed', 'connection: closed', { cause: error });
  }
}
