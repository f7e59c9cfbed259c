/**
 * The authentication service of MLS (RFC 9420 section 5.3.1): does a verified device manifest
 * vouch for this credential and signature key? Answers come from a cache that the caller
 * fills; nothing here asks the network.
 */
import type { AuthenticationService, Credential } from 'ts-mls';
import { CredentialError, MlsError } from './errors.ts';
import type { CredentialFailure } from './errors.ts';
import { parseCredentialIdentity } from './identity.ts';
import type { Identity } from './identity.ts';
import { defaultCredentialTypes, isDefaultCredential } from './library.ts';

/** What a verified device manifest says about one user. */
export interface ManifestInfo {
  readonly devices: readonly { readonly deviceId: string; readonly identityPub: Uint8Array }[];
  /** Keys that are revoked by now. */
  readonly revoked: readonly Uint8Array[];
}

/** A synchronous look into the cache of verified manifests; undefined = not there (yet). */
export type ManifestLookup = (userId: string) => ManifestInfo | undefined;

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** The identity in a credential; undefined unless it is a well-formed basic one of ours. */
export function identityOf(credential: Credential): Identity | undefined {
  if (!isDefaultCredential(credential)) return undefined;
  if (credential.credentialType !== defaultCredentialTypes.basic) return undefined;
  try {
    return parseCredentialIdentity(credential.identity);
  } catch {
    return undefined; // the only error is MALFORMED, which the callers report themselves
  }
}

/** Why `lookup` does not vouch for the credential, or undefined when it does. */
export function checkCredential(
  lookup: ManifestLookup,
  credential: Credential,
  signatureKey: Uint8Array,
): CredentialFailure | undefined {
  const identity = identityOf(credential);
  if (identity === undefined) return { reason: 'malformed', userId: '', deviceId: '' };
  const manifest = lookup(identity.userId);
  if (manifest === undefined) return { reason: 'unknown_user', ...identity };
  if (manifest.revoked.some((key) => equal(key, signatureKey))) {
    return { reason: 'revoked', ...identity };
  }
  const device = manifest.devices.find(({ deviceId }) => deviceId === identity.deviceId);
  if (device === undefined) return { reason: 'unknown_device', ...identity };
  if (!equal(device.identityPub, signatureKey)) return { reason: 'wrong_key', ...identity };
  return undefined;
}

/**
 * Runs `operation` with an authentication service over `lookup` and returns its result.
 * Throws CredentialError when a credential was refused.
 *
 * No refused credential stops the operation: it goes on so that the error names all missing users at
 * once, and its result is dropped here, in this one place. MlsError NOT_ALLOWED comes before that: what
 * the rules forbid is invalid whoever it is about, and no log has to answer first. What `vouched` knows is
 * not looked up at all.
 */
export async function authenticated<T>(
  lookup: ManifestLookup,
  operation: (service: AuthenticationService) => Promise<T>,
  vouched: (credential: Credential, signatureKey: Uint8Array) => boolean = () => false,
): Promise<T> {
  const missing = new Map<string, CredentialFailure>();
  let refused: CredentialFailure | undefined;
  const service: AuthenticationService = {
    validateCredential: async (credential, signatureKey) => {
      if (vouched(credential, signatureKey)) return true;
      const failure = checkCredential(lookup, credential, signatureKey);
      if (failure?.reason === 'unknown_user') {
        missing.set(`${failure.userId}/${failure.deviceId}`, failure);
      } else {
        refused ??= failure;
      }
      return true;
    },
  };
  let result: T;
  try {
    result = await operation(service);
  } catch (error) {
    const isRule = error instanceof MlsError && error.reason === 'NOT_ALLOWED';
    if (refused !== undefined && !isRule) throw new CredentialError([refused]);
    throw error;
  }
  if (refused !== undefined) throw new CredentialError([refused]);
  if (missing.size > 0) throw new CredentialError([...missing.values()]);
  return result;
}
