/** What an error on the way to an accepted commit means for the wish that it is for. */
import { hasReason, QpcError, Status, TransportError, UnavailableError } from '@quicprochat/proto';
import { ClosedError } from '../../link.ts';
import { StaleKeysError } from '../../sending/sealing.ts';

/** A refusal by the roles of an epoch, which may be over: others can have given the right meanwhile. */
export const isOfEpoch = (error: unknown): boolean =>
  hasReason(error, 'NOT_ALLOWED', 'UNKNOWN_MEMBER', 'LAST_OWNER');

/** Whether the same step may succeed later, without anybody's doing. */
export function isTemporary(error: unknown): boolean {
  if (error instanceof ClosedError || error instanceof StaleKeysError) return true;
  if (error instanceof TransportError) return true;
  if (!(error instanceof QpcError)) return true;
  const { status } = error;
  // Fenced: another hub leads by now, and that one decides.
  if (hasReason(error, 'UNKNOWN_HUB', 'UNKNOWN_CREDENTIAL', 'BAD_STATE', 'TERM_FENCED'))
    return true;
  return [
    Status.Unavailable,
    Status.DeadlineExceeded,
    Status.ResourceExhausted,
    Status.Internal,
    Status.Unauthenticated,
  ].some((passing) => passing === status);
}

/** As one of several hubs said it: one that lost its disk and knows the group no more has no say, and the next is asked. */
export function ofOneHub(error: unknown): unknown {
  if (!hasReason(error, 'UNKNOWN_GROUP')) return error;
  return new UnavailableError('HUB_UNAVAILABLE', 'one hub forgot the group', { cause: error });
}

/**
 * What a hub answers that no honest one does is no refusal: the commit may have been accepted. Throws TransportError for
 * it, and the work's other errors.
 */
export async function byHub<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!hasReason(error, 'BAD_SIGNATURE', 'BAD_FIELD')) throw error;
    throw new TransportError('protocol', `the hub's answer: ${error.message}`, { cause: error });
  }
}
