/**
 * Group logs: CreateGroup, SubmitCommit, GroupLog and GroupTakeover, at this node as a hub or passed on
 * to the hub elsewhere, and what other nodes and hubs ask of this one (911 to 915). A hub of one
 * decides here; how one of three does, hubs/hub-set.ts knows.
 */
import {
  groupLogLimits,
  hasReason,
  InvalidArgumentError,
  parseOffered,
  PermissionDeniedError,
  ResourceExhaustedError,
  type CallContext,
  type Handlers,
} from '@quicprochat/proto';
import {
  fromBinary,
  GroupControlSchema,
  type CertifiedEntry,
  type GroupLogRequest,
  type GroupLogResponse,
  type GroupLogResponseSchema,
  type GroupTakeoverRequest,
  type GroupTakeoverResponse,
  type GroupTakeoverResponseSchema,
  type MessageInitShape,
  type SubmitCommitRequest,
  type SubmitCommitResponse,
  type SubmitCommitResponseSchema,
} from '@quicprochat/proto/messages';
import type { HubSet, Submission } from '../hubs/hub-set.ts';
import type { EpochQuota } from '../hubs/epoch-quota.ts';
import { peersOf, type CommitOffers } from '../hubs/offers.ts';
import type { RestoredHub } from '../hubs/restored-hub.ts';
import { SiblingQuota, strangers, type Submitter } from '../hubs/sibling-quota.ts';
import { senderKey, type SendQuota } from '../send-quota.ts';
import type { NodeStore } from '../store/store.ts';
import { deviceOf, peerOf } from './caller.ts';
import { ofPeer, withSlips } from './welcome-slips.ts';

/** A hub of one accepts in the first term; takeovers are for three. */
const firstTerm = 0;

export interface GroupParts {
  readonly domain: string;
  readonly store: NodeStore;
  readonly offers: CommitOffers;
  readonly hubSet: HubSet;
  readonly restored: RestoredHub;
  readonly epochs: EpochQuota;
  /** Of devices, and of members that nobody knows. */
  readonly quota: SendQuota;
  readonly anonymousQuota: SendQuota;
  readonly federation: {
    /** True for a domain that this node relays to. */
    knows(domain: string): boolean;
    /** The outbox of a peer got rows. */
    notify(domain: string): void;
    readonly hubs: {
      submit(
        domain: string,
        request: SubmitCommitRequest,
        call: { readonly signal: AbortSignal },
      ): Promise<SubmitCommitResponse>;
      takeover(
        domain: string,
        request: GroupTakeoverRequest,
        signal: AbortSignal,
      ): Promise<GroupTakeoverResponse>;
      log(domain: string, request: GroupLogRequest, signal: AbortSignal): Promise<GroupLogResponse>;
    };
  };
}

type GroupMethods =
  | 'createGroup'
  | 'submitCommit'
  | 'groupLog'
  | 'groupTakeover'
  | 'fedHubSubmit'
  | 'fedHubReplicate'
  | 'fedHubPromise'
  | 'fedHubLog'
  | 'fedHubInstall';

export function groupHandlers(parts: GroupParts): Pick<Handlers, GroupMethods> {
  const { domain: own, store, offers, hubSet, restored, epochs, federation } = parts;
  const siblings = new SiblingQuota();

  /** One member has no more than a few tries at one place of a log, and makes no more epochs than others can follow. */
  const within = async <T>(
    submit: SubmitCommitRequest,
    submitter: Submitter,
    run: () => Promise<T>,
  ): Promise<T> => {
    const parsed = parseOffered(submit.entry);
    // Who brings a hub back what it lost, brings all of it.
    const { wasCertified = false } = restored.certified(
      submit.entry,
      submit.signatures,
      submit.hub,
    );
    const isBroughtBack = wasCertified || (await hubSet.isBroughtBack(submit));
    return siblings.within(parsed, submitter, (isRepeat) =>
      isBroughtBack || isRepeat ? run() : epochs.within(parsed, submitter, run),
    );
  };

  async function submitHere(
    request: SubmitCommitRequest,
    submission: Submission,
  ): Promise<MessageInitShape<typeof SubmitCommitResponseSchema>> {
    const { submit: _, ...commit } = offers.submitted(request, submission.sender);
    if (!hubSet.isLeading(commit.parsed.entry.group)) {
      const before = restored.certified(request.entry, request.signatures);
      const offered = { ...commit, ...offers.entry(request.entry, firstTerm), ...before };
      try {
        const { control } = await restored.submit(offered);
        for (const peer of peersOf(commit)) federation.notify(peer);
        return certifiedIn(control);
      } catch (error) {
        // The group has three hubs.
        if (!hasReason(error, 'TERM_FENCED')) throw error;
      }
    }
    // Whichever of the three leads tells this node what came back.
    const returned = await slipped(request, submission.sender);
    const entry = await hubSet.submit(returned, submission);
    return entry === undefined ? {} : { entry };
  }

  async function logHere(
    request: GroupLogRequest,
  ): Promise<MessageInitShape<typeof GroupLogResponseSchema>> {
    const { group, after, maxEntries, withGroupInfo } = request;
    const page = await store.groupLog(group, after, maxEntries || groupLogLimits.pageEntries);
    const info = withGroupInfo ? await store.groupInfo(group) : undefined;
    return {
      entries: page.controls.map((control) => fromBinary(GroupControlSchema, control)),
      position: BigInt(page.position),
      hasMore: page.hasMore,
      ...(page.prepared && { prepared: page.prepared }),
      wantsEntries: page.wantsEntries ?? false,
      ...(info && { groupInfo: info.bytes, groupInfoEntry: info.entry }),
    };
  }

  /** A commit reaches others as messages do, and costs its sender as much. */
  function pay(request: SubmitCommitRequest, { caller, connection }: CallContext): void {
    const quota = caller.class === 'device' ? parts.quota : parts.anonymousQuota;
    const key = senderKey(caller, connection);
    const { commit, groupInfo, sharedWelcome, targets, welcomes } = request;
    const own = commit.length + groupInfo.length + sharedWelcome.length;
    const bytes = welcomes.reduce((sum, { welcome }) => sum + welcome.length, own);
    quota.take(key, welcomes.length, bytes);
    for (const target of [...targets, ...welcomes.map((one) => one.target)]) {
      const retryAfterMs = target === undefined ? 0 : quota.recipient(key, target.rid);
      if (retryAfterMs === 0) continue;
      throw new ResourceExhaustedError('QUOTA', 'too many recipients in an hour', { retryAfterMs });
    }
  }

  const slipped = (
    request: SubmitCommitRequest,
    committer: Uint8Array | undefined,
  ): Promise<SubmitCommitRequest> =>
    // Whom nobody knows, nobody tells what came back.
    committer === undefined
      ? Promise.resolve(request)
      : withSlips({ store, domain: own }, request, committer);

  /** Undefined: a member that nobody knows (group-strangers.ts). */
  const senderOf = ({ caller }: CallContext): Uint8Array | undefined =>
    caller.class === 'device' ? caller.identityPub : undefined;

  const isHere = (hub: string): boolean => hub === '' || hub === own;

  return {
    async createGroup(request, context) {
      const { identityPub: creator } = deviceOf(context);
      const { hubs, entry, signatures } = request;
      if (hubs[0] !== own) {
        throw new PermissionDeniedError(
          'PEER_DENIED',
          'this node is not the first hub of the group',
        );
      }
      for (const hub of hubs.slice(1)) {
        if (federation.knows(hub)) continue;
        throw new PermissionDeniedError('PEER_DENIED', `${hub} is no peer of this node`);
      }
      if (hubs.length > 1) return hubSet.create(entry, hubs, creator);
      const before = restored.certified(entry, signatures);
      const offered = { ...offers.entry(entry, firstTerm), ...before };
      const made = await store.createGroup({ ...offered, hubs, creator });
      return { ...certifiedIn(made.control), wasNew: made.isNew };
    },

    async submitCommit(request, context) {
      const sender = senderOf(context);
      const { signal } = context;
      pay(request, context);
      return within(request, sender ?? strangers, async () =>
        isHere(request.hub)
          ? submitHere(request, { sender, fromHub: false, signal })
          : federation.hubs.submit(request.hub, await slipped(request, sender), { signal }),
      );
    },

    async groupLog(request, context) {
      if (isHere(request.hub)) return logHere(request);
      // The peer counts what all users of this node ask: one of them leaves room for the others.
      parts.quota.take(senderKey(context.caller, context.connection), 1, 0);
      return federation.hubs.log(request.hub, request, context.signal);
    },

    async groupTakeover(request, context) {
      const sender = senderOf(context);
      const { signal } = context;
      needOfGroup(request);
      const run = async (
        asked: GroupTakeoverRequest,
      ): Promise<MessageInitShape<typeof GroupTakeoverResponseSchema>> =>
        isHere(asked.hub)
          ? hubSet.takeover(asked, { sender, fromHub: false, signal })
          : federation.hubs.takeover(asked.hub, asked, signal);
      const { submit } = request;
      if (submit === undefined) return run(request);
      pay(submit, context);
      return within(submit, sender ?? strangers, async () =>
        run({ ...request, submit: await slipped(submit, sender) }),
      );
    },

    async fedHubSubmit({ submit, takeover, fromHub }, context) {
      const { signal } = context;
      const from = peerOf(context);
      const submission = { fromHub, signal };
      const isKnown = (domain: string): boolean => domain === own || federation.knows(domain);
      const returned = (brought: SubmitCommitRequest): SubmitCommitRequest =>
        ofPeer(brought, { from, fromHub, isKnown });
      if (takeover !== undefined) {
        needHere(takeover.hub);
        needOfGroup(takeover);
        const { submit: brought } = takeover;
        if (brought === undefined)
          return { takenOver: await hubSet.takeover(takeover, submission) };
        const run = () => hubSet.takeover({ ...takeover, submit: returned(brought) }, submission);
        return { takenOver: await within(brought, from, run) };
      }
      if (submit === undefined) throw new InvalidArgumentError('BAD_FIELD', 'submit: is missing');
      needHere(submit.hub);
      return {
        submitted: await within(submit, from, () => submitHere(returned(submit), submission)),
      };
    },

    async fedHubLog({ log }) {
      if (log === undefined) throw new InvalidArgumentError('BAD_FIELD', 'log: is missing');
      needHere(log.hub);
      return { found: await logHere(log) };
    },

    fedHubReplicate: (request, context) => hubSet.replicate(peerOf(context), request),
    fedHubPromise: (request, context) => hubSet.promise(peerOf(context), request),
    fedHubInstall: (request, context) => hubSet.install(peerOf(context), request),
  };

  /** One hop only. */
  function needHere(hub: string): void {
    if (!isHere(hub)) throw new InvalidArgumentError('BAD_FIELD', 'hub: is another node');
  }

  function needOfGroup({ group, submit }: GroupTakeoverRequest): void {
    if (submit === undefined) return;
    const { parsed } = offers.submitted(submit);
    if (Buffer.compare(parsed.entry.group, group) === 0) return;
    throw new InvalidArgumentError('BAD_FIELD', 'submit: of another group');
  }
}

function certifiedIn(control: Uint8Array): { readonly entry?: CertifiedEntry } {
  const { entry } = fromBinary(GroupControlSchema, control);
  return entry === undefined ? {} : { entry };
}
