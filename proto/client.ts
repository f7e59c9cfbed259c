/**
 * The typed caller: encodes a request of the method table, sends it over any Connection, decodes
 * the response or throws the typed error that it carries. No retries: they belong to whoever knows
 * what may be repeated.
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
import type { Method } from './methods/row.ts';
import { errorFromWire, TransportError } from './status.ts';
import type { Connection } from './transport/transport.ts';

/** The network may take this long beyond the handler's own deadline (ms). */
const networkGraceMs = 5_000;

let lastRequestId = 0;
/** Request ids only pair frames in logs; streams pair calls. Wraps at 2^32. */
function nextRequestId(): number {
  lastRequestId = (lastRequestId + 1) >>> 0;
  return lastRequestId;
}

export interface RpcOptions {
  /** Replaces the row's deadline plus grace (ms). */
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * Calls one method. Throws the typed QpcError of the response's status, TransportError when no
 * response came, TransportError `protocol` when it cannot be decoded.
 */
export async function call<I extends DescMessage, O extends DescMessage>(
  connection: Pick<Connection, 'call'>,
  method: Method<I, O>,
  request: MessageInitShape<I>,
  options: RpcOptions = {},
): Promise<MessageShape<O>> {
  const response = await connection.call(
    {
      methodId: method.id,
      requestId: nextRequestId(),
      payload: toBinary(method.request, create(method.request, request)),
    },
    {
      deadlineMs: options.deadlineMs ?? method.deadlineMs + networkGraceMs,
      maxResponseBytes: method.maxResponseBytes,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    },
  );
  if (response.status !== 0) {
    throw errorFromWire(response.status, decode(ErrorSchema, response.payload, method.name));
  }
  return decode(method.response, response.payload, method.name);
}

function decode<T extends DescMessage>(
  schema: T,
  payload: Uint8Array,
  name: string,
): MessageShape<T> {
  try {
    return fromBinary(schema, payload);
  } catch (cause) {
    throw new TransportError('protocol', `${name}: the response is no ${schema.name}`, { cause });
  }
}
