/**
 * One life of a link: the FedHello that begins it, calls bound to it, and what its end means. Errors
 * that leave here are QpcErrors.
 */
import {
  call,
  hasReason,
  InternalError,
  methods,
  QpcError,
  TransportError,
  type Method,
  type RpcOptions,
} from '@quicprochat/proto';
import type {
  FedHelloRequestSchema,
  FedHelloResponse,
  MessageInitShape,
  MessageShape,
} from '@quicprochat/proto/messages';
import { CloseCode, type CloseInfo, type Connection } from '@quicprochat/proto/transport';

/** Time for the answer to the FedHello of a new connection (ms). */
export const helloMs = 5_000;

/** One life of the link, from an answered FedHello to its end. */
export interface LinkSession {
  readonly hello: FedHelloResponse;
  /** SHA-256 SPKI of the key that the peer proved in the handshake (32 bytes). */
  readonly spkiSha256: Uint8Array;
  /** Aborted when the connection ends or the link stops; the reason is a QpcError then. */
  readonly signal: AbortSignal;
  /** Ends the session and closes the connection, for this reason. */
  end(reason: unknown): void;
  /** `call` of proto over this connection, bound to the session's life. */
  call<I extends Method['request'], O extends Method['response']>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
    options?: RpcOptions,
  ): Promise<MessageShape<O>>;
}

/** What this side says, and what it accepts. */
export interface Greeting {
  readonly makeHello: () => Promise<MessageInitShape<typeof FedHelloRequestSchema>>;
  /** Throws a typed error when the answer is not what the peers file promises. */
  readonly checkHello: (hello: FedHelloResponse) => void;
}

/**
 * Says hello on a new connection. The session lives until `ended` is aborted; `onAnswer` runs with
 * every answer to its calls but the one about the record. Throws what the hello threw.
 */
export async function greet(
  connection: Connection,
  { makeHello, checkHello }: Greeting,
  ended: AbortController,
  onAnswer: () => void,
): Promise<LinkSession> {
  const { signal } = ended;
  const request = await makeHello();
  const hello = await call(connection, methods.fedHello, request, { deadlineMs: helloMs, signal });
  checkHello(hello);
  return {
    hello,
    spkiSha256: connection.peer.spkiSha256,
    signal,
    end: (reason) => ended.abort(asQpcError(reason)),
    async call(method, request, options = {}) {
      const { signal: own } = options;
      const both = own === undefined ? signal : AbortSignal.any([signal, own]);
      // Every link asks for the record first: an answer says as little as that to the hello.
      const heard = method.id === methods.getNodeRecord.id ? (): void => {} : onAnswer;
      try {
        const answer = await call(connection, method, request, { ...options, signal: both });
        heard();
        return answer;
      } catch (error) {
        // An error that the peer sent is an answer too.
        if (!(error instanceof TransportError)) heard();
        throw error;
      }
    },
  };
}

/** Refusals that waiting does not end: who we are, who they are, or what we both speak. */
export function isOperatorsMatter(error: QpcError): boolean {
  if (error instanceof TransportError && error.closeCode === CloseCode.RefusedIdentity) return true;
  return hasReason(
    error,
    'PEER_DENIED',
    'BANNED',
    'CALLER_CLASS',
    'BAD_CREDENTIAL',
    'VERSION',
    'UNIMPLEMENTED',
  );
}

export function closedError(info: CloseInfo): TransportError {
  const side = info.local ? 'by us' : 'by the peer';
  return new TransportError('closed', `connection closed ${side}, code ${info.code}`, {
    closeCode: info.code,
  });
}

export function asQpcError(error: unknown): QpcError {
  if (error instanceof QpcError) return error;
  return new InternalError(error instanceof Error ? error.message : String(error), {
    cause: error,
  });
}

export function untilAborted(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (signal.aborted) resolve();
  else signal.addEventListener('abort', () => resolve(), { once: true });
  return promise;
}
