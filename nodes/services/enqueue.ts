/**
 * Delivery Service, the sending half: Enqueue and BatchEnqueue. OK means: on this node's disk, in
 * the recipient's inbox or in the outbox towards the recipient's node; the answer carries the node's
 * signature that it is (proto/delivery-proof.ts). Payloads are opaque.
 */
import {
  InvalidArgumentError,
  maxTtlS,
  PermissionDeniedError,
  RowKind,
  signDeliveryProof,
  Status,
  type Clock,
  type Handlers,
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
import type { Enqueued, NodeStore, TargetOutcome } from '../store/store.ts';
import { deviceOf } from './caller.ts';
import type { ChannelPosts } from './channels.ts';

export interface EnqueueParts {
  readonly domain: string;
  readonly clock: Clock;
  readonly store: NodeStore;
  /** A signing key of the node's record. */
  readonly signing: SigningKey;
  readonly channels: ChannelPosts;
  readonly federation: {
    /** True for a domain that this node relays to. */
    knows(domain: string): boolean;
    /** The outbox of a peer got rows. */
    notify(domain: string): void;
  };
}

export function enqueueHandlers(parts: EnqueueParts): Pick<Handlers, 'enqueue' | 'batchEnqueue'> {
  const { store, signing, federation } = parts;

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

  return {
    async enqueue(request, context) {
      const { identityPub: sender } = deviceOf(context);
      const { rid, domain, mid, payload, token, channel } = request;
      const ttlMs = (request.ttlS === 0 ? maxTtlS : request.ttlS) * 1000;
      needOneTarget(request);
      if (channel !== undefined) {
        const posted = await parts.channels.post(channel, { mid, payload, ttlMs, sender });
        return answerOf(posted, mid, { cid: channel.cid }, signing);
      }
      const row = { rid, kind: RowKind.Envelope, mid, payload, ttlMs, sender, token };
      if (domain === parts.domain) {
        return answerOf(await store.enqueue(row), mid, { rid, domain }, signing);
      }
      if (!federation.knows(domain)) {
        throw new PermissionDeniedError('PEER_DENIED', `${domain} is no peer of this node`);
      }
      const enqueued = await store.enqueueRemote(domain, row);
      federation.notify(domain);
      return answerOf(enqueued, mid, { rid, domain }, signing);
    },

    async batchEnqueue(request, context) {
      const { identityPub: sender } = deviceOf(context);
      const { payloads } = request;
      const targets = request.targets.map((target, index) => {
        const payload = payloads[target.payload];
        if (payload !== undefined) return { ...target, mid: payload.mid };
        throw new InvalidArgumentError(
          'BAD_FIELD',
          `targets: item ${index}: payload ${target.payload} of ${payloads.length}`,
        );
      });
      const isKnown = ({ domain }: BatchTarget): boolean =>
        domain === parts.domain || federation.knows(domain);
      const taken = targets.filter(isKnown);
      const outcomes = await store.enqueueBatch({
        payloads: payloads.map(({ mid, payload }) => ({ mid, payload })),
        targets: taken.map(({ payload, rid, domain, token }) => ({
          ...{ payload, rid, token },
          ...(domain === parts.domain ? {} : { peer: domain }),
        })),
        kind: RowKind.Envelope,
        ttlMs: (request.ttlS === 0 ? maxTtlS : request.ttlS) * 1000,
        sender,
      });
      for (const domain of new Set(taken.map((target) => target.domain))) {
        if (domain !== parts.domain) federation.notify(domain);
      }
      const statuses = (await statusesOf(outcomes, taken)).values();
      return {
        statuses: targets.map((target) =>
          isKnown(target) ? (statuses.next().value ?? peerDenied) : peerDenied,
        ),
      };
    },
  };
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

const peerDenied = { status: Status.PermissionDenied, reason: 'PEER_DENIED' } as const;

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
