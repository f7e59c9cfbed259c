/**
 * The errors of quicprochat: status codes of the wire, their stable reasons, and one error class
 * per status. What crosses the wire is made by `errorToWire` alone, so that an unknown error
 * becomes Internal with a correlation id and nothing else leaks.
 */

/** Status byte of a response frame. */
export const Status = {
  Ok: 0,
  InvalidArgument: 1,
  Unauthenticated: 2,
  PermissionDenied: 3,
  NotFound: 4,
  ResourceExhausted: 5,
  Conflict: 6,
  PayloadTooLarge: 7,
  DeadlineExceeded: 8,
  Unavailable: 9,
  Internal: 10,
  Unimplemented: 11,
  FailedPrecondition: 12,
  DataLoss: 13,
} as const;
export type Status = (typeof Status)[keyof typeof Status];

/**
 * The reasons that travel, each bound to one status. Programs switch on the reason; a reason is
 * never renamed or moved to another status.
 */
export const reasonsByStatus = {
  [Status.InvalidArgument]: ['BAD_FIELD', 'BAD_SIGNATURE', 'BAD_FRAME'],
  [Status.Unauthenticated]: ['AUTH_FAILED', 'NOT_LOGGED_IN', 'BAD_CREDENTIAL'],
  [Status.PermissionDenied]: ['CALLER_CLASS', 'BANNED', 'BLOCKED', 'PEER_DENIED', 'HOOK_REJECTED'],
  [Status.NotFound]: [
    'UNKNOWN_USER',
    'UNKNOWN_DEVICE',
    'UNKNOWN_CHANNEL',
    'UNKNOWN_GROUP',
    'NO_KEY_PACKAGE',
    'UNKNOWN_BLOB',
    'UNKNOWN_EVIDENCE',
  ],
  [Status.ResourceExhausted]: ['RATE_LIMITED', 'QUEUE_FULL', 'OVERLOADED', 'QUOTA'],
  [Status.Conflict]: ['EPOCH_CONFLICT', 'NAME_TAKEN', 'SEQ_CONFLICT'],
  [Status.PayloadTooLarge]: ['TOO_LARGE'],
  [Status.DeadlineExceeded]: ['TIMEOUT'],
  [Status.Unavailable]: [
    'DRAINING',
    'STORE_FULL',
    'PEER_UNREACHABLE',
    'HUB_UNAVAILABLE',
    'HUB_RESTORED',
    'DISCONNECTED',
  ],
  [Status.Internal]: ['INTERNAL'],
  [Status.Unimplemented]: ['UNIMPLEMENTED'],
  [Status.FailedPrecondition]: [
    'BAD_CURSOR',
    'DOMAINS_STALE',
    'TERM_FENCED',
    'EPOCH_FULL',
    'MOVED',
    'FEATURE_OFF',
    'VERSION',
  ],
  [Status.DataLoss]: ['STORE_CHANGED', 'STREAM_GAP'],
} as const satisfies Record<Exclude<Status, 0>, readonly string[]>;

type ReasonOf<S extends Exclude<Status, 0>> = (typeof reasonsByStatus)[S][number];
/** Every reason that a node may answer with. */
export type Reason = ReasonOf<Exclude<Status, 0>>;

/** What may accompany an error; `details` are reason-specific protobuf bytes. */
export interface ErrorOptions {
  readonly retryAfterMs?: number;
  readonly details?: Uint8Array;
  readonly cause?: unknown;
}

/** Base of every error that this project throws on purpose. `status` is the u8 of the wire. */
export class QpcError extends Error {
  override name = 'QpcError';
  readonly status: Exclude<Status, 0>;
  /** A `Reason` when it came from or goes to the wire; parts that never cross it add their own. */
  readonly reason: string;
  readonly retryAfterMs: number | undefined;
  readonly details: Uint8Array | undefined;

  constructor(
    status: Exclude<Status, 0>,
    reason: string,
    message: string,
    options: ErrorOptions = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.status = status;
    this.reason = reason;
    this.retryAfterMs = options.retryAfterMs;
    this.details = options.details;
  }
}

export class InvalidArgumentError extends QpcError {
  override name = 'InvalidArgumentError';
  constructor(reason: ReasonOf<1>, message: string, options?: ErrorOptions) {
    super(Status.InvalidArgument, reason, message, options);
  }
}
export class UnauthenticatedError extends QpcError {
  override name = 'UnauthenticatedError';
  constructor(reason: ReasonOf<2>, message: string, options?: ErrorOptions) {
    super(Status.Unauthenticated, reason, message, options);
  }
}
export class PermissionDeniedError extends QpcError {
  override name = 'PermissionDeniedError';
  constructor(reason: ReasonOf<3>, message: string, options?: ErrorOptions) {
    super(Status.PermissionDenied, reason, message, options);
  }
}
export class NotFoundError extends QpcError {
  override name = 'NotFoundError';
  constructor(reason: ReasonOf<4>, message: string, options?: ErrorOptions) {
    super(Status.NotFound, reason, message, options);
  }
}
export class ResourceExhaustedError extends QpcError {
  override name = 'ResourceExhaustedError';
  constructor(reason: ReasonOf<5>, message: string, options?: ErrorOptions) {
    super(Status.ResourceExhausted, reason, message, options);
  }
}
export class ConflictError extends QpcError {
  override name = 'ConflictError';
  constructor(reason: ReasonOf<6>, message: string, options?: ErrorOptions) {
    super(Status.Conflict, reason, message, options);
  }
}
export class PayloadTooLargeError extends QpcError {
  override name = 'PayloadTooLargeError';
  constructor(message: string, options?: ErrorOptions) {
    super(Status.PayloadTooLarge, 'TOO_LARGE', message, options);
  }
}
export class DeadlineExceededError extends QpcError {
  override name = 'DeadlineExceededError';
  constructor(message: string, options?: ErrorOptions) {
    super(Status.DeadlineExceeded, 'TIMEOUT', message, options);
  }
}
export class UnavailableError extends QpcError {
  override name = 'UnavailableError';
  constructor(reason: ReasonOf<9>, message: string, options?: ErrorOptions) {
    super(Status.Unavailable, reason, message, options);
  }
}
/** `message` is for the log of the side that throws it; the wire carries a correlation id only. */
export class InternalError extends QpcError {
  override name = 'InternalError';
  constructor(message: string, options?: ErrorOptions) {
    super(Status.Internal, 'INTERNAL', message, options);
  }
}
export class UnimplementedError extends QpcError {
  override name = 'UnimplementedError';
  constructor(message: string, options?: ErrorOptions) {
    super(Status.Unimplemented, 'UNIMPLEMENTED', message, options);
  }
}
export class FailedPreconditionError extends QpcError {
  override name = 'FailedPreconditionError';
  constructor(reason: ReasonOf<12>, message: string, options?: ErrorOptions) {
    super(Status.FailedPrecondition, reason, message, options);
  }
}
export class DataLossError extends QpcError {
  override name = 'DataLossError';
  constructor(reason: ReasonOf<13>, message: string, options?: ErrorOptions) {
    super(Status.DataLoss, reason, message, options);
  }
}

/** What can end a connection or a call below the RPC layer, the same for every engine. */
export type TransportFailure =
  | 'timeout'
  | 'refusedIdentity'
  | 'alpn'
  | 'limit'
  | 'closed'
  | 'unreachable'
  | 'cancelled'
  | 'protocol'
  | 'internal';

const transportStatus = {
  timeout: [Status.DeadlineExceeded, 'TIMEOUT'],
  refusedIdentity: [Status.Unauthenticated, 'BAD_CREDENTIAL'],
  alpn: [Status.FailedPrecondition, 'VERSION'],
  limit: [Status.ResourceExhausted, 'OVERLOADED'],
  closed: [Status.Unavailable, 'DISCONNECTED'],
  unreachable: [Status.Unavailable, 'DISCONNECTED'],
  cancelled: [Status.Unavailable, 'DISCONNECTED'],
  protocol: [Status.InvalidArgument, 'BAD_FRAME'],
  internal: [Status.Internal, 'INTERNAL'],
} as const satisfies Record<TransportFailure, readonly [Exclude<Status, 0>, Reason]>;

/** A failure of the transport. `closeCode` is the peer's application close code, when it sent one. */
export class TransportError extends QpcError {
  override name = 'TransportError';
  readonly failure: TransportFailure;
  readonly closeCode: number | undefined;
  constructor(
    failure: TransportFailure,
    message: string,
    options: ErrorOptions & { readonly closeCode?: number } = {},
  ) {
    const [status, reason] = transportStatus[failure];
    super(status, reason, message, options);
    this.failure = failure;
    this.closeCode = options.closeCode;
  }
}

/** Rebuilds the typed error of a response's status byte and Error fields. */
export function errorFromWire(
  status: number,
  error: { reason: string; message: string; retryAfterMs: bigint; details: Uint8Array },
): QpcError {
  const known = Object.values(Status).find((s): s is Exclude<Status, 0> => s === status && s !== 0);
  const options: ErrorOptions = {
    ...(error.retryAfterMs > 0n ? { retryAfterMs: Number(error.retryAfterMs) } : {}),
    ...(error.details.length > 0 ? { details: error.details } : {}),
  };
  // A status of a later version is an error all the same: Internal is the one without promises.
  return new QpcError(known ?? Status.Internal, error.reason || 'INTERNAL', error.message, options);
}

/** True for an error that carries one of the given reasons, wherever it was made. */
export function hasReason(error: unknown, ...reasons: readonly string[]): error is QpcError {
  return error instanceof QpcError && reasons.includes(error.reason);
}
