/**
 * Creating groups and commits (RFC 9420 sections 11 and 12.4).
 *
 * A commit is pending until it is accepted: the group it was made from goes on as it is, the
 * next one is kept beside it. Exactly one commit may be made per epoch, and it is re-sent as
 * the same bytes: a second one would seal with the same handshake key and nonce again.
 */
import { parseUserId } from '@quicprochat/proto';
import type { ClientState, MlsFramedMessage, MlsWelcomeMessage, Proposal } from 'ts-mls';
import type { MlsSuite } from '../crypto/provider.ts';
import { authenticated } from './authentication.ts';
import { mlsContext } from './context.ts';
import type { MlsParts } from './context.ts';
import { CredentialError, MlsError } from './errors.ts';
import { groupContextExtensions, groupLimits } from './group-extensions.ts';
import type { GroupContextInfo, QpcGroupInfo } from './group-extensions.ts';
import { MlsGroup, leafAt, memberAt, stateOf } from './group.ts';
import type { Member } from './group.ts';
import type { Identity } from './identity.ts';
import { checkedKeyPackage, generate, lifetimeFromNow } from './key-package.ts';
import type { SignatureKey } from './key-package.ts';
import {
  createCommit,
  createGroup as createLibraryGroup,
  defaultProposalTypes,
  encode,
  mlsMessageEncoder,
} from './library.ts';
import { ruleBroken } from './policy.ts';
import type { CommitEffects } from './policy.ts';
import { isSuccession, notRevoked } from './succession.ts';
import { epochsHeld, limits, sameBytes, sameClient } from './suite.ts';
import { wipeEpoch } from './wipe.ts';
import type { Wipe } from './wipe.ts';

/**
 * A new group with one member, its owner, at epoch 0. The group id is the conversation id: 32 random
 * bytes. `hubs` are the domains that will order its commits; unless given, the creator's own. Nobody
 * else is told; the caller stores it, then adds members. Throws MlsError MALFORMED.
 */
export async function createGroup(
  parts: MlsParts,
  request: {
    readonly suite: MlsSuite;
    readonly identity: Identity;
    readonly signatureKey: SignatureKey;
    readonly name: string;
    readonly hubs?: readonly string[];
    /** More than these need a channel; 32 unless given. */
    readonly directDevices?: number;
  },
): Promise<MlsGroup> {
  const conversationId = parts.random.bytes(groupLimits.conversationIdBytes);
  const { userId, domain } = parseUserId(request.identity.userId);
  const info: QpcGroupInfo = {
    conversationId,
    name: request.name,
    roles: [{ userId, role: 'owner' }],
    expirySeconds: 0,
    joinKeyHash: undefined,
    policyVersion: 1,
    directDevices: request.directDevices ?? groupLimits.directDevices,
    channelNonce: undefined,
  };
  const extensions = groupContextExtensions({ info, hubs: request.hubs ?? [domain] });
  const own = await generate(parts, request, lifetimeFromNow(parts.clock.now()));
  const state = await authenticated(parts.manifests, async (service) =>
    createLibraryGroup({
      context: await mlsContext(parts, request.suite, service),
      groupId: conversationId,
      keyPackage: own.publicPackage,
      privateKeyPackage: own.privatePackage,
      extensions,
    }),
  );
  return new MlsGroup(state);
}

/** What a commit changes. Empty = a rekey: fresh keys for the committer and the group. */
export interface Change {
  /** KeyPackages to add, at most 64. */
  readonly add?: readonly Uint8Array[];
  /** Leaf indexes to remove, not the committer's own. */
  readonly remove?: readonly number[];
  /** What our context extensions become; they stay unless given. Not together with Adds. */
  readonly context?: Partial<GroupContextInfo>;
  /** Travels readable to every member, authenticated; empty unless given. */
  readonly authenticatedData?: Uint8Array;
}

/** A commit that waits to be accepted. */
export interface PendingCommit {
  /** MLSMessage with a PrivateMessage, for the members of the current epoch. */
  readonly commit: Uint8Array;
  /** MLSMessage with the Welcome for all added clients; undefined when there are none. */
  readonly welcome: Uint8Array | undefined;
  /** The group after the commit. Give it to {@link acceptCommit} once it has won its epoch. */
  readonly pending: MlsGroup;
  readonly added: readonly Member[];
  readonly removed: readonly Member[];
}

/**
 * Makes a commit. `group` is unchanged and stays in use until the commit is accepted.
 * Throws MlsError REMOVED, NOT_ALLOWED (the rules of policy.ts), TOO_MANY_ADDS, UNKNOWN_MEMBER, ALREADY_MEMBER,
 * MALFORMED, BAD_KEY_PACKAGE, INVALID_COMMIT, or CredentialError.
 */
export async function commit(
  parts: MlsParts,
  group: MlsGroup,
  change: Change,
): Promise<PendingCommit> {
  const state = stateOf(group);
  requireActive(group);
  const removed = (change.remove ?? []).map((leafIndex) => removable(group, state, leafIndex));
  const { adds, added } = await additions(parts, group, change.add ?? [], new Set(change.remove));
  const context = change.context && { info: group.info, hubs: group.hubs, ...change.context };
  requireAllowed(parts, group, { added, removed, context });
  const unproven = isSuccession(group, { added, removed, context })
    ? notRevoked(parts.manifests, removed)
    : [];
  if (unproven.length > 0) throw new CredentialError(unproven);
  const proposals: Proposal[] = [
    ...removed.map(({ leafIndex }) => ({
      proposalType: defaultProposalTypes.remove,
      remove: { removed: leafIndex },
    })),
    ...adds,
    ...(context === undefined ? [] : [contextProposal(context)]),
  ];
  const result = await authenticated(parts.manifests, async (service) => {
    const context = await mlsContext(parts, group.suite, service);
    try {
      return await createCommit({
        context,
        state,
        extraProposals: proposals,
        ratchetTreeExtension: true,
        authenticatedData: change.authenticatedData ?? new Uint8Array(0),
      });
    } catch (cause) {
      throw new MlsError('INVALID_COMMIT', 'commit: cannot be made', { cause });
    }
  });
  const pending = new MlsGroup(result.newState);
  return {
    commit: encodeMessage(result.commit),
    welcome: result.welcome === undefined ? undefined : encodeMessage(result.welcome),
    pending,
    added: addedMembers(result.newState, adds),
    removed,
  };
}

/**
 * The group after an own commit was accepted. `current` is the group of the parent epoch as it
 * is now: keys that were consumed while the commit was under way stay consumed. Both may come
 * from the store. Throws MlsError BAD_STATE when they are not parent and child.
 */
export function acceptCommit(
  current: MlsGroup,
  pending: MlsGroup,
): { readonly next: MlsGroup; readonly wipe: Wipe } {
  const old = stateOf(current);
  const accepted = stateOf(pending);
  if (!sameBytes(current.groupId, pending.groupId) || pending.epoch !== current.epoch + 1n) {
    throw new MlsError('BAD_STATE', 'pending commit: not of this group and epoch');
  }
  // One that comes from the store has its parent's epoch alone; older ones are as they are now.
  const history = new Map(old.historicalReceiverData);
  const parent = accepted.historicalReceiverData.get(current.epoch);
  if (parent !== undefined) history.set(current.epoch, { ...parent, secretTree: old.secretTree });
  for (const epoch of [...history.keys()].sort((a, b) => (a < b ? -1 : 1))) {
    if (history.size <= epochsHeld(current.leaves)) break;
    history.delete(epoch);
  }
  const next: ClientState = { ...accepted, historicalReceiverData: history };
  return { next: new MlsGroup(next), wipe: wipeEpoch(old, next, []) };
}

/** An MLSMessage's bytes. */
export function encodeMessage(message: MlsFramedMessage | MlsWelcomeMessage): Uint8Array {
  return encode(mlsMessageEncoder, message);
}

/** Throws MlsError REMOVED unless the group can still be sent to. */
export function requireActive(group: MlsGroup): void {
  if (!group.isActive) throw new MlsError('REMOVED', 'group: this device has been removed');
}

function requireAllowed(parts: MlsParts, group: MlsGroup, effects: CommitEffects): void {
  const own = memberAt(stateOf(group).ratchetTree, group.ownLeafIndex);
  if (own === undefined || !parts.mayCommit(group, own, effects)) {
    const broken = own === undefined ? undefined : ruleBroken(group, own.userId, effects);
    throw new MlsError(
      'NOT_ALLOWED',
      `commit: ${broken ?? 'this device may not change this group'}`,
    );
  }
}

function contextProposal(context: GroupContextInfo): Proposal {
  return {
    proposalType: defaultProposalTypes.group_context_extensions,
    groupContextExtensions: { extensions: groupContextExtensions(context) },
  };
}

function removable(group: MlsGroup, state: ClientState, leafIndex: number): Member {
  const member = Number.isInteger(leafIndex) ? memberAt(state.ratchetTree, leafIndex) : undefined;
  if (member === undefined) throw new MlsError('UNKNOWN_MEMBER', 'remove: no member at that leaf');
  if (leafIndex === group.ownLeafIndex) {
    throw new MlsError('NOT_ALLOWED', 'remove: a committer cannot remove its own leaf');
  }
  return member;
}

type AddProposal = Extract<Proposal, { add: unknown }>;

export function isAdd(proposal: Proposal): proposal is AddProposal {
  return 'add' in proposal;
}

async function additions(
  parts: MlsParts,
  group: MlsGroup,
  keyPackages: readonly Uint8Array[],
  removed: ReadonlySet<number>,
): Promise<{ readonly adds: AddProposal[]; readonly added: Identity[] }> {
  if (keyPackages.length > limits.addsPerCommitMax) {
    throw new MlsError(
      'TOO_MANY_ADDS',
      `commit: ${keyPackages.length} key packages, at most ${limits.addsPerCommitMax}`,
    );
  }
  const { ratchetTree } = stateOf(group);
  const staying = membersStaying(group, removed);
  const adds: AddProposal[] = [];
  const added: Identity[] = [];
  for (const bytes of keyPackages) {
    const { info, keyPackage } = await checkedKeyPackage(parts, bytes);
    if (info.suite !== group.suite) {
      throw new MlsError('BAD_KEY_PACKAGE', `key package: suite ${info.suite}, not the group's`);
    }
    const here = staying.some((leafIndex) => {
      const leaf = leafAt(ratchetTree, leafIndex);
      return leaf !== undefined && sameClient(leaf, keyPackage.leafNode);
    });
    const twice = adds.some(({ add }) => sameClient(add.keyPackage.leafNode, keyPackage.leafNode));
    if (here || twice) throw new MlsError('ALREADY_MEMBER', 'add: the client is in the group');
    adds.push({ proposalType: defaultProposalTypes.add, add: { keyPackage } });
    added.push({ userId: info.userId, deviceId: info.deviceId });
  }
  return { adds, added };
}

function membersStaying(group: MlsGroup, removed: ReadonlySet<number>): number[] {
  return group
    .members()
    .map(({ leafIndex }) => leafIndex)
    .filter((leafIndex) => !removed.has(leafIndex));
}

/** Where added clients ended up in the new tree, in the order of their Adds. */
export function addedMembers(state: ClientState, adds: readonly AddProposal[]): Member[] {
  const width = (state.ratchetTree.length + 1) / 2;
  const byKey = new Map<string, Member>();
  for (let leafIndex = 0; leafIndex < width; leafIndex++) {
    const member = memberAt(state.ratchetTree, leafIndex);
    if (member !== undefined) byKey.set(keyName(member.identityPub), member);
  }
  return adds.flatMap(({ add }) => {
    const member = byKey.get(keyName(add.keyPackage.leafNode.signaturePublicKey));
    return member === undefined ? [] : [member];
  });
}

function keyName(key: Uint8Array): string {
  return Buffer.from(key).toString('base64');
}
