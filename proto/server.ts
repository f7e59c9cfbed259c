/**
 * Dispatch: frame -> row of the method table -> middleware -> handler -> frame. A handler gets the
 * decoded request and a context, never a frame; what it throws becomes a typed error frame here.
 */
import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf';
import { ErrorSchema } from './gen/qpc/v1/common_pb.ts';
import type { RequestFrame, ResponseFrame } from './frame.ts';
import { methodById, type MethodName, type Methods } from './methods.ts';
import type { Method } from './methods/row.ts';
import type { Log, Random, Runtime } from './runtime.ts';
import {
  InternalError,
  PayloadTooLargeError,
  QpcError,
  Status,
  UnimplementedError,
} from './status.ts';
import type { Connection } from './transport/transport.ts';

/** Who calls, as the node knows it from the connection's transport key. */
export type Caller =
  | { readonly class: 'anyone' }
  | { readonly class: 'enrolling'; readonly userId: string; readonly identityPub: Uint8Array }
  | {
      readonly class: 'device';
      readonly userId: string;
      readonly deviceId: string;
      readonly identityPub: Uint8Array;
      readonly sessionExpiresMs: number;
    }
  | { readonly class: 'guest'; readonly userId: string; readonly identityPub: Uint8Array }
  | { readonly class: 'peer'; readonly domain: string }
  | { readonly class: 'admin' };

/** One call on its way through the middleware. */
export interface Call {
  readonly name: MethodName;
  readonly method: Method;
  readonly connection: Connection;
  readonly caller: Caller;
  /**
   * The request, decoded at the first call and kept; typed by the row. Only what comes after the
   * caller's right and rate were judged may ask: a payload can decode to 100 times its bytes.
   * Throws QpcError InvalidArgument BAD_FIELD.
   */
  readonly decode: () => MessageShape<DescMessage>;
  /** Aborted when the caller goes away or the deadline passes. */
  readonly signal: AbortSignal;
}

/** What a handler gets besides its request. */
export type CallContext = Omit<Call, 'decode' | 'name' | 'method'>;

/** Wraps every call; `next` runs the rest. */
export type Middleware = (
  call: Call,
  next: (call: Call) => Promise<Uint8Array>,
) => Promise<Uint8Array>;

export type Handler<N extends MethodName> = (
  request: MessageShape<Methods[N]['request']>,
  context: CallContext,
) => Promise<MessageInitShape<Methods[N]['response']>>;

/** One handler per row: a missing one does not compile. */
export type Handlers = { readonly [N in MethodName]: Handler<N> };

/** One finished call, for metrics and logs. */
export interface CallReport {
  readonly method: string;
  readonly callerClass: Caller['class'];
  readonly status: number;
  /** Of a refusal; undefined where the status is Ok. */
  readonly reason: string | undefined;
  readonly durationMs: number;
  readonly requestBytes: number;
  readonly responseBytes: number;
}

export interface ServerOptions {
  readonly handlers: Handlers;
  readonly middleware: readonly Middleware[];
  /** Who a connection is at this moment; asked for each call, so that a revocation bites at once. */
  readonly identify: (connection: Connection) => Promise<Caller>;
  readonly runtime: Runtime;
  readonly onCall?: (report: CallReport) => void;
}

export interface Server {
  /** Serves the calls of one connection until it closes. */
  serve(connection: Connection): void;
}

export function createServer(options: ServerOptions): Server {
  const { runtime, handlers } = options;
  const { clock, log, random } = runtime;

  const innermost = async (call: Call): Promise<Uint8Array> => {
    // The table ties name, request type and handler together; the compiler cannot follow it here.
    const handler = handlers[call.name] as (
      request: MessageShape<DescMessage>,
      context: CallContext,
    ) => Promise<MessageInitShape<DescMessage>>;
    const response = await handler(call.decode(), call);
    return toBinary(call.method.response, create(call.method.response, response));
  };
  const run = options.middleware.reduceRight<(call: Call) => Promise<Uint8Array>>(
    (next, middleware) => (call) => middleware(call, next),
    innermost,
  );

  async function answer(
    connection: Connection,
    frame: RequestFrame,
    signal: AbortSignal,
  ): Promise<ResponseFrame> {
    const startMs = clock.monotonic();
    const found = methodById(frame.methodId);
    let caller: Caller = { class: 'anyone' };
    let status = 0;
    let payload: Uint8Array;
    let reason: string | undefined;
    try {
      if (found === undefined) {
        throw new UnimplementedError(`method ${frame.methodId} is not built`);
      }
      caller = await options.identify(connection);
      const { maxAnonymousBytes } = found.row;
      const hasLogin = caller.class !== 'anyone' && caller.class !== 'guest';
      if (!hasLogin && frame.payload.length > maxAnonymousBytes) {
        throw new PayloadTooLargeError(
          `${found.row.name}: ${frame.payload.length} bytes, at most ${maxAnonymousBytes} without login`,
        );
      }
      payload = await run({
        name: found.name,
        method: found.row,
        connection,
        caller,
        decode: decodeOnce(found.row, frame.payload),
        signal,
      });
      if (payload.length > found.row.maxResponseBytes) {
        throw new InternalError(
          `response of ${payload.length} bytes, at most ${found.row.maxResponseBytes}`,
        );
      }
    } catch (error) {
      const method = found?.row.name ?? 'unknown';
      [status, payload, reason] = errorToWire(error, { log, random, method });
    }
    options.onCall?.({
      method: found?.row.name ?? 'unknown',
      callerClass: caller.class,
      status,
      reason,
      durationMs: clock.monotonic() - startMs,
      requestBytes: frame.payload.length,
      responseBytes: payload.length,
    });
    return { status, requestId: frame.requestId, payload };
  }

  return {
    serve(connection) {
      connection.onCall((frame, { signal }) => answer(connection, frame, signal));
      // Nobody pushes to a server. Streams that nobody reads would keep what comes on them: a peer could
      // fill its window with frames of one byte, which cost the engine far more each.
      connection.onPushStream(async () => {});
    },
  };
}

function decodeOnce(method: Method, payload: Uint8Array): () => MessageShape<DescMessage> {
  let request: MessageShape<DescMessage> | undefined;
  return () => (request ??= decodeRequest(method, payload));
}

function decodeRequest(method: Method, payload: Uint8Array): MessageShape<DescMessage> {
  try {
    return fromBinary(method.request, payload);
  } catch (cause) {
    throw new QpcError(
      Status.InvalidArgument,
      'BAD_FIELD',
      `request is no ${method.request.name}`,
      {
        cause,
      },
    );
  }
}

/**
 * The one place that turns an error into what crosses the wire. Unknown errors and Internal ones
 * are logged here with a correlation id, and only that id travels.
 */
export function errorToWire(
  error: unknown,
  context: { readonly log: Log; readonly random: Random; readonly method: string },
): [status: number, payload: Uint8Array, reason: string] {
  const known = error instanceof QpcError && error.status !== Status.Internal ? error : undefined;
  if (known !== undefined) {
    return [
      known.status,
      toBinary(
        ErrorSchema,
        create(ErrorSchema, {
          reason: known.reason,
          message: known.message,
          retryAfterMs: BigInt(Math.ceil(known.retryAfterMs ?? 0)),
          details: known.details ?? new Uint8Array(0),
        }),
      ),
      known.reason,
    ];
  }
  const correlation = Buffer.from(context.random.bytes(8)).toString('hex');
  context.log.error('internal error', {
    method: context.method,
    correlation,
    error: error instanceof Error ? (error.stack ?? error.message) : String(error),
  });
  return [
    Status.Internal,
    toBinary(
      ErrorSchema,
      create(ErrorSchema, { reason: 'INTERNAL', message: `internal error ${correlation}` }),
    ),
    'INTERNAL',
  ];
}
