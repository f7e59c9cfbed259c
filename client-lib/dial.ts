/**
 * One connection to a node: dialed with its pin, good when its Hello is answered, and called over.
 * Whether it is dialed again when it ends is the callers' business (link.ts for the own node).
 */
import {
  call,
  maxRequestBytes,
  methods,
  parseNodeAddress,
  type Method,
  type RpcOptions,
  type Runtime,
} from '@quicprochat/proto';
import type { HelloResponse, MessageInitShape, MessageShape } from '@quicprochat/proto/messages';
import {
  CloseCode,
  defaultLimits,
  type Connection,
  type NodeIdentity,
  type Transport,
} from '@quicprochat/proto/transport';

type DescMessage = Method['request'];

export interface DialParts {
  readonly runtime: Runtime;
  readonly transport: Transport;
  /** `qpc://host:port#pin`. */
  readonly nodeAddress: string;
  /** Keys by which the node may show itself, as of now; without it the one of the address. */
  readonly nodePins?: () => readonly Uint8Array[];
  readonly identity: NodeIdentity;
}

/**
 * Dials the node and says Hello. Throws TransportError, or the node's own error (VERSION). The
 * caller closes the connection.
 */
export async function dialNode(
  { transport, nodeAddress, nodePins, identity }: DialParts,
  signal?: AbortSignal,
): Promise<{ readonly connection: Connection; readonly hello: HelloResponse }> {
  const { host, port, pin } = parseNodeAddress(nodeAddress);
  const connection = await transport.dial(
    { host, port },
    {
      identity,
      limits: defaultLimits,
      maxRequestBytes,
      pins: nodePins?.() ?? [pin],
      ...(signal === undefined ? {} : { signal }),
    },
  );
  try {
    const hello = await call(
      connection,
      methods.hello,
      { versionMin: 1, versionMax: 1, capabilities: [], agent: 'qpc' },
      signal === undefined ? {} : { signal },
    );
    return { connection, hello };
  } catch (error) {
    await connection.close(CloseCode.Normal, 'no hello');
    throw error;
  }
}

/**
 * Work over a connection of its own, which is closed when the work ends. Throws as dialNode, and what
 * the work throws.
 */
export async function overConnection<T>(
  parts: DialParts,
  work: (connection: Connection) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const { connection } = await dialNode(parts, signal);
  try {
    return await work(connection);
  } finally {
    await connection.close(CloseCode.Normal, 'done');
  }
}

/** Calls methods of a node. */
export interface Caller {
  call<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
    options?: RpcOptions,
  ): Promise<MessageShape<O>>;
}

/** A caller over one connection, and what proofs for that connection name (SHA-256, 32 bytes each). */
export interface LineCaller extends Caller {
  readonly clientSpki: Uint8Array;
  readonly nodeSpki: Uint8Array;
}

/** A caller over one given connection. */
export function callerOf(connection: Connection): Caller {
  return { call: (method, request, options) => call(connection, method, request, options) };
}
