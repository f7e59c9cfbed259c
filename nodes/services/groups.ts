/**
 * Group logs: CreateGroup, SubmitCommit and GroupLog, at this node as the hub or passed on to the hub
 * elsewhere, and what other nodes pass on to this one (FedHubSubmit, FedHubLog). The certificate is
 * signed before the store decides and leaves this file only when it was accepted.
 */
import {
  FailedPreconditionError,
  groupLogLimits,
  InvalidArgumentError,
  maxTtlS,
  parseEntry,
  PermissionDeniedError,
  ResourceExhaustedError,
  signCertificate,
  type CallContext,
  type Handlers,
  type SigningKey,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  fromBinary,
  GroupControlSchema,
  type CertifiedEntry,
  type CommitTarget,
  type GroupLogRequest,
  type GroupLogResponseSchema,
  type MessageInitShape,
  type SignedGroupEntry,
  type SubmitCommitRequest,
  type SubmitCommitResponseSchema,
} from '@quicprochat/proto/messages';
import type { GroupLogResponse, SubmitCommitResponse } from '@quicprochat/proto/messages';
import { senderKey, type SendQuota } from '../send-quota.ts';
import type { GroupTarget, OfferedCommit, OfferedEntry } from '../store/group-store.ts';
import type { NodeStore } from '../store/store.ts';
import { deviceOf } from './caller.ts';

/** A hub of its own accepts in the first term; others follow with takeovers. */
const firstTerm = 0;

export interface GroupParts {
  readonly domain: string;
  readonly store: NodeStore;
  /** A signing key of the node's record. */
  readonly signing: SigningKey;
  /** Of devices. */
  readonly quota: SendQuota;
  readonly federation: {
    /** True for a domain that this node relays to. */
    knows(domain: string): boolean;
    /** The outbox of a peer got rows. */
    notify(domain: string): void;
    readonly hubs: {
      submit(
        domain: string,
        request: SubmitCommitRequest,
        signal?: AbortSignal,
      ): Promise<SubmitCommitResponse>;
      log(
        domain: string,
        request: GroupLogRequest,
        signal?: AbortSignal,
      ): Promise<GroupLogResponse>;
    };
  };
}

export function groupHandlers(
  parts: GroupParts,
): Pick<Handlers, 'createGroup' | 'submitCommit' | 'groupLog' | 'fedHubSubmit' | 'fedHubLog'> {
  const { domain: own, store, signing, federation } = parts;

  /** With the certificate that becomes true when the store accepts the entry. */
  function offer(entry: SignedGroupEntry | undefined): OfferedEntry {
    const parsed = parseEntry(entry);
    const signatures = [signCertificate(parsed.hash, firstTerm, { domain: own, signing })];
    const fields = { term: BigInt(firstTerm), signatures, ...(entry && { entry }) };
    return { parsed, certified: create(CertifiedEntrySchema, fields) };
  }

  function targetOf({ rid, domain, token }: CommitTarget): GroupTarget {
    return domain === own ? { rid, token } : { rid, token, peer: needPeer(domain) };
  }

  function needPeer(domain: string): string {
    if (federation.knows(domain)) return domain;
    throw new PermissionDeniedError('PEER_DENIED', `${domain} is no peer of this node`);
  }

  function offeredCommit(request: SubmitCommitRequest, sender?: Uint8Array): OfferedCommit {
    const { channel, commit, mid, groupInfo } = request;
    const others = (channel?.domains ?? []).filter((domain) => domain !== own);
    return {
      ...offer(request.entry),
      ...{ commit, mid, groupInfo },
      ttlMs: maxTtlS * 1000,
      domain: own,
      targets: request.targets.map(targetOf),
      welcomes: request.welcomes.map(({ target, mid: welcomeMid, welcome }) => {
        if (target === undefined) throw new InvalidArgumentError('BAD_FIELD', 'welcomes: target');
        return { target: targetOf(target), mid: welcomeMid, welcome };
      }),
      updates: request.updates.map(({ domain, update: payload }) =>
        domain === own ? { payload } : { payload, peer: needPeer(domain) },
      ),
      ...(channel && {
        channel: {
          cid: channel.cid,
          epoch: Number(channel.epoch),
          signature: channel.signature,
          peers: others.filter((domain) => federation.knows(domain)),
          denied: others.filter((domain) => !federation.knows(domain)),
        },
      }),
      ...(sender && { sender }),
    };
  }

  async function submitHere(
    request: SubmitCommitRequest,
    sender?: Uint8Array,
  ): Promise<MessageInitShape<typeof SubmitCommitResponseSchema>> {
    const offered = offeredCommit(request, sender);
    const { control } = await store.submitCommit(offered);
    const peers = [
      ...offered.targets.map(({ peer }) => peer),
      ...offered.welcomes.map(({ target }) => target.peer),
      ...offered.updates.map(({ peer }) => peer),
      ...(offered.channel?.peers ?? []),
    ];
    for (const peer of new Set(peers)) if (peer !== undefined) federation.notify(peer);
    return certifiedIn(control);
  }

  async function logHere(
    request: GroupLogRequest,
  ): Promise<MessageInitShape<typeof GroupLogResponseSchema>> {
    const { group, after, maxEntries, withGroupInfo } = request;
    const page = await store.groupLog(group, after, maxEntries || groupLogLimits.pageEntries);
    const info = withGroupInfo ? await store.groupInfo(group) : undefined;
    return {
      entries: page.controls.map((control) => fromBinary(GroupControlSchema, control)),
      hasMore: page.hasMore,
      ...(info && { groupInfo: info.bytes, groupInfoEntry: info.entry }),
    };
  }

  /** A commit reaches others as messages do, and costs its sender as much. */
  function pay(request: SubmitCommitRequest, { caller, connection }: CallContext): void {
    const key = senderKey(caller, connection);
    const { commit, groupInfo, targets, welcomes } = request;
    const bytes = welcomes.reduce((sum, { welcome }) => sum + welcome.length, commit.length);
    parts.quota.take(key, welcomes.length, bytes + groupInfo.length);
    for (const target of [...targets, ...welcomes.map((one) => one.target)]) {
      const retryAfterMs = target === undefined ? 0 : parts.quota.recipient(key, target.rid);
      if (retryAfterMs === 0) continue;
      throw new ResourceExhaustedError('QUOTA', 'too many recipients in an hour', { retryAfterMs });
    }
  }

  const isHere = (hub: string): boolean => hub === '' || hub === own;

  return {
    async createGroup(request, context) {
      const { identityPub: creator } = deviceOf(context);
      const { hubs } = request;
      if (hubs.length !== 1) {
        throw new FailedPreconditionError('FEATURE_OFF', 'this node keeps groups of one hub only');
      }
      if (!hubs.includes(own)) {
        throw new PermissionDeniedError('PEER_DENIED', 'this node is no hub of the group');
      }
      const made = await store.createGroup({ ...offer(request.entry), hubs, creator });
      return { ...certifiedIn(made.control), wasNew: made.isNew };
    },

    async submitCommit(request, context) {
      const { identityPub } = deviceOf(context);
      pay(request, context);
      return isHere(request.hub)
        ? submitHere(request, identityPub)
        : federation.hubs.submit(request.hub, request, context.signal);
    },

    async groupLog(request, context) {
      return isHere(request.hub)
        ? logHere(request)
        : federation.hubs.log(request.hub, request, context.signal);
    },

    async fedHubSubmit({ submit }) {
      if (submit === undefined) throw new InvalidArgumentError('BAD_FIELD', 'submit: is missing');
      needHere(submit.hub);
      return { submitted: await submitHere(submit) };
    },

    async fedHubLog({ log }) {
      if (log === undefined) throw new InvalidArgumentError('BAD_FIELD', 'log: is missing');
      needHere(log.hub);
      return { found: await logHere(log) };
    },
  };

  /** One hop only. */
  function needHere(hub: string): void {
    if (!isHere(hub)) throw new InvalidArgumentError('BAD_FIELD', 'hub: is another node');
  }
}

function certifiedIn(control: Uint8Array): { readonly entry?: CertifiedEntry } {
  const { entry } = fromBinary(GroupControlSchema, control);
  return entry === undefined ? {} : { entry };
}
