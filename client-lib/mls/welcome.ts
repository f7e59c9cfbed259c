/** Joining a group by its Welcome (RFC 9420 section 12.4.3.1). */
import { authenticated } from './authentication.ts';
import { revokedLeaf, wasDevice } from './revoked.ts';
import type { MlsSuite } from '../crypto/provider.ts';
import { isMlsSuite } from '../crypto/provider.ts';
import { decodeExactly, mlsContext } from './context.ts';
import type { MlsParts } from './context.ts';
import { MlsError } from './errors.ts';
import { MlsGroup, memberAt } from './group.ts';
import type { Member } from './group.ts';
import { decodePrivateKeyPackage } from './key-package.ts';
import type { SignatureKey } from './key-package.ts';
import {
  joinGroupWithExtensions,
  mlsMessageDecoder,
  mlsMessageEncoder,
  wireformats,
} from './library.ts';
import { lastResortExtensionType, sameBytes } from './suite.ts';
import type { Welcome } from 'ts-mls';

/** A KeyPackage's stored row. */
export interface KeyPackageRow {
  readonly ref: Uint8Array;
  readonly privateBytes: Uint8Array;
}

/** A group joined. */
export interface Joined {
  readonly group: MlsGroup;
  /** The row that was used: delete it in the transaction that stores the group, unless it is a last resort. */
  readonly ref: Uint8Array;
  readonly isLastResort: boolean;
  /** Who added this device. */
  readonly inviter: Member;
}

/** For which KeyPackages a Welcome is. Throws MlsError MALFORMED. */
export function inspectWelcome(bytes: Uint8Array): {
  readonly suite: MlsSuite;
  readonly refs: readonly Uint8Array[];
} {
  const { cipherSuite, secrets } = decodeWelcome(bytes);
  if (!isMlsSuite(cipherSuite)) throw new MlsError('MALFORMED', 'welcome: not one of our suites');
  return { suite: cipherSuite, refs: secrets.map(({ newMember }) => newMember) };
}

/**
 * Joins the group of a Welcome with the row that it was made for. All leaves' credentials are
 * checked, the own one included; revoked ones that are not taken out yet keep nobody out, except for the
 * inviter's, who must also be allowed to commit in this group.
 * Throws MlsError MALFORMED, NO_KEY_PACKAGE, INVALID_WELCOME, NOT_ALLOWED or CredentialError.
 */
export async function joinFromWelcome(
  parts: MlsParts,
  bytes: Uint8Array,
  rows: readonly KeyPackageRow[],
  signatureKey: SignatureKey,
): Promise<Joined> {
  const { suite, refs } = inspectWelcome(bytes);
  const row = rows.find(({ ref }) => refs.some((other) => sameBytes(ref, other)));
  if (row === undefined) throw new MlsError('NO_KEY_PACKAGE', 'welcome: for none of these rows');
  const { keyPackage, initPrivateKey, hpkePrivateKey } = decodePrivateKeyPackage(row.privateBytes);
  if (!sameBytes(keyPackage.leafNode.signaturePublicKey, signatureKey.publicKey)) {
    throw new MlsError('BAD_STATE', 'key package row: of another signature key');
  }
  const { state, signerLeafIndex } = await authenticated(
    parts.manifests,
    async (service) => {
      const context = await mlsContext(parts, suite, service);
      try {
        return await joinGroupWithExtensions({
          context,
          welcome: decodeWelcome(bytes),
          keyPackage,
          privateKeys: { initPrivateKey, hpkePrivateKey, signaturePrivateKey: signatureKey.seed },
        });
      } catch (cause) {
        throw new MlsError('INVALID_WELCOME', 'welcome: does not lead into a group', { cause });
      }
    },
    // A leaf that was revoked stands until somebody takes it out, for the others as well.
    (credential, key) => wasDevice(parts, credential, key),
  );
  initPrivateKey.fill(0);
  const group = new MlsGroup(state);
  const inviter = memberAt(state.ratchetTree, signerLeafIndex);
  const own = memberAt(state.ratchetTree, group.ownLeafIndex);
  const effects = { added: own === undefined ? [] : [own], removed: [], context: undefined };
  if (inviter === undefined || !parts.mayCommit(group, inviter, effects)) {
    throw new MlsError('NOT_ALLOWED', 'welcome: from a member who may not add any');
  }
  // Whoever gave its key up invites nobody.
  const refused = revokedLeaf(parts, state, inviter);
  if (refused !== undefined) throw refused;
  const isLastResort = keyPackage.extensions.some(
    ({ extensionType }) => extensionType === lastResortExtensionType,
  );
  return { group, ref: row.ref, isLastResort, inviter };
}

function decodeWelcome(bytes: Uint8Array): Welcome {
  const message = decodeExactly(mlsMessageDecoder, mlsMessageEncoder, bytes, 'welcome');
  if (message.wireformat !== wireformats.mls_welcome) {
    throw new MlsError('MALFORMED', 'welcome: another kind of message');
  }
  return message.welcome;
}
