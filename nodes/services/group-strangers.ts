/**
 * The group log for callers without login (docs: protocol/group-log, "Without a login"): 221 to 223 of members
 * whose own node is away. They prove that they stand at an entry, and get what is for those who do: its children,
 * and the one place behind it while that is free. To all others each group is one that is not here.
 */
import {
  ConflictError,
  groupLogLimits,
  hasReason,
  InvalidArgumentError,
  parseEntry,
  PermissionDeniedError,
  sameBytes,
  signingKeyFromSeed,
  verifyMemberProof,
  type CallContext,
  type Handlers,
  type Runtime,
} from '@quicprochat/proto';
import {
  fromBinary,
  GroupControlSchema,
  type MemberProof,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import type { EntryKey } from '../store/group-store.ts';
import type { NodeStore } from '../store/store.ts';

export interface StrangerParts {
  readonly domain: string;
  readonly store: Pick<NodeStore, 'entryKey' | 'childEntries'>;
  readonly runtime: Pick<Runtime, 'clock' | 'random'>;
  readonly nodeSpki: Uint8Array;
}

type Asked = Pick<Handlers, 'submitCommit' | 'groupLog' | 'groupTakeover'>;

/** Devices get what `others` gives, and so do members' commits once they are proven. */
export function withStrangers<H extends Asked>(parts: StrangerParts, others: H): H {
  const { domain, store, runtime } = parts;
  // Checked against where there is no key: it takes as long to hear that a group is not here.
  const nobody = signingKeyFromSeed(runtime.random.bytes(32)).publicKey;

  /** Of the entry by which the caller is a member. Throws PermissionDeniedError BLOCKED, whatever is wrong. */
  async function needMember(
    group: Uint8Array,
    proof: MemberProof | undefined,
    { connection }: CallContext,
  ): Promise<EntryKey & { readonly entry: Uint8Array }> {
    if (proof === undefined) throw blocked();
    const { entry, issuedMs, signature } = proof;
    const key = await store.entryKey(group, entry);
    const binding = {
      clientSpki: connection.peer.spkiSha256,
      nodeSpki: parts.nodeSpki,
      ...{ group, entry, issuedMs: Number(issuedMs) },
    };
    const commitPub = key?.commitPub ?? nobody;
    const isSigned = verifyMemberProof(binding, signature, commitPub, runtime.clock.now());
    if (key === undefined || !isSigned) throw blocked();
    return { ...key, entry };
  }

  /**
   * Only the first commit behind the newest entry is taken: who was removed knows the keys of older ones. Throws
   * BLOCKED, ConflictError EPOCH_CONFLICT.
   */
  async function needPlace(
    { entry: signed }: SubmitCommitRequest,
    proof: MemberProof | undefined,
    context: CallContext,
  ): Promise<void> {
    const { entry, hash } = parseEntry(signed);
    const parent = await needMember(entry.group, proof, context);
    if (!sameBytes(entry.parent, parent.entry)) throw blocked();
    const isFree = parent.children.length === 0 && entry.rejects.length === 0;
    // The answer was lost, and it is asked for again.
    if (!isFree && !parent.children.some((child) => sameBytes(child, hash))) throw conflict();
  }

  /** It is this node's own log, and what it says is this node's: a hub elsewhere would be asked in our name. */
  function needHere(hub: string): void {
    if (hub === '' || hub === domain) return;
    throw new PermissionDeniedError('CALLER_CLASS', 'without login only this node is a hub');
  }

  return {
    ...others,

    async submitCommit(request, context) {
      if (isDevice(context)) return others.submitCommit(request, context);
      needHere(request.hub);
      await needPlace(request, request.proof, context);
      return bare(() => others.submitCommit(ownWords(request), context));
    },

    async groupTakeover(request, context) {
      if (isDevice(context)) return others.groupTakeover(request, context);
      needHere(request.hub);
      const { submit } = request;
      if (submit === undefined) throw new InvalidArgumentError('BAD_FIELD', 'submit: is missing');
      await needPlace(submit, request.proof, context);
      return bare(() =>
        others.groupTakeover({ ...request, submit: ownWords(submit), proof: undefined }, context),
      );
    },

    async groupLog(request, context) {
      if (isDevice(context)) return others.groupLog(request, context);
      needHere(request.hub);
      const { group, after, maxEntries } = request;
      const { entry } = await needMember(group, request.proof, context);
      const most = maxEntries || groupLogLimits.pageEntries;
      const { controls, hasMore } = await store.childEntries(group, entry, after, most);
      return {
        entries: controls.map((control) => fromBinary(GroupControlSchema, control)),
        hasMore,
      };
    },
  };
}

const isDevice = ({ caller }: CallContext): boolean => caller.class === 'device';

/** A conflict without the entries that come with it: the log shows those which the caller may see. */
async function bare<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw hasReason(error, 'EPOCH_CONFLICT') ? conflict() : error;
  }
}

/** Without what only nodes say, and what brings a hub back what it lost. */
function ownWords(request: SubmitCommitRequest): SubmitCommitRequest {
  const slip = new Uint8Array(0);
  const welcomes = request.welcomes.map((welcome) => ({ ...welcome, slip }));
  return { ...request, welcomes, returnTo: '', signatures: [], term: 0n, proof: undefined };
}

function blocked(): PermissionDeniedError {
  return new PermissionDeniedError('BLOCKED', 'proof: of no member of a group of this hub');
}

function conflict(): ConflictError {
  return new ConflictError('EPOCH_CONFLICT', 'another commit won this epoch');
}
