/**
 * What a member's client asks of a group's hub, through its own node (docs/protocol/group-log.md): that
 * there is a group, that a commit is accepted, and the log. Answers are checked where they are applied.
 */
import {
  entryHash,
  hasReason,
  methods,
  parseEntry,
  TransportError,
  type RpcOptions,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GroupControlSchema,
  GroupLogResponseSchema,
  SubmitCommitRequestSchema,
  type CertifiedEntry,
  type GroupControl,
  type MemberProof,
  type SubmitCommitRequest,
  type SubmitCommitResponse,
} from '@quicprochat/proto/messages';
import type { Caller } from '../../dial.ts';

export const hubCallLimits = {
  /** Entries that are read at once: a hub keeps 1 000 of a log. More never comes to an end. */
  entries: 2_048,
  /** A page, and what a hub keeps beside it, in so long (ms); others wait meanwhile. */
  pageMs: 10_000,
} as const;

/** Where a group's log is, and what of it is known: the hash of its newest entry here (32 bytes). */
export interface LogPlace {
  /** Domain. */
  readonly hub: string;
  readonly groupId: Uint8Array;
  readonly after: Uint8Array;
}

/** An accepted commit with its certificate, or what stands in its place. */
export interface SubmitAnswer {
  readonly isAccepted: boolean;
  readonly controls: readonly GroupControl[];
  /** The log goes on behind these. */
  readonly hasMore: boolean;
}

/**
 * Makes the group's log at the own node. `signatures`: its word for the entry from before, where it lost the group.
 * Throws what the node answers.
 */
export async function callCreateGroup(
  caller: Caller,
  { entry, signatures = [] }: Partial<Pick<CertifiedEntry, 'entry' | 'signatures'>>,
  hubs: readonly string[],
  signal?: AbortSignal,
): Promise<CertifiedEntry> {
  const options = signal === undefined ? {} : { signal };
  const answer = await caller.call(
    methods.createGroup,
    { ...(entry && { entry }), hubs: [...hubs], signatures },
    options,
  );
  if (answer.entry === undefined) throw new TransportError('protocol', 'no entry in the answer');
  return answer.entry;
}

/**
 * Submits encoded SubmitCommitRequest, always the same bytes: the hub knows a commit by its hash. Throws
 * what the hub answers, except for EPOCH_CONFLICT. `hub`: another one of three, which passes it on to the
 * one that leads, or, `takesOver`, leads itself from now on if that one is away. `proof`: of a caller without login.
 */
export async function callSubmit(
  caller: Caller,
  requestBytes: Uint8Array,
  signal?: AbortSignal,
  other: {
    readonly hub?: string | undefined;
    readonly takesOver?: boolean;
    readonly proof?: MemberProof;
  } = {},
): Promise<SubmitAnswer> {
  const stored = fromBinary(SubmitCommitRequestSchema, requestBytes);
  const { hub = stored.hub, takesOver = false, proof } = other;
  const request = { ...stored, hub };
  const proven = proof === undefined ? {} : { proof };
  try {
    const options = signal === undefined ? {} : { signal };
    const { entry } = takesOver
      ? await takeOver(caller, request, proven, options)
      : await caller.call(methods.submitCommit, { ...request, ...proven }, options);
    if (entry === undefined) throw new TransportError('protocol', 'no entry in the answer');
    const control = create(GroupControlSchema, { entry, commit: request.commit });
    return { isAccepted: true, controls: [control], hasMore: false };
  } catch (error) {
    const entries = conflictOf(error);
    if (entries === undefined) throw error;
    return { isAccepted: false, ...entries };
  }
}

async function takeOver(
  caller: Caller,
  submit: SubmitCommitRequest,
  proven: { readonly proof?: MemberProof },
  options: RpcOptions,
): Promise<Pick<SubmitCommitResponse, 'entry'>> {
  const { hub } = submit;
  const { group } = parseEntry(submit.entry).entry;
  const request = { hub, group, submit, ...proven };
  const answer = await caller.call(methods.groupTakeover, request, options);
  return answer.submitted ?? {};
}

function conflictOf(error: unknown): Pick<SubmitAnswer, 'controls' | 'hasMore'> | undefined {
  if (!hasReason(error, 'EPOCH_CONFLICT')) return undefined;
  const { details } = error;
  if (details === undefined) return { controls: [], hasMore: true };
  const { entries, hasMore } = fromBinary(GroupLogResponseSchema, details);
  return { controls: entries, hasMore };
}

/** Of one page of a log. */
export function pageOptions(signal: AbortSignal | undefined): RpcOptions {
  const { pageMs: deadlineMs } = hubCallLimits;
  return signal === undefined ? { deadlineMs } : { deadlineMs, signal };
}

/** Pages of the log behind a place. Throws what the hub answers, TransportError for a log without end. */
export async function* logBehind(
  caller: Caller,
  { hub, groupId: group, after }: LogPlace,
  signal?: AbortSignal,
): AsyncGenerator<readonly GroupControl[]> {
  const options = pageOptions(signal);
  let last = after;
  let count = 0;
  for (;;) {
    const page = await caller.call(methods.groupLog, { hub, group, after: last }, options);
    count += page.entries.length;
    if (count > hubCallLimits.entries) {
      throw new TransportError('protocol', `the group log has more than ${count - 1} entries`);
    }
    yield page.entries;
    const newest = page.entries.at(-1)?.entry?.entry;
    if (!page.hasMore || newest === undefined) return;
    last = entryHash(newest.entry);
  }
}

/** Whether one hub of three forgot a part of the log, and takes it back. Throws what the hub answers. */
export async function callWantsEntries(
  caller: Caller,
  { hub, groupId: group, after }: LogPlace,
  signal?: AbortSignal,
): Promise<boolean> {
  const request = { hub, group, after, maxEntries: 1 };
  return (await caller.call(methods.groupLog, request, pageOptions(signal))).wantsEntries;
}

/** What a hub keeps for members that lost their place, and whether the log goes on behind `after`. */
export async function callGroupInfo(
  caller: Caller,
  { hub, groupId: group, after }: LogPlace,
  signal?: AbortSignal,
): Promise<{ readonly sealed: Uint8Array; readonly entry: Uint8Array; readonly hasMore: boolean }> {
  const request = { hub, group, after, maxEntries: 1, withGroupInfo: true };
  const answer = await caller.call(methods.groupLog, request, pageOptions(signal));
  const { groupInfo: sealed, groupInfoEntry: entry, entries } = answer;
  return { sealed, entry, hasMore: entries.length > 0 };
}
