/**
 * Coming back by an external commit (RFC 9420 section 12.4.3.2): a device that lost its place in a group
 * takes a new leaf for its old one, by a GroupInfo that some member signed. Only as itself: whoever has no
 * leaf, or takes another's, is refused by all members alike.
 */
import type { LeafNode, MlsPublicMessage } from 'ts-mls';
import { isMlsSuite } from '../crypto/provider.ts';
import { authenticated } from './authentication.ts';
import { encodeMessage, requireActive } from './commit.ts';
import { cipherSuite, decodeExactly, mlsContext } from './context.ts';
import type { MlsParts } from './context.ts';
import { MlsError } from './errors.ts';
import { MlsGroup, leafAt, memberAt, stateOf } from './group.ts';
import type { Member } from './group.ts';
import type { Identity } from './identity.ts';
import { generate, lifetimeFromNow } from './key-package.ts';
import type { SignatureKey } from './key-package.ts';
import {
  contentTypes,
  createGroupInfoWithExternalPubAndRatchetTree,
  defaultProposalTypes,
  encode,
  isDefaultProposal,
  joinGroupExternal,
  mlsMessageDecoder,
  mlsMessageEncoder,
  proposalOrRefTypes,
  protocolVersions,
  senderTypes,
  wireformats,
} from './library.ts';
import { isKnownLeaf, isSuccessor, runLibrary } from './message.ts';
import type { Processed } from './message.ts';
import { keepPast } from './past-epochs.ts';
import { revokedLeaf, wasDevice } from './revoked.ts';
import { sameBytes } from './suite.ts';
import { wipeEpoch } from './wipe.ts';
import type { Wipe } from './wipe.ts';

/** MLSMessage with a GroupInfo of the group's epoch, its tree and external_pub in it. Throws MlsError REMOVED. */
export async function groupInfoOf(parts: MlsParts, group: MlsGroup): Promise<Uint8Array> {
  requireActive(group);
  const cs = await cipherSuite(parts, group.suite);
  const groupInfo = await createGroupInfoWithExternalPubAndRatchetTree(stateOf(group), [], cs);
  return encode(mlsMessageEncoder, {
    version: protocolVersions.mls10,
    wireformat: wireformats.mls_group_info,
    groupInfo,
  });
}

/** The way back into a group, made and not taken yet. */
export interface Return {
  /** MLSMessage with a PublicMessage: not sealed for anybody. */
  readonly commit: Uint8Array;
  /** The group after it. Give it to {@link acceptReturn} once it has won its epoch. */
  readonly pending: MlsGroup;
  /** Who signed the GroupInfo. */
  readonly signer: Member;
}

/**
 * An external commit on the epoch of a GroupInfo, in place of this device's leaf. `lost` is what the device
 * has of the group; the same suite, and not of a later epoch. Whether the members would agree that the group became
 * that, continuity.ts judges. Throws MlsError MALFORMED, WRONG_GROUP, STALE_COMMIT (an epoch that was left),
 * INVALID_GROUP_INFO (tree, signature, context), REMOVED (no leaf of this device is in it), or CredentialError.
 */
export async function comeBack(
  parts: MlsParts,
  bytes: Uint8Array,
  lost: MlsGroup,
  own: { readonly identity: Identity; readonly signatureKey: SignatureKey },
): Promise<Return> {
  const message = decodeExactly(mlsMessageDecoder, mlsMessageEncoder, bytes, 'group info');
  if (message.wireformat !== wireformats.mls_group_info) {
    throw new MlsError('MALFORMED', 'group info: another kind of message');
  }
  const { groupInfo } = message;
  const { groupId, epoch, cipherSuite: suite } = groupInfo.groupContext;
  if (!sameBytes(groupId, lost.groupId) || suite !== lost.suite || !isMlsSuite(suite)) {
    throw new MlsError('WRONG_GROUP', 'group info: of another group');
  }
  if (epoch < lost.epoch) {
    throw new MlsError('STALE_COMMIT', `group info: of epoch ${epoch}, group at ${lost.epoch}`);
  }
  const made = await generate(parts, { suite, ...own }, lifetimeFromNow(parts.clock.now()));
  const { publicMessage, newState } = await authenticated(
    parts.manifests,
    async (service) => {
      const context = await mlsContext(parts, suite, service);
      try {
        return await joinGroupExternal({
          context,
          groupInfo,
          keyPackage: made.publicPackage,
          privateKeys: made.privatePackage,
          resync: true,
        });
      } catch (cause) {
        const isOut = cause instanceof Error && cause.message.startsWith('Cannot resync');
        throw new MlsError(
          isOut ? 'REMOVED' : 'INVALID_GROUP_INFO',
          'group info: does not lead back into the group',
          { cause },
        );
      }
    },
    (credential, key) =>
      isKnownLeaf(lost.members(), credential, key) || wasDevice(parts, credential, key),
  );
  const pending = new MlsGroup(newState);
  const { ratchetTree } = newState;
  // Its own leaf may have signed, and is another one now.
  const signer =
    memberAt(ratchetTree, groupInfo.signer) ?? memberAt(ratchetTree, pending.ownLeafIndex);
  if (signer === undefined) throw new MlsError('INVALID_GROUP_INFO', 'group info: signer');
  // Who gave its key up vouches for nothing, though its leaf may still stand.
  const refused = revokedLeaf(parts, newState, signer);
  if (refused !== undefined) throw refused;
  return {
    commit: encodeMessage({
      version: protocolVersions.mls10,
      wireformat: wireformats.mls_public_message,
      publicMessage,
    }),
    pending,
    signer,
  };
}

/**
 * The group after an own external commit was accepted, with what the lost state can still open of past epochs.
 * Throws MlsError BAD_STATE unless it is of the same group and later.
 */
export function acceptReturn(
  lost: MlsGroup,
  pending: MlsGroup,
): { readonly next: MlsGroup; readonly wipe: Wipe } {
  if (!sameBytes(lost.groupId, pending.groupId) || pending.epoch <= lost.epoch) {
    throw new MlsError('BAD_STATE', 'pending return: not of this group, or not later');
  }
  return keepPast(lost, pending);
}

/**
 * Applies the external commit of a device that comes back. Throws MlsError MALFORMED, WRONG_GROUP, REMOVED,
 * STALE_COMMIT or EPOCH_AHEAD, NOT_ALLOWED for whoever is not in the group, for one who takes another leaf, and
 * for any other proposal; OWN_MESSAGE when it takes this device's own leaf, INVALID_COMMIT, CredentialError.
 */
export async function processReturn(
  parts: MlsParts,
  group: MlsGroup,
  bytes: Uint8Array,
): Promise<Extract<Processed, { kind: 'commit' }>> {
  const message = decodeExactly(mlsMessageDecoder, mlsMessageEncoder, bytes, 'message');
  if (message.wireformat !== wireformats.mls_public_message) {
    throw new MlsError('MALFORMED', 'message: not a PublicMessage');
  }
  requireActive(group);
  const { groupId, epoch, authenticatedData } = message.publicMessage.content;
  if (!sameBytes(groupId, group.groupId)) {
    throw new MlsError('WRONG_GROUP', 'message: for another group');
  }
  if (epoch !== group.epoch) {
    throw new MlsError(
      epoch < group.epoch ? 'STALE_COMMIT' : 'EPOCH_AHEAD',
      `commit: of epoch ${epoch}, group at ${group.epoch}`,
    );
  }
  const state = stateOf(group);
  const { removed, leaf } = claimOf(message);
  const member = memberAt(state.ratchetTree, removed);
  const before = leafAt(state.ratchetTree, removed);
  // Only who is in, with the same name and key, and for no other leaf than its own.
  if (member === undefined || !isSuccessor(before, leaf)) {
    throw new MlsError('NOT_ALLOWED', 'commit: only a member comes back, in place of its own leaf');
  }
  if (!parts.mayCommit(group, member, { added: [], removed: [], context: undefined })) {
    throw new MlsError('NOT_ALLOWED', 'commit: not allowed by the rules of the group');
  }
  if (removed === group.ownLeafIndex) {
    throw new MlsError('OWN_MESSAGE', 'commit: takes the place of this device');
  }
  const result = await runLibrary(
    parts,
    group,
    message,
    (incoming) =>
      incoming.kind === 'commit' && incoming.senderLeafIndex === undefined ? 'accept' : 'reject',
    'INVALID_COMMIT',
  );
  if (result.kind !== 'newState') throw new MlsError('INVALID_COMMIT', 'commit: another content');
  const next = new MlsGroup(result.newState);
  const now = next.members().find(({ identityPub }) => sameBytes(identityPub, member.identityPub));
  if (now === undefined) throw new MlsError('INVALID_COMMIT', 'commit: leads to another leaf');
  return {
    kind: 'commit',
    sender: { ...now, isMember: true },
    authenticatedData,
    epoch,
    added: [],
    removed: [],
    isSelfRemoved: false,
    next,
    wipe: wipeEpoch(state, result.newState, result.consumed),
  };
}

/** Which leaf goes, and which comes. Throws MlsError NOT_ALLOWED for every other kind of commit. */
function claimOf({ publicMessage: { content } }: MlsPublicMessage): {
  readonly removed: number;
  readonly leaf: LeafNode;
} {
  const refuse = (): MlsError =>
    new MlsError('NOT_ALLOWED', 'commit: not that of a device that comes back');
  if (content.contentType !== contentTypes.commit) throw refuse();
  if (content.sender.senderType !== senderTypes.new_member_commit) throw refuse();
  const { path, proposals } = content.commit;
  if (path === undefined || proposals.length !== 2) throw refuse();
  let removed: number | undefined;
  let isExternal = false;
  for (const one of proposals) {
    if (one.proposalOrRefType !== proposalOrRefTypes.proposal) throw refuse();
    const { proposal } = one;
    if (!isDefaultProposal(proposal)) throw refuse();
    if (proposal.proposalType === defaultProposalTypes.remove) removed = proposal.remove.removed;
    isExternal ||= proposal.proposalType === defaultProposalTypes.external_init;
  }
  if (removed === undefined || !isExternal) throw refuse();
  return { removed, leaf: path.leafNode };
}
