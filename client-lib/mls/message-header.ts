/**
 * The group of an MLS message before anybody can open it: the public header of a PrivateMessage
 * (RFC 9420 sections 6 and 6.3). Nothing in it is authenticated.
 */
import { MlsError } from './errors.ts';
import { wireformats } from './library.ts';
import { Reader } from './presentation.ts';

/** Group id and epoch that a PrivateMessage names. Throws MlsError MALFORMED. */
export function inspectMessage(bytes: Uint8Array): {
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
} {
  const reader = new Reader(bytes);
  const version = reader.uint(2);
  const wireformat = reader.uint(2);
  if (version !== 1 || wireformat !== wireformats.mls_private_message) {
    throw new MlsError('MALFORMED', 'message: not a PrivateMessage of MLS 1.0');
  }
  return { groupId: reader.vector(255), epoch: reader.uint64() };
}
