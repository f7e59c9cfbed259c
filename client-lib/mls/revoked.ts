/**
 * Leaves of devices that gave their keys up, and that nobody took out yet: members go on with them, whenever
 * they hear of it, and take them out; but nobody new comes in by their word.
 */
import { deviceIdOf } from '@quicprochat/proto';
import type { ClientState, Credential } from 'ts-mls';
import { checkCredential, identityOf } from './authentication.ts';
import type { MlsParts } from './context.ts';
import { CredentialError } from './errors.ts';
import { leafAt } from './group.ts';
import type { Member } from './group.ts';
import { sameBytes } from './suite.ts';

/** A device that was revoked after others took it in: whoever comes later takes it in too, and out again. */
export function wasDevice(
  { manifests }: Pick<MlsParts, 'manifests'>,
  credential: Credential,
  key: Uint8Array,
): boolean {
  const identity = identityOf(credential);
  if (identity === undefined || deviceIdOf(key) !== identity.deviceId) return false;
  const { revoked = [] } = manifests(identity.userId) ?? {};
  return revoked.some((one) => sameBytes(one, key));
}

/** Why the word of a member counts for nothing here; undefined: it does. */
export function revokedLeaf(
  { manifests }: Pick<MlsParts, 'manifests'>,
  { ratchetTree }: ClientState,
  { leafIndex, identityPub }: Member,
): CredentialError | undefined {
  const leaf = leafAt(ratchetTree, leafIndex);
  const failure = leaf && checkCredential(manifests, leaf.credential, identityPub);
  return failure?.reason === 'revoked' ? new CredentialError([failure]) : undefined;
}
