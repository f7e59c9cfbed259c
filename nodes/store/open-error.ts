/** Why a store cannot be opened or made, each with one line that says what to do. */
import { QpcError, Status, type ErrorOptions } from '@quicprochat/proto';

export type StoreOpenReason =
  | 'STORE_MISSING'
  | 'STORE_EXISTS'
  | 'STORE_LOCKED'
  | 'STORE_KEY'
  | 'STORE_INVALID'
  | 'STORE_NEWER'
  | 'STORE_IO';

/** FailedPrecondition; the reason never crosses the wire. The message is for the operator. */
export class StoreOpenError extends QpcError {
  override name = 'StoreOpenError';
  constructor(reason: StoreOpenReason, message: string, options?: ErrorOptions) {
    super(Status.FailedPrecondition, reason, message, options);
  }
}

export function lockedError(path: string, cause: unknown): StoreOpenError {
  const message = `${path}: in use by another process; stop that qpcd first`;
  return new StoreOpenError('STORE_LOCKED', message, { cause });
}
