/**
 * Brings an intent into the group log (docs/protocol/group-log.md): makes the commit, submits it, and
 * when another one won applies that and makes it anew, until it is accepted or no longer wanted. The
 * caller writes the pending commit down before the first byte leaves, and the new state before it
 * shows anything.
 */
import {
  ConflictError,
  DeadlineExceededError,
  entryHash,
  hasReason,
  jitter,
  methods,
  QpcError,
  Status,
  TransportError,
  type Runtime,
} from '@quicprochat/proto';
import {
  fromBinary,
  GroupLogResponseSchema,
  type GroupControl,
  type MessageInitShape,
  type SubmitCommitRequestSchema,
} from '@quicprochat/proto/messages';
import {
  sealCommit,
  walkLog,
  type CommitFacts,
  type LogView,
  type PendingOwn,
  type Walk,
  type WalkParts,
} from './group-log.ts';
import type { Caller } from './link.ts';

export const groupCommitLimits = {
  /** Lost races before the person is told. */
  attempts: 6,
  /** Longest wait after the first lost race (ms); it doubles with each. */
  backOffMs: 200,
  /** Questions for the outcome of a commit whose answer was lost. */
  questions: 5,
  /** Entries that are read at once: a hub keeps 1 000 of a log. More never comes to an end. */
  entries: 2_048,
} as const;

/** What an accepted commit is to bring along, as in SubmitCommitRequest. */
export type CommitDelivery = Pick<
  MessageInitShape<typeof SubmitCommitRequestSchema>,
  'channel' | 'targets' | 'welcomes' | 'updates' | 'groupInfo'
>;

/** One change that somebody wants, made for whatever state the group has by then. */
export interface Intent {
  /** Undefined: the group is that way already. */
  make(view: LogView): Promise<Omit<CommitFacts, 'rejects'> | undefined>;
  /** For a commit made by `make`; `envelope` and `mid` are what a channel post signs. */
  delivery(
    view: LogView,
    facts: Omit<CommitFacts, 'rejects'>,
    sent: { readonly envelope: Uint8Array; readonly mid: Uint8Array },
  ): Promise<CommitDelivery>;
}

export interface CommitParts extends WalkParts {
  readonly caller: Caller;
  /** Domain of the hub that is asked. */
  readonly hub: string;
  readonly runtime: Pick<Runtime, 'clock' | 'random'>;
  /** Resolves once it is on disk that this commit may have been sent. */
  readonly onPending: (pending: PendingOwn, mid: Uint8Array) => Promise<void>;
  /** Resolves once the walked state is on disk; then secrets are wiped. */
  readonly onWalk: (walk: Walk) => Promise<void>;
}

export interface Committed {
  readonly view: LogView;
  /** False: somebody else had done it. */
  readonly isOwn: boolean;
}

/**
 * Throws ConflictError EPOCH_CONFLICT after 6 lost races, DeadlineExceededError TIMEOUT when it stays
 * unknown whether the commit was accepted (then only the same bytes may be sent again), and every
 * other refusal of the hub.
 */
export async function commitIntent(
  parts: CommitParts,
  start: LogView,
  intent: Intent,
  signal?: AbortSignal,
): Promise<Committed> {
  let view = start;
  let rejects: readonly Uint8Array[] = [];
  let facts = await intent.make(view);
  for (let attempt = 0; ; attempt += 1) {
    if (facts === undefined) return { view, isOwn: false };
    const { clock, random } = parts.runtime;
    const own = await sealCommit(parts.mls, view.group, view.head, { ...facts, rejects }, random);
    const pending = { own, pending: facts.pending };
    const mid = random.bytes(16);
    const { envelope } = own;
    const delivery = await intent.delivery(view, facts, { envelope, mid });
    await parts.onPending(pending, mid);
    const { hub } = parts;
    const request = { hub, entry: own.entry, commit: envelope, mid, ...delivery };
    const controls = await submit(parts, view, request, signal);
    const walk = await walked(parts, view, controls, pending);
    const isMoved = walk.applied.length > 0;
    view = walk;
    if (walk.hasWon) return { view, isOwn: true };
    rejects = walk.invalid.map(({ hash }) => hash);
    if (attempt + 1 >= groupCommitLimits.attempts) throw lostTooOften();
    const waitMs = groupCommitLimits.backOffMs * 2 ** attempt;
    await clock.sleep(jitter(random, waitMs), signal);
    // One commit for each epoch: a second one would use its handshake key twice.
    if (isMoved) facts = await intent.make(view);
  }
}

/** Reads the log behind the view to its end, applies it, and has it written down page by page. */
export async function catchUp(
  parts: CommitParts,
  start: LogView,
  own?: PendingOwn,
  signal?: AbortSignal,
): Promise<LogView> {
  let view = start;
  for await (const page of pagesBehind(parts, start, signal)) {
    view = await walked(parts, view, page, own);
  }
  return view;
}

async function walked(
  parts: CommitParts,
  view: LogView,
  controls: readonly GroupControl[],
  own: PendingOwn | undefined,
): Promise<Walk> {
  const walk = await walkLog(parts, view, controls, own);
  await parts.onWalk(walk);
  for (const wipe of walk.wipes) wipe();
  return walk;
}

/** Entries behind the view, the submitted one among them if it was accepted. */
async function submit(
  parts: CommitParts,
  view: LogView,
  request: MessageInitShape<typeof SubmitCommitRequestSchema>,
  signal: AbortSignal | undefined,
): Promise<readonly GroupControl[]> {
  const options = signal === undefined ? {} : { signal };
  for (let question = 0; question < groupCommitLimits.questions; question += 1) {
    try {
      const { entry } = await parts.caller.call(methods.submitCommit, request, options);
      const commit = request.commit ?? new Uint8Array(0);
      return entry === undefined
        ? await allBehind(parts, view, signal)
        : [{ $typeName: 'qpc.v1.GroupControl', entry, commit, welcome: new Uint8Array(0) }];
    } catch (error) {
      signal?.throwIfAborted();
      if (hasReason(error, 'EPOCH_CONFLICT') && error.details !== undefined) {
        const { entries, hasMore } = fromBinary(GroupLogResponseSchema, error.details);
        return hasMore ? allBehind(parts, view, signal) : entries;
      }
      // Without an answer the same bytes are sent once more: the hub knows them by their hash.
      if (!isUnanswered(error)) throw error;
      const { clock, random } = parts.runtime;
      await clock.sleep(jitter(random, groupCommitLimits.backOffMs * 2 ** question), signal);
    }
  }
  throw new DeadlineExceededError('the hub did not say whether it accepted the commit');
}

async function allBehind(
  parts: CommitParts,
  view: LogView,
  signal: AbortSignal | undefined,
): Promise<readonly GroupControl[]> {
  const controls: GroupControl[] = [];
  for await (const page of pagesBehind(parts, view, signal)) controls.push(...page);
  return controls;
}

async function* pagesBehind(
  { caller, hub }: CommitParts,
  { group: { groupId: group }, head }: LogView,
  signal: AbortSignal | undefined,
): AsyncGenerator<readonly GroupControl[]> {
  const options = signal === undefined ? {} : { signal };
  let after = head.hash;
  let count = 0;
  for (;;) {
    const page = await caller.call(methods.groupLog, { hub, group, after }, options);
    count += page.entries.length;
    if (count > groupCommitLimits.entries) {
      throw new TransportError('protocol', `the group log has more than ${count - 1} entries`);
    }
    yield page.entries;
    const last = page.entries.at(-1)?.entry?.entry;
    if (!page.hasMore || last === undefined) return;
    after = entryHash(last.entry);
  }
}

function isUnanswered(error: unknown): boolean {
  return (
    error instanceof QpcError &&
    [Status.Unavailable, Status.DeadlineExceeded, Status.Internal].some(
      (status) => status === error.status,
    )
  );
}

function lostTooOften(): ConflictError {
  const { attempts } = groupCommitLimits;
  return new ConflictError('EPOCH_CONFLICT', `others were first ${attempts} times`);
}
