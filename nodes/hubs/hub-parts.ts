/** What the parts of a hub of three work with, their bounds, and words that they share. */
import { hasReason, QpcError, Status, UnavailableError, type Runtime } from '@quicprochat/proto';
import {
  fromBinary,
  HubFenceSchema,
  type FedHubInstallRequestSchema,
  type FedHubInstallResponse,
  type FedHubPromiseRequestSchema,
  type FedHubPromiseResponse,
  type FedHubReplicateRequestSchema,
  type FedHubReplicateResponse,
  type GroupLogRequestSchema,
  type GroupLogResponse,
  type MessageInitShape,
  type SubmitCommitRequest,
  type SubmitCommitResponse,
} from '@quicprochat/proto/messages';
import type { HubState } from '../store/group-store.ts';
import type { NodeStore } from '../store/store.ts';
import type { ForkAlarm } from './fork-alarm.ts';
import type { CommitOffers } from './offers.ts';

export const hubLimits = {
  /** How long a committer waits for a majority; the outcome is open then (ms). */
  majorityMs: 5_000,
  /** Pause before a hub that did not answer is asked again (ms): it doubles up to the longest. */
  retryMs: 200,
  retryMaxMs: 10_000,
  /** How long both others are asked to begin a group; whoever made it asks again, or makes another one (ms). */
  beginMs: 30_000,
  /** How long the third hub is asked on when the second one was enough (ms). */
  lingerMs: 30_000,
  /** Commits of one group that wait for each other. */
  waitersPerGroup: 64,
  /** Groups that wait for a majority at once, and that are remembered as led. */
  groups: 4_096,
  /** Pages of the log that one repair takes: more than a hub keeps. */
  repairPages: 1_024,
  /** A hub that forgot asks the others after this (ms), then after twice as long each time... */
  learnSoonMs: 1_000,
  /** ...up to this. */
  learnMs: 60_000,
  /** Where two hubs forgot, one recovers so long after the other (ms). */
  recoverApartMs: 3_000,
  /**
   * So far above all terms that are known does a recovery lie: hubs do not ask for so many while a message of one that
   * forgot them can be on its way; and one call may raise a term by 64 times as much.
   */
  recoveryLeap: 16_384,
  /** Terms that a takeover tries while others promised higher ones. */
  takeoverTerms: 4,
} as const;

/** The other hubs. Errors are those of federation's HubProxy. */
export interface HubPeers {
  /** Finds out within seconds whether the link to a hub that is said to be gone is dead. */
  doubt(domain: string): void;
  submit(
    domain: string,
    request: SubmitCommitRequest,
    call: { readonly fromHub: boolean; readonly signal?: AbortSignal | undefined },
  ): Promise<SubmitCommitResponse>;
  log(
    domain: string,
    request: MessageInitShape<typeof GroupLogRequestSchema>,
    signal?: AbortSignal,
  ): Promise<GroupLogResponse>;
  replicate(
    domain: string,
    request: MessageInitShape<typeof FedHubReplicateRequestSchema>,
    signal?: AbortSignal,
  ): Promise<FedHubReplicateResponse>;
  promise(
    domain: string,
    request: MessageInitShape<typeof FedHubPromiseRequestSchema>,
    signal?: AbortSignal,
  ): Promise<FedHubPromiseResponse>;
  install(
    domain: string,
    request: MessageInitShape<typeof FedHubInstallRequestSchema>,
    signal?: AbortSignal,
  ): Promise<FedHubInstallResponse>;
}

export interface HubParts {
  /** This node. */
  readonly domain: string;
  readonly store: NodeStore;
  readonly runtime: Runtime;
  readonly offers: CommitOffers;
  readonly peers: HubPeers;
  readonly forks: ForkAlarm;
  /** Signing keys of a domain, from its proven NodeRecord; of this node its own. */
  readonly keysOf: (domain: string) => readonly Uint8Array[];
  /** The outbox of a peer got rows. */
  readonly notify: (domain: string) => void;
}

export const ownerOf = (hubs: readonly string[], term: number): string | undefined =>
  hubs[term % hubs.length];

/** Whether this node's word counts in the term that it promised last, or it begins the group. */
export function leads(state: HubState, domain: string): boolean {
  const { hubs, promised, adopted, isLearner, isBeginning } = state;
  const mayLead = !isLearner || isBeginning;
  return mayLead && promised === adopted && ownerOf(hubs, promised) === domain;
}

/** The highest term that a hub promised, if that is why it refused. */
export function fencedBy(error: unknown): number | undefined {
  if (!hasReason(error, 'TERM_FENCED')) return undefined;
  if (error.details === undefined) return 0;
  try {
    const promised = Number(fromBinary(HubFenceSchema, error.details).promised);
    return Number.isSafeInteger(promised) ? promised : 0;
  } catch {
    return 0;
  }
}

/** Statuses of a refusal that the same bytes would meet again. */
const final: ReadonlySet<number> = new Set([
  Status.InvalidArgument,
  Status.PermissionDenied,
  Status.NotFound,
  Status.Conflict,
  Status.PayloadTooLarge,
  Status.Unimplemented,
  Status.FailedPrecondition,
]);

/** Whether a hub refused, rather than not being there or not being able to just now. */
export function isRefusal(error: unknown): error is QpcError {
  return error instanceof QpcError && final.has(error.status);
}

/**
 * Whether the hub that leads refused a commit for what it is. One that fences leads no longer, and one that does
 * not know the group has lost its disk: the others know better.
 */
export function isVerdict(error: unknown): error is QpcError {
  const isOfHub = fencedBy(error) !== undefined || hasReason(error, 'UNKNOWN_GROUP');
  return isRefusal(error) && !isOfHub;
}

export function unavailable(message: string, cause?: unknown): UnavailableError {
  return new UnavailableError('HUB_UNAVAILABLE', message, { cause });
}

export const keyOf = (group: Uint8Array): string => Buffer.from(group).toString('hex');
