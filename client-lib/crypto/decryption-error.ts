/**
 * The one error of everything here that opens what somebody else has sealed. It tells that
 * the bytes are not authentic for this key, never which check said so first.
 */
import { QpcError, Status } from '@quicprochat/proto';
import type { ErrorOptions } from '@quicprochat/proto';

/** Status InvalidArgument, reason `DECRYPT_FAILED`. The caller's state is unchanged. */
export class DecryptionError extends QpcError {
  override name = 'DecryptionError';
  constructor(message: string, options?: ErrorOptions) {
    super(Status.InvalidArgument, 'DECRYPT_FAILED', message, options);
  }
}
