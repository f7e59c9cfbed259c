/** What keeps a command from starting: configuration, files, permissions. One line, exit code 2. */
import { QpcError, Status } from '@quicprochat/proto';

export class SetupError extends QpcError {
  override name = 'SetupError';
  /** `message` says what is wrong and what to do about it, on one line. */
  constructor(message: string, cause?: unknown) {
    super(Status.FailedPrecondition, 'SETUP', message, { cause });
  }
}

/** What the system says, like ENOENT; empty where it is none of its errors. */
export function codeOf(cause: unknown): string {
  return cause instanceof Error && 'code' in cause ? String(cause.code) : '';
}
