/**
 * A Connection whose streams live in another process: `exposeConnection` there, `RemoteConnection`
 * here, and between them one PortRpc for all connections of the process.
 */
import type { PushFrame, RequestFrame, ResponseFrame } from '../frame.ts';
import { Status, TransportError } from '../status.ts';
import { errorPayload } from './incoming-call.ts';
import { ownBytes, type PortRpc } from './port-rpc.ts';
import { closedError } from './session.ts';
import type {
  CallHandler,
  CallOptions,
  CloseInfo,
  Connection,
  PeerIdentity,
  PushHandler,
  PushWriter,
} from './transport.ts';

/** Number of a connection, and of a push stream, within a process. */
interface OnConnection {
  readonly connection: number;
}
interface OnStream extends OnConnection {
  readonly stream: number;
}
interface CallBody extends OnConnection {
  readonly request: RequestFrame;
  readonly options?: Omit<CallOptions, 'signal'>;
}
interface PushBody extends OnStream {
  readonly frame: PushFrame;
}
interface CloseBody extends OnConnection {
  readonly code: number;
  readonly reason: string;
}
export interface OpenBody extends OnConnection {
  readonly peer: PeerIdentity;
}
interface ClosedBody extends OnConnection {
  readonly info: CloseInfo;
}

function ownFrame<F extends { readonly payload: Uint8Array }>(frame: F): F {
  return { ...frame, payload: ownBytes(frame.payload) };
}

/** A connection with the push streams that were opened on it: they go when it does. */
interface Exposed {
  readonly connection: Connection;
  readonly writers: Map<number, PushWriter>;
}

/** Bounds of what waits for the other process. */
export interface CrossingBounds {
  /** Calls of all connections. */
  readonly calls: number;
  /** Payload of their requests (bytes). */
  readonly bytes: number;
}

const defaultBounds: CrossingBounds = { calls: 16_384, bytes: 64 * 1024 * 1024 };

/** The side of the process that holds the streams. */
export class ExposedConnections {
  readonly #rpc: PortRpc;
  readonly #bounds: CrossingBounds;
  #callsCrossing = 0;
  #bytesCrossing = 0;
  readonly #connections = new Map<number, Exposed>();
  #next = 0;

  constructor(rpc: PortRpc, bounds = defaultBounds) {
    this.#rpc = rpc;
    this.#bounds = bounds;
    rpc.onRequest('out-call', async (body, signal) => {
      const { connection, request, options } = body as CallBody & { options: CallOptions };
      const exposed = this.#of(connection);
      return ownFrame(await exposed.connection.call(request, { ...options, signal }));
    });
    rpc.onRequest('open-push', async (body) => {
      const { connection, writers } = this.#of((body as OnConnection).connection);
      const writer = await connection.openPushStream();
      const stream = this.#take();
      // Of a connection that closed meanwhile nobody asks again: it goes with its map.
      writers.set(stream, writer);
      return stream;
    });
    rpc.onRequest('write-push', (body) => {
      const { connection, stream, frame } = body as PushBody;
      const writer = this.#connections.get(connection)?.writers.get(stream);
      if (!writer) throw new TransportError('closed', 'push: closed');
      return writer.write(frame);
    });
    rpc.onRequest('end-push', async (body) => {
      const { connection, stream } = body as OnStream;
      const writers = this.#connections.get(connection)?.writers;
      const writer = writers?.get(stream);
      writers?.delete(stream);
      await writer?.close();
    });
    rpc.onRequest('close', async (body) => {
      const { connection, code, reason } = body as CloseBody;
      await this.#connections.get(connection)?.connection.close(code, reason);
    });
  }

  #of(connection: number): Exposed {
    const found = this.#connections.get(connection);
    if (!found) throw new TransportError('closed', 'connection: closed');
    return found;
  }

  #take(): number {
    this.#next += 1;
    return this.#next;
  }

  /**
   * The channel has no flow control, and this process reads packets faster than the other one serves
   * calls: above the bounds a call is answered here.
   */
  async #cross(
    connection: number,
    request: RequestFrame,
    signal: AbortSignal,
  ): Promise<ResponseFrame> {
    const { requestId, payload } = request;
    if (
      this.#callsCrossing >= this.#bounds.calls ||
      this.#bytesCrossing + payload.length > this.#bounds.bytes
    ) {
      const status = Status.ResourceExhausted;
      return { status, requestId, payload: errorPayload('OVERLOADED') };
    }
    this.#callsCrossing += 1;
    this.#bytesCrossing += payload.length;
    try {
      const body: CallBody = { connection, request: ownFrame(request) };
      return (await this.#rpc.request('call', body, { signal })) as ResponseFrame;
    } finally {
      this.#callsCrossing -= 1;
      this.#bytesCrossing -= payload.length;
    }
  }

  add(connection: Connection): void {
    const number = this.#take();
    this.#connections.set(number, { connection, writers: new Map() });
    const { spkiSha256, address, host } = connection.peer;
    const peer: PeerIdentity = { spkiSha256: ownBytes(spkiSha256), address, host };
    this.#rpc.notify('opened', { connection: number, peer } satisfies OpenBody);
    connection.onCall((request, { signal }) => this.#cross(number, request, signal));
    connection.onPushStream(async (frames) => {
      const stream = this.#take();
      // Ends when the reader there is done, however many frames there were.
      const reading = this.#rpc.request('push-opened', { connection: number, stream });
      reading.catch(() => {});
      try {
        for await (const frame of frames) {
          const body: PushBody = { connection: number, stream, frame: ownFrame(frame) };
          const isWanted = await this.#rpc.request('push-frame', body);
          if (isWanted !== true) return;
        }
      } finally {
        this.#rpc.notify('push-ended', { connection: number, stream });
      }
      await reading;
    });
    void connection.closed.then((info) => {
      this.#connections.delete(number);
      this.#rpc.notify('closed', { connection: number, info } satisfies ClosedBody);
    });
  }
}

/** One incoming push stream on the side that reads it. */
class IncomingPush {
  #waiting: { readonly frame: PushFrame; readonly taken: (isWanted: boolean) => void } | undefined;
  #isEnded = false;
  #isLeft = false;
  #wake = (): void => {};

  /** Resolves when the reader asked for the next one: real backpressure. False: it has left. */
  give(frame: PushFrame): Promise<boolean> {
    if (this.#isLeft) return Promise.resolve(false);
    return new Promise((taken) => {
      this.#waiting = { frame, taken };
      this.#wake();
    });
  }

  end(): void {
    this.#isEnded = true;
    this.#wake();
  }

  async *frames(): AsyncGenerator<PushFrame, void, void> {
    try {
      for (;;) {
        const waiting = this.#waiting;
        if (waiting) {
          yield waiting.frame;
          this.#waiting = undefined;
          waiting.taken(true);
        } else if (this.#isEnded) {
          return;
        } else {
          await new Promise<void>((resolve) => (this.#wake = resolve));
        }
      }
    } finally {
      this.#isLeft = true;
      this.#waiting?.taken(false);
    }
  }

  /** The reader left in the middle of a frame. */
  leave(): void {
    this.#isLeft = true;
    this.#waiting?.taken(false);
  }
}

/** The side of the process that uses the connection. */
export class RemoteConnection implements Connection {
  readonly peer: PeerIdentity;
  readonly closed: Promise<CloseInfo>;
  readonly #rpc: PortRpc;
  readonly #number: number;
  readonly #closed = Promise.withResolvers<CloseInfo>();
  readonly #callHandler = Promise.withResolvers<CallHandler>();
  readonly #pushHandler = Promise.withResolvers<PushHandler>();
  readonly #pushes = new Map<number, IncomingPush>();
  #closeInfo: CloseInfo | undefined;
  #closing: Promise<void> | undefined;

  constructor(rpc: PortRpc, { connection, peer }: OpenBody) {
    this.#rpc = rpc;
    this.#number = connection;
    this.peer = peer;
    this.closed = this.#closed.promise;
    // Nobody may be waiting for one of them when the connection ends.
    this.#callHandler.promise.catch(() => {});
    this.#pushHandler.promise.catch(() => {});
  }

  async call(request: RequestFrame, { signal, ...options }: CallOptions): Promise<ResponseFrame> {
    if (this.#closeInfo) throw closedError(this.#closeInfo);
    const body: CallBody = { connection: this.#number, request: ownFrame(request), options };
    try {
      const answer = await this.#rpc.request(
        'out-call',
        body,
        signal === undefined ? {} : { signal },
      );
      return answer as ResponseFrame;
    } catch (error) {
      // It may have ended over there before the call came; only its end knows why.
      const isOver = error instanceof TransportError && error.failure === 'closed';
      throw isOver ? closedError(await this.closed) : error;
    }
  }

  onCall(handler: CallHandler): void {
    this.#callHandler.resolve(handler);
  }

  onPushStream(handler: PushHandler): void {
    this.#pushHandler.resolve(handler);
  }

  async openPushStream(): Promise<PushWriter> {
    if (this.#closeInfo) throw closedError(this.#closeInfo);
    const connection = this.#number;
    const stream = (await this.#rpc.request('open-push', { connection })) as number;
    return {
      write: async (frame) => {
        await this.#rpc.request('write-push', { connection, stream, frame: ownFrame(frame) });
      },
      close: async () => {
        if (!this.#closeInfo) await this.#rpc.request('end-push', { connection, stream });
      },
    };
  }

  close(code: number, reason: string): Promise<void> {
    this.#closing ??= this.#close(code, reason);
    return this.#closing;
  }

  async #close(code: number, reason: string): Promise<void> {
    if (this.#closeInfo) return;
    const closing = this.#rpc.request('close', { connection: this.#number, code, reason });
    this.onClosed({ failure: 'closed', code, reason, local: true });
    // A process that is gone has closed it too.
    await closing.catch(() => {});
  }

  /** Idempotent. */
  onClosed(info: CloseInfo): void {
    if (this.#closeInfo) return;
    this.#closeInfo = info;
    // What waits for a handler that never came would hold a call or a stream in both processes.
    this.#callHandler.reject(closedError(info));
    this.#pushHandler.reject(closedError(info));
    for (const push of this.#pushes.values()) push.end();
    this.#closed.resolve(info);
  }

  /** A call came in over there. */
  async serve(request: RequestFrame, signal: AbortSignal): Promise<ResponseFrame> {
    const handler = await this.#callHandler.promise;
    return ownFrame(await handler(request, { signal }));
  }

  /** A push stream was opened over there; resolves when its reader is done. */
  async read(stream: number): Promise<void> {
    const push = new IncomingPush();
    this.#pushes.set(stream, push);
    try {
      const handler = await this.#pushHandler.promise;
      await handler(push.frames());
    } finally {
      push.leave();
      this.#pushes.delete(stream);
    }
  }

  push(stream: number): IncomingPush | undefined {
    return this.#pushes.get(stream);
  }
}

/** All connections of one process, on the side that uses them. */
export class RemoteConnections {
  readonly #connections = new Map<number, RemoteConnection>();

  constructor(rpc: PortRpc, onOpened: (connection: RemoteConnection) => void) {
    rpc.onNotice('opened', (body) => {
      const opened = body as OpenBody;
      const connection = new RemoteConnection(rpc, opened);
      this.#connections.set(opened.connection, connection);
      onOpened(connection);
    });
    rpc.onNotice('closed', (body) => {
      const { connection, info } = body as ClosedBody;
      this.#connections.get(connection)?.onClosed(info);
      this.#connections.delete(connection);
    });
    rpc.onRequest('call', (body, signal) => {
      const { connection, request } = body as CallBody;
      return this.#of(connection).serve(request, signal);
    });
    rpc.onRequest('push-opened', (body) => {
      const { connection, stream } = body as OnStream;
      return this.#of(connection).read(stream);
    });
    rpc.onRequest('push-frame', (body) => {
      const { connection, stream, frame } = body as PushBody;
      return this.#of(connection).push(stream)?.give(frame) ?? false;
    });
    rpc.onNotice('push-ended', (body) => {
      const { connection, stream } = body as OnStream;
      this.#connections.get(connection)?.push(stream)?.end();
    });
  }

  #of(connection: number): RemoteConnection {
    const found = this.#connections.get(connection);
    if (!found) throw new TransportError('closed', 'connection: closed');
    return found;
  }

  get all(): readonly RemoteConnection[] {
    return [...this.#connections.values()];
  }
}
