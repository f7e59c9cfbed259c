/**
 * A group at one epoch, as an opaque value: what callers may know of it, and (for the adapter's
 * own files only) the library's state inside. Values never change; operations return new ones.
 */
import type { ClientState, LeafNode, RatchetTree } from 'ts-mls';
import { isMlsSuite } from '../crypto/provider.ts';
import type { MlsSuite } from '../crypto/provider.ts';
import { identityOf } from './authentication.ts';
import { MlsError } from './errors.ts';
import { groupContextOf } from './group-extensions.ts';
import type { GroupContextInfo, QpcGroupInfo } from './group-extensions.ts';
import type { Identity } from './identity.ts';
import { nodeTypes } from './library.ts';

/** A leaf of the group: one device. */
export interface Member extends Identity {
  readonly leafIndex: number;
  /** The device's identity key, which is its MLS signature key: 32 bytes. */
  readonly identityPub: Uint8Array;
}

let read: (group: MlsGroup) => ClientState;

/** A group's state at one epoch. Holds secrets; printing it shows none. */
export class MlsGroup {
  readonly #state: ClientState;
  readonly suite: MlsSuite;
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  /** Conversation, name, roles, timer. */
  readonly info: QpcGroupInfo;
  /** Domains whose nodes order its commits: 1 or 3. */
  readonly hubs: readonly string[];

  static {
    read = (group) => group.#state;
  }

  /** For the adapter's own files; callers get groups from createGroup, join and restore. */
  constructor(state: ClientState) {
    const { cipherSuite, groupId, epoch, extensions } = state.groupContext;
    if (!isMlsSuite(cipherSuite)) throw new MlsError('MALFORMED', 'group: not one of our suites');
    this.#state = state;
    this.suite = cipherSuite;
    this.groupId = groupId;
    this.epoch = epoch;
    ({ info: this.info, hubs: this.hubs } = groupContextOf(extensions));
  }

  /** False once this member has been removed: nothing can be sent any more. */
  get isActive(): boolean {
    return this.#state.groupActiveState.kind === 'active';
  }

  get ownLeafIndex(): number {
    return this.#state.privatePath.leafIndex;
  }

  /** Equal on all members of the epoch; differs after a fork. RFC 9420 section 8.7. */
  get epochAuthenticator(): Uint8Array {
    return this.#state.keySchedule.epochAuthenticator;
  }

  /** Leaves of the tree, blank ones included. */
  get leaves(): number {
    return leavesOf(this.#state.ratchetTree);
  }

  /** All members, by leaf index. */
  members(): Member[] {
    return membersOf(this.#state.ratchetTree);
  }

  /** All members in an epoch that is kept, by leaf index; undefined for another one. */
  membersAt(epoch: bigint): Member[] | undefined {
    if (epoch === this.epoch) return this.members();
    const data = this.#state.historicalReceiverData.get(epoch);
    return data === undefined ? undefined : membersOf(data.ratchetTree);
  }

  /** What the group's context said in an epoch that is kept; undefined for another one. */
  contextAt(epoch: bigint): GroupContextInfo | undefined {
    if (epoch === this.epoch) return { info: this.info, hubs: this.hubs };
    const data = this.#state.historicalReceiverData.get(epoch);
    return data === undefined ? undefined : groupContextOf(data.groupContext.extensions);
  }

  /** Epochs before this one whose messages can still be opened, oldest first. */
  pastEpochs(): bigint[] {
    return [...this.#state.historicalReceiverData.keys()].sort((a, b) => (a < b ? -1 : 1));
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `MlsGroup { epoch: ${this.epoch}n, suite: ${this.suite}, [secret] }`;
  }
}

/** The library's state in a group; the door does not export this. */
export function stateOf(group: MlsGroup): ClientState {
  return read(group);
}

/** The leaf at a leaf index, undefined when it is blank. */
export function leafAt(tree: RatchetTree, leafIndex: number): LeafNode | undefined {
  const node = tree[leafIndex * 2];
  return node?.nodeType === nodeTypes.leaf ? node.leaf : undefined;
}

/** The encryption key at a node index, undefined when the node is blank. */
export function nodeKeyAt(tree: RatchetTree, nodeIndex: number): Uint8Array | undefined {
  const node = tree[nodeIndex];
  if (node === undefined) return undefined;
  return node.nodeType === nodeTypes.leaf ? node.leaf.hpkePublicKey : node.parent.hpkePublicKey;
}

/** The member at a leaf index, undefined when the leaf is blank or not one of ours. */
export function memberAt(tree: RatchetTree, leafIndex: number): Member | undefined {
  const leaf = leafAt(tree, leafIndex);
  const identity = leaf === undefined ? undefined : identityOf(leaf.credential);
  if (leaf === undefined || identity === undefined) return undefined;
  return { leafIndex, ...identity, identityPub: leaf.signaturePublicKey };
}

/** Leaves of a tree that its nodes have room for, blank ones included. RFC 9420 section 4.1. */
export function leavesOf(tree: RatchetTree): number {
  return Math.ceil(tree.length / 2);
}

/** Every member of a tree, by leaf index. */
export function membersOf(tree: RatchetTree): Member[] {
  const members: Member[] = [];
  for (let leafIndex = 0; leafIndex * 2 < tree.length; leafIndex++) {
    const member = memberAt(tree, leafIndex);
    if (member !== undefined) members.push(member);
  }
  return members;
}
