/**
 * The identity in our basic credentials (RFC 9420 section 5.3): UTF-8 of
 * `alice@red.example/<device id>`. It differs per device and is compared as bytes.
 */
import { hasReason, parseUserId } from '@quicprochat/proto';
import { MlsError } from './errors.ts';

const deviceIdPattern = /^[a-z2-7]{16}$/;
const identityBytesMax = 64 + 1 + 253 + 1 + 16;

/** A device of a user. */
export interface Identity {
  readonly userId: string;
  /** First 10 bytes of SHA-256(identity key) in lower-case base32: 16 characters. */
  readonly deviceId: string;
}

/** The identity bytes of a credential. Throws when either part is malformed. */
export function credentialIdentity(userId: string, deviceId: string): Uint8Array {
  parseUserId(userId);
  if (!deviceIdPattern.test(deviceId)) {
    throw new MlsError('MALFORMED', 'device id: need 16 characters of lower-case base32');
  }
  return new TextEncoder().encode(`${userId}/${deviceId}`);
}

/** The parts of identity bytes. Throws MlsError MALFORMED on everything not made as above. */
export function parseCredentialIdentity(bytes: Uint8Array): Identity {
  const malformed = (): MlsError => new MlsError('MALFORMED', 'identity: need name@domain/device');
  if (bytes.length > identityBytesMax || bytes.some((byte) => byte >= 0x80)) throw malformed();
  const [userId = '', deviceId = '', ...more] = new TextDecoder().decode(bytes).split('/');
  if (more.length > 0 || !deviceIdPattern.test(deviceId)) throw malformed();
  try {
    parseUserId(userId);
  } catch (error) {
    if (hasReason(error, 'BAD_FIELD')) throw malformed();
    throw error;
  }
  return { userId, deviceId };
}
