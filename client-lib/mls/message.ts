/**
 * Application messages out, everything in (RFC 9420 sections 6.3, 12.4.2, 15). What the library
 * reports only as an untyped error (wrong group or epoch, repetition, own message) is told apart
 * before it is called.
 */
import type {
  AuthenticationService,
  ClientState,
  Credential,
  IncomingMessageCallback,
  LeafNode,
  MlsFramedMessage,
  PrivateMessage,
  Proposal,
  ProcessMessageResult,
  RatchetTree,
} from 'ts-mls';
import { authenticated, identityOf } from './authentication.ts';
import { addedMembers, encodeMessage, isAdd, requireActive } from './commit.ts';
import { CommitWatch } from './commit-doubt.ts';
import { cipherSuite, decodeExactly, mlsContext } from './context.ts';
import type { MlsParts } from './context.ts';
import { CredentialError, MlsError } from './errors.ts';
import type { CredentialFailure } from './errors.ts';
import { MlsGroup, leafAt, memberAt, stateOf } from './group.ts';
import type { Member } from './group.ts';
import {
  contentTypes,
  createApplicationMessage,
  mlsMessageDecoder,
  mlsMessageEncoder,
  nodeTypes,
  processMessage,
  protocolVersions,
  wireformats,
} from './library.ts';
import { effectsOf } from './policy.ts';
import type { CommitEffects } from './policy.ts';
import { wasDevice } from './revoked.ts';
import { checkGeneration, nextGeneration, openSenderData } from './sender-data.ts';
import type { SenderData } from './sender-data.ts';
import { sameBytes } from './suite.ts';
import { isSuccession, notRevoked } from './succession.ts';
import { wipeConsumed, wipeEpoch } from './wipe.ts';
import type { Wipe } from './wipe.ts';

const lengthPrefixMax = 4;
const signatureVectorLength = 66; // 64 bytes and a two-byte length

/** A sealed application message and the group after it. */
export interface Encrypted {
  /** MLSMessage with a PrivateMessage. */
  readonly ciphertext: Uint8Array;
  /** Store its hot part in the transaction that stores the ciphertext, before sending. */
  readonly next: MlsGroup;
  readonly epoch: bigint;
  readonly generation: number;
  readonly wipe: Wipe;
}

/** Whoever sent a message, in the tree of the message's epoch. */
export interface Sender extends Member {
  /** False when the device has left the group since. */
  readonly isMember: boolean;
}

/** What came of an incoming message. `next` is to be stored before anything is shown. */
export type Processed =
  | {
      readonly kind: 'application';
      readonly sender: Sender;
      readonly plaintext: Uint8Array;
      readonly authenticatedData: Uint8Array;
      readonly epoch: bigint;
      readonly generation: number;
      /** Hot part changed when `epoch` is the group's; else the past part of `epoch`. */
      readonly next: MlsGroup;
      readonly wipe: Wipe;
    }
  | {
      readonly kind: 'commit';
      readonly sender: Sender;
      readonly authenticatedData: Uint8Array;
      /** The epoch that the commit was made in; `next` is one further, unless we were removed. */
      readonly epoch: bigint;
      readonly added: readonly Member[];
      readonly removed: readonly Member[];
      /** True when this device was removed: `next` stays in the old epoch and is not active. */
      readonly isSelfRemoved: boolean;
      readonly next: MlsGroup;
      readonly wipe: Wipe;
    };

/**
 * Seals one application message, padded. `authenticatedData` travels readable to whoever has the
 * MLS bytes. Throws MlsError REMOVED.
 */
export async function encrypt(
  parts: MlsParts,
  group: MlsGroup,
  plaintext: Uint8Array,
  authenticatedData: Uint8Array,
): Promise<Encrypted> {
  requireActive(group);
  const state = stateOf(group);
  const contentLength = vectorLength(plaintext.length) + signatureVectorLength;
  const result = await authenticated(parts.manifests, async (service) =>
    createApplicationMessage({
      context: await mlsContext(parts, group.suite, service, { contentLength }),
      state,
      message: plaintext,
      authenticatedData,
    }),
  );
  return {
    ciphertext: encodeMessage(result.message),
    next: new MlsGroup(result.newState),
    epoch: group.epoch,
    generation: nextGeneration(state.secretTree, group.ownLeafIndex, contentTypes.application),
    wipe: wipeConsumed(result.consumed),
  };
}

function vectorLength(length: number): number {
  return length + (length < 64 ? 1 : length < 16_384 ? 2 : lengthPrefixMax);
}

/**
 * Opens an application message or applies a commit. The group given is never changed; on any
 * error there is no next one and the message may be tried again.
 * Throws MlsError (its reasons say what to do) or CredentialError.
 */
export async function process(
  parts: MlsParts,
  group: MlsGroup,
  bytes: Uint8Array,
): Promise<Processed> {
  const message = decodePrivateMessage(bytes);
  const state = stateOf(group);
  const source = epochSource(group, state, message);
  const cs = await cipherSuite(parts, group.suite);
  const from = await openSenderData(cs, source.senderDataSecret, message);
  if (from.leafIndex === group.ownLeafIndex) {
    throw new MlsError('OWN_MESSAGE', 'message: sent by this device');
  }
  checkGeneration(source.secretTree, from, message.contentType);
  const member = memberAt(source.ratchetTree, from.leafIndex);
  if (member === undefined) throw new MlsError('DECRYPT_FAILED', 'message: from a blank leaf');
  const isMember =
    message.epoch === group.epoch || hasLeafWithKey(state.ratchetTree, member.identityPub);
  const sender: Sender = { ...member, isMember };
  return message.contentType === contentTypes.commit
    ? applyCommit(parts, group, message, sender)
    : openApplication(parts, group, message, sender, from);
}

function hasLeafWithKey(tree: RatchetTree, identityPub: Uint8Array): boolean {
  return tree.some(
    (node) =>
      node?.nodeType === nodeTypes.leaf && sameBytes(node.leaf.signaturePublicKey, identityPub),
  );
}

function decodePrivateMessage(bytes: Uint8Array): PrivateMessage {
  const message = decodeExactly(mlsMessageDecoder, mlsMessageEncoder, bytes, 'message');
  if (message.wireformat !== wireformats.mls_private_message) {
    throw new MlsError('MALFORMED', 'message: not a PrivateMessage');
  }
  return message.privateMessage;
}

interface EpochSource {
  readonly senderDataSecret: Uint8Array;
  readonly secretTree: ClientState['secretTree'];
  readonly ratchetTree: ClientState['ratchetTree'];
}

/** What opens messages of this one's epoch; throws the typed reason when nothing does. */
function epochSource(group: MlsGroup, state: ClientState, message: PrivateMessage): EpochSource {
  const { contentType, epoch } = message;
  if (!sameBytes(message.groupId, group.groupId)) {
    throw new MlsError('WRONG_GROUP', 'message: for another group');
  }
  if (contentType === contentTypes.proposal) {
    throw new MlsError('NOT_ALLOWED', 'message: a proposal outside a commit');
  }
  if (epoch > group.epoch) {
    throw new MlsError('EPOCH_AHEAD', `message: of epoch ${epoch}, group at ${group.epoch}`);
  }
  if (epoch === group.epoch) {
    if (contentType === contentTypes.commit) requireActive(group);
    const { senderDataSecret } = state.keySchedule;
    return { senderDataSecret, secretTree: state.secretTree, ratchetTree: state.ratchetTree };
  }
  if (contentType === contentTypes.commit) {
    throw new MlsError('STALE_COMMIT', `commit: of epoch ${epoch}, group at ${group.epoch}`);
  }
  const past = state.historicalReceiverData.get(epoch);
  if (past === undefined) {
    throw new MlsError('EPOCH_GONE', `message: of epoch ${epoch}, group at ${group.epoch}`);
  }
  return past;
}

const framed = (privateMessage: PrivateMessage): MlsFramedMessage => ({
  version: protocolVersions.mls10,
  wireformat: wireformats.mls_private_message,
  privateMessage,
});

async function openApplication(
  parts: MlsParts,
  group: MlsGroup,
  message: PrivateMessage,
  sender: Sender,
  from: SenderData,
): Promise<Processed> {
  const result = await runLibrary(parts, group, framed(message), () => 'reject', 'DECRYPT_FAILED');
  if (result.kind !== 'applicationMessage' || result.senderLeafIndex !== sender.leafIndex) {
    throw new MlsError('DECRYPT_FAILED', 'message: not what its sender data says');
  }
  return {
    kind: 'application',
    sender,
    plaintext: result.message,
    authenticatedData: result.aad,
    epoch: message.epoch,
    generation: from.generation,
    next: new MlsGroup(result.newState),
    wipe: wipeConsumed(result.consumed),
  };
}

async function applyCommit(
  parts: MlsParts,
  group: MlsGroup,
  message: PrivateMessage,
  sender: Sender,
): Promise<Processed> {
  const state = stateOf(group);
  let proposals: readonly Proposal[] = [];
  let effects: CommitEffects | undefined;
  let unproven: readonly CredentialFailure[] = [];
  const judge: IncomingMessageCallback = (incoming) => {
    if (incoming.kind !== 'commit' || incoming.senderLeafIndex !== sender.leafIndex)
      return 'reject';
    proposals = incoming.proposals.map(({ proposal }) => proposal);
    effects = effectsOf(group.members(), incoming.proposals);
    if (effects !== undefined && isSuccession(group, effects)) {
      unproven = notRevoked(parts.manifests, effects.removed);
    }
    return effects !== undefined && parts.mayCommit(group, sender, effects) ? 'accept' : 'reject';
  };
  const result = await runLibrary(
    parts,
    group,
    framed(message),
    judge,
    'INVALID_COMMIT',
    () => unproven,
  );
  if (result.kind !== 'newState') throw new MlsError('INVALID_COMMIT', 'commit: another content');
  requireSuccessor(state, result.newState, sender.leafIndex);
  const adds = proposals.filter(isAdd);
  const isSelfRemoved = result.newState.groupActiveState.kind === 'removedFromGroup';
  return {
    kind: 'commit',
    sender,
    authenticatedData: result.aad,
    epoch: message.epoch,
    // A removed member does not learn the new tree, so it cannot say who was added.
    added: isSelfRemoved ? [] : addedMembers(result.newState, adds),
    removed: effects?.removed ?? [],
    isSelfRemoved,
    next: new MlsGroup(result.newState),
    wipe: isSelfRemoved
      ? wipeConsumed(result.consumed)
      : wipeEpoch(state, result.newState, result.consumed),
  };
}

/**
 * The committer's leaf may change its encryption key and nothing else: a new identity key is a
 * new device, and capabilities never change. RFC 9420 section 5.3.1 (valid successor).
 */
function requireSuccessor(old: ClientState, next: ClientState, leafIndex: number): void {
  const [before, after] = [old, next].map(({ ratchetTree }) => leafAt(ratchetTree, leafIndex));
  if (isSuccessor(before, after)) return;
  throw new MlsError('INVALID_COMMIT', 'commit: the committer changed more than its key');
}

export function isSuccessor(before: LeafNode | undefined, after: LeafNode | undefined): boolean {
  const unchanged = (leaf: typeof before): string =>
    JSON.stringify(leaf === undefined ? null : [leaf.credential, leaf.capabilities], (_, value) =>
      value instanceof Uint8Array ? Buffer.from(value).toString('base64') : (value as unknown),
    );
  return (
    before !== undefined &&
    after !== undefined &&
    unchanged(before) === unchanged(after) &&
    sameBytes(before.signaturePublicKey, after.signaturePublicKey) &&
    after.extensions.length === 0
  );
}

/** Who is in goes on, whatever became of its keys: only leaves that come are judged. */
export function isKnownLeaf(
  members: readonly Member[],
  credential: Credential,
  key: Uint8Array,
): boolean {
  const identity = identityOf(credential);
  return members.some(
    ({ userId, deviceId, identityPub }) =>
      userId === identity?.userId && deviceId === identity.deviceId && sameBytes(identityPub, key),
  );
}

/** Judges only leaves that come: members that learn of keys at different times must not go different ways. */
export async function runLibrary(
  parts: MlsParts,
  group: MlsGroup,
  message: MlsFramedMessage,
  callback: IncomingMessageCallback,
  reason: 'DECRYPT_FAILED' | 'INVALID_COMMIT',
  /** What else a log has to say about the commit, once it was looked at. */
  unproven: () => readonly CredentialFailure[] = () => [],
): Promise<ProcessMessageResult> {
  const members = group.members();
  const watch = new CommitWatch(group, await cipherSuite(parts, group.suite), callback);
  const run = async (service: AuthenticationService): Promise<ProcessMessageResult> => {
    const context = {
      ...(await mlsContext(parts, group.suite, service, { leaves: group.leaves })),
      cipherSuite: watch.suite,
    };
    let result: ProcessMessageResult;
    try {
      result = await processMessage({
        context,
        state: stateOf(group),
        message,
        callback: watch.callback,
      });
    } catch (cause) {
      throw new MlsError(reason, 'message: refused by the MLS library', { cause });
    }
    if (result.kind === 'newState' && result.actionTaken === 'reject') {
      throw new MlsError('NOT_ALLOWED', 'commit: not allowed by the rules of the group');
    }
    if (result.kind === 'newState') watch.requireOwnPath(result.newState);
    const failures = unproven();
    if (failures.length > 0) throw new CredentialError(failures);
    return result;
  };
  try {
    return await authenticated(
      parts.manifests,
      run,
      (credential, key) =>
        isKnownLeaf(members, credential, key) || wasDevice(parts, credential, key),
    );
  } catch (error) {
    throw watch.judged(error);
  }
}
