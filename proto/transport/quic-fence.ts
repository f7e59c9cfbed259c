/**
 * A fence around the stock glue of @matrixai/quic 2.0.9, which has ways to end the process or to
 * wedge a connection. Each override below names its reason; what the fence needs of the glue's
 * internals is checked at run time, so another version of the package fails at the first dial.
 */
import type { native, QUICConnection } from '@matrixai/quic';
import { TransportError } from '../status.ts';
import type { Engine } from './quic-engine.ts';
import type { StreamKind } from './session.ts';

/** What a session sees and does through the fence of its connection. */
export interface Fence {
  readonly connection: QUICConnection;
  /** Streams of the kind that the peer lets us open now. */
  streamsLeft(kind: StreamKind): number;
  /** The next write on the stream is its last: the end of the stream travels with it. */
  endWithNextWrite(streamId: number): void;
  /** Sends CONNECTION_CLOSE at once, without resetting the streams first as `stop` does. */
  closeNow(isApp: boolean, code: number, reason: Uint8Array): void;
  /** Makes the peer answer, so that neither side idles out. */
  ping(): void;
  /** Runs after each packet that arrived. */
  onReceived: () => void;
  /** From now on incoming streams are let through; those that came before are shown at once. */
  admitStreams(): void;
}

/** A glue event whose listener threw; `detail` is what was thrown. */
const eventErrorName = 'EventError';

/** Catches what listeners of a glue object throw: without a listener of its own Node exits. */
export function catchListenerErrors(
  target: { addEventListener(type: string, listener: (event: Event) => void): void },
  onError: (error: unknown) => void,
): void {
  target.addEventListener(eventErrorName, (event) =>
    onError('detail' in event ? event.detail : event),
  );
}

/**
 * Puts the fence around a connection that has not started yet. `onFault` runs once, when the glue
 * broke inside; the connection is closed by then.
 */
export function fenceConnection(
  engine: Engine,
  connection: QUICConnection,
  onFault: (error: unknown) => void,
): Fence {
  const { errors, events } = engine;
  const conn = nativeOf(connection);
  const recv = methodOf(connection, 'recv');
  const send = methodOf(connection, 'send');
  const dispatchEvent = connection.dispatchEvent.bind(connection);
  let isBroken = false;

  const fault = (error: unknown): void => {
    // A packet or a timer that comes after the end is no fault.
    if (error instanceof errors.ErrorQUICConnectionNotRunning || isBroken) return;
    isBroken = true;
    // INTERNAL_ERROR of RFC 9000 section 20.1; null when it is closed already.
    conn.close(false, engine.native.ConnectionErrorCode.InternalError, new Uint8Array());
    onFault(error);
    void stopQuietly(connection);
  };

  // The socket's listener, a timer and an event listener await this; a rejection in any of them is
  // an unhandled one. It also ends a connection on which "never" happened (js-quic issue 128), which
  // would answer every further packet with the same exception.
  override(connection, 'recv', async (...packet: unknown[]) => {
    try {
      await recv(...packet);
      fence.onReceived();
    } catch (error) {
      fault(error);
    }
  });
  override(connection, 'send', async () => {
    try {
      await send();
    } catch (error) {
      fault(error);
    }
  });
  // Until its start is over the glue refuses every stream, and a dialer that is quick sends its first
  // call with the last packet of its handshake.
  const processStreams = methodOf(connection, 'processStreams');
  let isAdmitting = false;
  let isStreamWaiting = false;
  override(connection, 'processStreams', () => {
    if (isAdmitting) processStreams();
    else isStreamWaiting = true;
  });
  // The glue sends the end of a stream by itself, as an empty frame. Lost once, this quiche may never
  // send it again, and the stream then counts against the peer's limit for ever (quiche issue 2525).
  const streamSend = conn.streamSend.bind(conn);
  const ending = new Set<number>();
  const ended = new Set<number>();
  override(conn, 'streamSend', (id: number, data: Uint8Array, fin: boolean) => {
    if (ended.has(id)) {
      if (fin) ended.delete(id);
      return 0;
    }
    const isLast = data.length > 0 && ending.delete(id);
    const sent = streamSend(id, data, fin || isLast);
    // Flow control took a part: the rest comes with another call.
    if (isLast) (sent === data.length ? ended : ending).add(id);
    return sent;
  });
  const streamShutdown = conn.streamShutdown.bind(conn);
  override(conn, 'streamShutdown', (id: number, side: native.Shutdown, code: number) => {
    if (side === engine.native.Shutdown.Write) {
      ending.delete(id);
      ended.delete(id);
    }
    return streamShutdown(id, side, code);
  });
  // An internal error is thrown by the glue's own listeners on purpose, to end the process.
  override(connection, 'dispatchEvent', (event: Event) => {
    if (
      event instanceof events.EventQUICConnectionError &&
      event.detail instanceof errors.ErrorQUICConnectionInternal
    ) {
      fault(event.detail);
      return true;
    }
    return dispatchEvent(event);
  });
  catchListenerErrors(connection, fault);

  const fence: Fence = {
    connection,
    streamsLeft: (kind) =>
      isBroken || conn.isClosed() || conn.isDraining()
        ? 0
        : kind === 'call'
          ? conn.peerStreamsLeftBidi()
          : conn.peerStreamsLeftUni(),
    endWithNextWrite: (streamId) => void ending.add(streamId),
    closeNow(isApp, code, reason) {
      if (conn.isClosed() || conn.isDraining()) return;
      conn.close(isApp, code, reason);
      const data = { isApp, errorCode: code, reason };
      const detail = new errors.ErrorQUICConnectionLocal('closed here', { data });
      connection.dispatchEvent(new events.EventQUICConnectionError({ detail }));
    },
    ping() {
      try {
        conn.sendAckEliciting();
        void methodOf(connection, 'send')();
      } catch (error) {
        fault(error);
      }
    },
    onReceived() {},
    admitStreams() {
      isAdmitting = true;
      if (!isStreamWaiting) return;
      try {
        processStreams();
      } catch (error) {
        fault(error);
      }
    },
  };
  return fence;
}

async function stopQuietly(connection: QUICConnection): Promise<void> {
  try {
    await connection.stop({ force: true });
  } catch {
    // Its streams are broken too. The native side is closed and forgotten after its time-out.
  }
}

function nativeOf(connection: QUICConnection): native.Connection {
  const conn: unknown = Reflect.get(connection, 'conn');
  if (!isNativeConnection(conn)) throw unknownVersion('conn');
  return conn;
}

function isNativeConnection(value: unknown): value is native.Connection {
  if (typeof value !== 'object' || value === null) return false;
  const wanted = [
    'close',
    'isClosed',
    'isDraining',
    'peerStreamsLeftBidi',
    'peerStreamsLeftUni',
    'sendAckEliciting',
    'streamSend',
    'streamShutdown',
  ];
  return wanted.every((name) => typeof Reflect.get(value, name) === 'function');
}

function methodOf(target: object, name: string): (...args: unknown[]) => unknown {
  const method: unknown = Reflect.get(target, name);
  if (typeof method !== 'function') throw unknownVersion(name);
  return (...args) => {
    const result: unknown = Reflect.apply(method, target, args);
    return result;
  };
}

function override(target: object, name: string, value: (...args: never[]) => unknown): void {
  Object.defineProperty(target, name, { value, configurable: true, writable: true });
}

function unknownVersion(name: string): TransportError {
  return new TransportError('internal', `quic: this version of the engine lacks ${name}`);
}
