/**
 * Delivery Service, the sending half: Enqueue. OK means: on this node's disk, in the recipient's
 * inbox or in the outbox towards the recipient's node; the answer carries the node's signature that
 * it is (proto/delivery-proof.ts). Payloads are opaque.
 */
import {
  maxTtlS,
  PermissionDeniedError,
  RowKind,
  signDeliveryProof,
  type Handlers,
  type SigningKey,
  type StoredTarget,
} from '@quicprochat/proto';
import {
  Outcome,
  type EnqueueResponseSchema,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import type { Enqueued, NodeStore } from '../store/store.ts';
import { deviceOf } from './caller.ts';

export interface EnqueueParts {
  readonly domain: string;
  readonly store: NodeStore;
  /** A signing key of the node's record. */
  readonly signing: SigningKey;
  readonly federation: {
    /** True for a domain that this node relays to. */
    knows(domain: string): boolean;
    /** The outbox of a peer got rows. */
    notify(domain: string): void;
  };
}

export function enqueueHandlers(parts: EnqueueParts): Pick<Handlers, 'enqueue'> {
  const { store, signing, federation } = parts;

  return {
    async enqueue(request, context) {
      const { identityPub: sender } = deviceOf(context);
      const { rid, domain, mid, payload } = request;
      const ttlMs = (request.ttlS === 0 ? maxTtlS : request.ttlS) * 1000;
      const row = { rid, kind: RowKind.Envelope, mid, payload, ttlMs, sender };
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
  };
}

/** Signed only here, behind the commit: about 30 us on the node's thread, none of them under a lock. */
function answerOf(
  { outcome, tag, receivedMs }: Enqueued,
  mid: Uint8Array,
  target: StoredTarget,
  signing: SigningKey,
): MessageInitShape<typeof EnqueueResponseSchema> {
  return {
    outcome: outcome === 'stored' ? Outcome.STORED : Outcome.DUPLICATE,
    tag,
    receivedMs: BigInt(receivedMs),
    proof: signDeliveryProof({ mid, tag, target, receivedMs }, signing),
  };
}
