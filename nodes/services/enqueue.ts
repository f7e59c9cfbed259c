/**
 * Delivery Service, the sending half: Enqueue and BatchEnqueue. OK means: on this node's disk, in
 * the recipient's inbox or in the outbox towards the recipient's node; the answer carries the node's
 * signature that it is (proto/delivery-proof.ts). Payloads are opaque.
 */
import {
  InvalidArgumentError,
  maxTtlS,
  QpcError,
  RowKind,
  signDeliveryProof,
  Status,
  type CallContext,
  type Clock,
  type Handlers,
  type Reason,
  type SigningKey,
  type StoredTarget,
} from '@quicprochat/proto';
import {
  Outcome,
  type BatchTarget,
  type EnqueueRequest,
  type MessageInitShape,
  type TargetStatusSchema,
} from '@quicprochat/proto/messages';
import { laneOfKind, type LaneName } from '@quicprochat/federation';
import type { Enqueued, TargetOutcome } from '../store/message-store.ts';
import type { NodeStore } from '../store/store.ts';
import { senderKey, type SendQuota } from '../send-quota.ts';
import type { ChannelPosts } from './channels.ts';

const envelopeLane = laneOfKind(RowKind.Envelope);

export interface EnqueueParts {
  readonly domain: string;
  readonly clock: Clock;
  readonly store: NodeStore;
  /** A signing key of the node's record. */
  readonly signing: SigningKey;
  readonly channels: ChannelPosts;
  /** Of devices, and of callers that nobody knows. */
  readonly quota: SendQuota;
  readonly anonymousQuota: SendQuota;
  readonly federation: {
    /** True for a domain that this node relays to. */
    knows(domain: string): boolean;
    /** The outbox of a peer got rows, in this lane. */
    notify(domain: string, rowsIn?: LaneName): void;
  };
}

export function enqueueHandlers(parts: EnqueueParts): Pick<Handlers, 'enqueue' | 'batchEnqueue'> {
  const { store, signing, federation } = parts;

  /** Why a target is not even asked for at the store. */
  function refusalOf(sender: Sender, { rid, domain }: Target): Refusal | undefined {
    if (domain !== parts.domain) {
      // To other nodes their senders speak themselves: this one would learn who writes to whom.
      if (sender.device === undefined) return { ...anonymousRemote };
      if (!federation.knows(domain)) return { ...peerDenied };
    }
    const retryAfterMs = sender.quota.recipient(sender.key, rid);
    return retryAfterMs === 0 ? undefined : { ...quotaUsed, retryAfterMs };
  }

  /** One answer for each target; the turns between keep 2 048 signatures from holding up the node. */
  async function statusesOf(
    outcomes: readonly TargetOutcome[],
    targets: readonly (BatchTarget & { readonly mid: Uint8Array })[],
  ): Promise<MessageInitShape<typeof TargetStatusSchema>[]> {
    const statuses: MessageInitShape<typeof TargetStatusSchema>[] = [];
    for (const [index, outcome] of outcomes.entries()) {
      if (index % signaturesPerTurn === signaturesPerTurn - 1) await parts.clock.sleep(0);
      const target = targets[index];
      if (target === undefined) throw new RangeError(`outcome ${index} of no target`);
      statuses.push(statusOf(outcome, target, signing));
    }
    return statuses;
  }

  /** Who pays for a call, and who is told of losses: nobody, of an anonymous one. */
  function senderOf({ caller, connection }: CallContext): Sender {
    const key = senderKey(caller, connection);
    return caller.class === 'device'
      ? { key, quota: parts.quota, device: caller.identityPub }
      : { key, quota: parts.anonymousQuota, device: undefined };
  }

  return {
    async enqueue(request, context) {
      const sender = senderOf(context);
      const { rid, domain, mid, payload, token, channel } = request;
      const ttlMs = ttlOf(request);
      needOneTarget(request);
      sender.quota.take(sender.key, 0, payload.length);
      if (channel !== undefined) {
        // The write key speaks for the sender, whoever that is.
        const message = { mid, payload, ttlMs, sender: sender.device };
        const posted = await parts.channels.post(channel, message);
        return answerOf(posted, mid, { cid: channel.cid }, signing);
      }
      const refused = refusalOf(sender, request);
      if (refused !== undefined) throw errorOf(refused);
      const row = { kind: RowKind.Envelope, ttlMs, ...senderField(sender) };
      if (sender.device === undefined) {
        const [outcome] = await store.enqueueBatch({
          payloads: [{ mid, payload }],
          targets: [{ payload: 0, rid, token }],
          needsTokens: true,
          ...row,
        });
        if (outcome === undefined) throw new RangeError('no outcome of a target');
        if (outcome.outcome === 'refused') throw errorOf(outcome);
        return answerOf(outcome, mid, { rid, domain }, signing);
      }
      if (domain === parts.domain) {
        const enqueued = await store.enqueue({ rid, mid, payload, token, ...row });
        return answerOf(enqueued, mid, { rid, domain }, signing);
      }
      const enqueued = await store.enqueueRemote(domain, { rid, mid, payload, token, ...row });
      federation.notify(domain, envelopeLane);
      return answerOf(enqueued, mid, { rid, domain }, signing);
    },

    async batchEnqueue(request, context) {
      const sender = senderOf(context);
      const { payloads } = request;
      const targets = request.targets.map((target, index) => {
        const payload = payloads[target.payload];
        if (payload !== undefined) return { ...target, mid: payload.mid };
        throw new InvalidArgumentError(
          'BAD_FIELD',
          `targets: item ${index}: payload ${target.payload} of ${payloads.length}`,
        );
      });
      const bytes = payloads.reduce((sum, { payload }) => sum + payload.length, 0);
      sender.quota.take(sender.key, payloads.length - 1, bytes);
      const refusals = targets.map((target) => refusalOf(sender, target));
      const taken = targets.filter((_, index) => refusals[index] === undefined);
      const outcomes = await store.enqueueBatch({
        payloads: payloads.map(({ mid, payload }) => ({ mid, payload })),
        targets: taken.map(({ payload, rid, domain, token }) => ({
          ...{ payload, rid, token },
          ...(domain === parts.domain ? {} : { peer: domain }),
        })),
        kind: RowKind.Envelope,
        ttlMs: ttlOf(request),
        needsTokens: sender.device === undefined,
        ...senderField(sender),
      });
      for (const domain of new Set(taken.map((target) => target.domain))) {
        if (domain !== parts.domain) federation.notify(domain, envelopeLane);
      }
      const statuses = (await statusesOf(outcomes, taken)).values();
      return {
        statuses: targets.map((target, index) => {
          const refused = refusals[index];
          if (refused !== undefined) return statusOf(refused, target, signing);
          const { value } = statuses.next();
          if (value === undefined) throw new RangeError('no outcome of a target');
          return value;
        }),
      };
    },
  };
}

type Target = Pick<BatchTarget, 'rid' | 'domain'>;
type Refusal = Extract<TargetOutcome, { outcome: 'refused' }>;

interface Sender {
  readonly key: string;
  readonly quota: SendQuota;
  /** Undefined: nobody knows who it is. */
  readonly device: Uint8Array | undefined;
}

function senderField({ device }: Sender): { readonly sender?: Uint8Array } {
  return device === undefined ? {} : { sender: device };
}

function ttlOf({ ttlS }: { readonly ttlS: number }): number {
  return (ttlS === 0 ? maxTtlS : ttlS) * 1000;
}

const peerDenied = {
  outcome: 'refused',
  status: Status.PermissionDenied,
  reason: 'PEER_DENIED',
} as const;
const anonymousRemote = {
  outcome: 'refused',
  status: Status.PermissionDenied,
  reason: 'CALLER_CLASS',
} as const;
const quotaUsed = {
  outcome: 'refused',
  status: Status.ResourceExhausted,
  reason: 'QUOTA',
} as const;

const words: Partial<Record<Reason, string>> = {
  PEER_DENIED: 'that domain is no peer of this node',
  CALLER_CLASS: 'without login only devices of this node can be written to',
  BLOCKED: 'without login every target needs a valid delivery token',
  QUOTA: 'too many recipients in an hour',
};

function errorOf({ status, reason, retryAfterMs }: Refusal): QpcError {
  const message = words[reason] ?? 'refused';
  return new QpcError(status, reason, message, retryAfterMs === undefined ? {} : { retryAfterMs });
}

/** A device with its domain, or a channel. */
function needOneTarget({ rid, domain, token, channel }: EnqueueRequest): void {
  const isForDevice = rid.length > 0 && domain !== '';
  const isForChannel = rid.length === 0 && domain === '' && token.length === 0;
  if (channel === undefined ? isForDevice : isForChannel) return;
  throw new InvalidArgumentError('BAD_FIELD', 'need rid and domain, or a channel alone');
}

/** What an OK says, of one message or of many. */
interface Stored {
  readonly outcome: Outcome;
  readonly receivedMs: bigint;
  readonly proof: Uint8Array;
}

/** About 4 ms. */
const signaturesPerTurn = 128;

function statusOf(
  outcome: TargetOutcome,
  { mid, rid, domain }: BatchTarget & { readonly mid: Uint8Array },
  signing: SigningKey,
): MessageInitShape<typeof TargetStatusSchema> {
  if (outcome.outcome === 'refused') {
    const { status, reason, retryAfterMs = 0 } = outcome;
    return { status, reason, retryAfterMs: BigInt(retryAfterMs) };
  }
  const { tag: _tag, ...answer } = answerOf(outcome, mid, { rid, domain }, signing);
  return answer;
}

/** Signed only here, behind the commit: about 30 us on the node's thread, none of them under a lock. */
function answerOf(
  { outcome, tag, receivedMs }: Enqueued,
  mid: Uint8Array,
  target: StoredTarget,
  signing: SigningKey,
): Stored & { readonly tag: Uint8Array } {
  return {
    outcome: outcome === 'stored' ? Outcome.STORED : Outcome.DUPLICATE,
    tag,
    receivedMs: BigInt(receivedMs),
    proof: signDeliveryProof({ mid, tag, target, receivedMs }, signing),
  };
}
