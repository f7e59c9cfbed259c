/**
 * What crosses between the store's thread and the others: one message per batch each way. Bytes of
 * one call travel in one transferred buffer, and typed errors arrive as what they were.
 */
import {
  ConflictError,
  DataLossError,
  FailedPreconditionError,
  InternalError,
  InvalidArgumentError,
  NotFoundError,
  PayloadTooLargeError,
  PermissionDeniedError,
  QpcError,
  ResourceExhaustedError,
  Status,
  UnavailableError,
} from '@quicprochat/proto';
import { StoreFailedError } from './failure.ts';
import { StoreOpenError } from './open-error.ts';
import type { OperationRequest } from './operations.ts';
import type { StoreLimits } from './store-limits.ts';

/** What the thread starts with. */
export interface WorkerStart {
  readonly path: string;
  readonly key: Uint8Array;
  readonly limits: StoreLimits;
}

export type ToWorker =
  | {
      readonly type: 'batch';
      readonly nowMs: number;
      readonly requests: readonly OperationRequest[];
    }
  | { readonly type: 'close' };

export type FromWorker =
  | { readonly type: 'open'; readonly storeId: Uint8Array }
  | {
      /** Answers `batches` batches in their order. */
      readonly type: 'done';
      readonly batches: number;
      readonly outcomes: readonly OutcomeMessage[];
      readonly woken: readonly string[];
      /** The store's id as of now. */
      readonly storeId: Uint8Array;
    }
  | { readonly type: 'failed'; readonly error: ErrorMessage }
  | { readonly type: 'closed' };

export type OutcomeMessage =
  | { readonly isOk: true; readonly value: unknown }
  | { readonly isOk: false; readonly error: ErrorMessage };

export interface ErrorMessage {
  readonly name: string;
  readonly status: Exclude<Status, 0>;
  readonly reason: string;
  readonly message: string;
  readonly retryAfterMs: number | undefined;
  readonly details: Uint8Array | undefined;
  /** Text of the cause, for a log. */
  readonly cause: string | undefined;
}

/**
 * A copy of plain data (objects, arrays, primitives, Uint8Array) whose bytes all lie in one buffer
 * of their own. Throws TypeError on anything else.
 */
export function pack<T>(value: T): { readonly value: T; readonly buffer: ArrayBuffer } {
  const arena = new Uint8Array(byteCount(value));
  let used = 0;
  const copy = (part: unknown): unknown => {
    if (typeof part !== 'object' || part === null) {
      if (typeof part === 'function' || typeof part === 'symbol') {
        throw new TypeError(`a ${typeof part} cannot go to the store`);
      }
      return part;
    }
    if (part instanceof Uint8Array) {
      const view = arena.subarray(used, used + part.length);
      view.set(part);
      used += part.length;
      return view;
    }
    if (Array.isArray(part)) return part.map(copy);
    const copied: Record<string, unknown> = {};
    for (const [name, field] of Object.entries(part)) copied[name] = copy(field);
    return copied;
  };
  // A copy of plain data has its type.
  return { value: copy(value) as T, buffer: arena.buffer };
}

function byteCount(part: unknown): number {
  if (typeof part !== 'object' || part === null) return 0;
  if (part instanceof Uint8Array) return part.length;
  let count = 0;
  for (const field of Object.values(part)) count += byteCount(field);
  return count;
}

export function errorToMessage(error: QpcError): ErrorMessage {
  const { cause } = error;
  return {
    name: error.name,
    status: error.status,
    reason: error.reason,
    message: error.message,
    retryAfterMs: error.retryAfterMs,
    details: error.details,
    cause: cause instanceof Error ? cause.stack : undefined,
  };
}

type ReasonArgument<C extends new (reason: never, ...rest: never[]) => QpcError> =
  ConstructorParameters<C>[0];

/** The typed error, of the class that was thrown. */
export function errorFromMessage(sent: ErrorMessage): QpcError {
  const { name, status, reason, message } = sent;
  const options = {
    ...(sent.retryAfterMs === undefined ? {} : { retryAfterMs: sent.retryAfterMs }),
    ...(sent.details === undefined ? {} : { details: sent.details }),
    ...(sent.cause === undefined ? {} : { cause: sent.cause }),
  };
  // The casts: the reason was an argument of the same class on the other side.
  if (name === 'StoreOpenError') {
    return new StoreOpenError(reason as ReasonArgument<typeof StoreOpenError>, message, options);
  }
  if (name === 'StoreFailedError') return new StoreFailedError(message, options);
  switch (status) {
    case Status.InvalidArgument:
      return new InvalidArgumentError(
        reason as ReasonArgument<typeof InvalidArgumentError>,
        message,
        options,
      );
    case Status.PermissionDenied:
      return new PermissionDeniedError(
        reason as ReasonArgument<typeof PermissionDeniedError>,
        message,
        options,
      );
    case Status.NotFound:
      return new NotFoundError(reason as ReasonArgument<typeof NotFoundError>, message, options);
    case Status.ResourceExhausted:
      return new ResourceExhaustedError(
        reason as ReasonArgument<typeof ResourceExhaustedError>,
        message,
        options,
      );
    case Status.Conflict:
      return new ConflictError(reason as ReasonArgument<typeof ConflictError>, message, options);
    case Status.PayloadTooLarge:
      return new PayloadTooLargeError(message, options);
    case Status.Unavailable:
      return new UnavailableError(
        reason as ReasonArgument<typeof UnavailableError>,
        message,
        options,
      );
    case Status.Internal:
      return new InternalError(message, options);
    case Status.FailedPrecondition:
      return new FailedPreconditionError(
        reason as ReasonArgument<typeof FailedPreconditionError>,
        message,
        options,
      );
    case Status.DataLoss:
      return new DataLossError(reason as ReasonArgument<typeof DataLossError>, message, options);
    default:
      return new QpcError(status, reason, message, options);
  }
}
