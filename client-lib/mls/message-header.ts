/**
 * The group of an MLS message before anybody can open it: the public header of a PrivateMessage
 * (RFC 9420 sections 6 and 6.3). Nothing in it is authenticated.
 */
import { MlsError } from './errors.ts';
import { wireformats } from './library.ts';
import { Reader } from './presentation.ts';
import { limits } from './suite.ts';

/** Group id, epoch and authenticated data of a PrivateMessage. Throws MlsError MALFORMED. */
export function inspectMessage(bytes: Uint8Array): {
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  readonly authenticatedData: Uint8Array;
} {
  const reader = new Reader(bytes);
  const version = reader.uint(2);
  const wireformat = reader.uint(2);
  if (version !== 1 || wireformat !== wireformats.mls_private_message) {
    throw new MlsError('MALFORMED', 'message: not a PrivateMessage of MLS 1.0');
  }
  const [groupId, epoch] = [reader.vector(255), reader.uint64()];
  reader.uint(1); // the content's type
  return { groupId, epoch, authenticatedData: reader.vector(limits.messageBytesMax) };
}
