/**
 * Whether the signatures hold by which nodes say that they have a message (docs/protocol/delivery.md, "Delivery
 * proof"), looked at where their answers arrive, also those that get lost afterwards: each OK is signed by the node
 * that gave it and says just what was asked, the node had it on its disk by then, and says the same time of a repeat.
 */
import {
  hex,
  messageTag,
  methodById,
  verifyDeliveryProof,
  type RequestFrame,
  type ResponseFrame,
  type StoredTarget,
} from '@quicprochat/proto';
import {
  BatchEnqueueRequestSchema,
  BatchEnqueueResponseSchema,
  EnqueueRequestSchema,
  EnqueueResponseSchema,
  fromBinary,
  Outcome,
} from '@quicprochat/proto/messages';
import type { Violation } from '../checkers/index.ts';

export interface ProofWatchParts {
  /** The signing key (32 bytes) of a node. */
  readonly signKeyOf: (domain: string) => Uint8Array | undefined;
  /** Whether the node's transaction with this copy for a device or a channel was over when it answered. */
  readonly wasSaid: (domain: string, place: Uint8Array, tag: Uint8Array) => boolean;
  /**
   * Nodes go on with older disks, or what they took comes back from full inboxes and is taken anew, with an answer
   * that maybe nobody saw: then a repeat may say another time.
   */
  readonly mayForget: boolean;
}

interface Answer {
  readonly outcome: Outcome;
  readonly receivedMs: bigint;
  readonly proof: Uint8Array;
}

/** An OK to one copy. */
export interface GivenOk {
  /** The device or the channel. */
  readonly place: Uint8Array;
  readonly tag: Uint8Array;
  readonly isDuplicate: boolean;
}

export class ProofWatch {
  readonly violations: Violation[] = [];
  /** OKs that were looked at. */
  checked = 0;
  readonly #parts: ProofWatchParts;
  readonly #firstMs = new Map<string, bigint>();

  constructor(parts: ProofWatchParts) {
    this.#parts = parts;
  }

  /** The node of `domain` answered a client. Returns the OKs that the answer holds, in their order. */
  answered(
    domain: string,
    { methodId, payload }: RequestFrame,
    response: ResponseFrame,
  ): readonly GivenOk[] {
    if (response.status !== 0) return [];
    const name = methodById(methodId)?.name;
    if (name === 'enqueue') {
      const request = fromBinary(EnqueueRequestSchema, payload);
      const { channel, rid, mid } = request;
      const target = channel === undefined ? { rid, domain: request.domain } : { cid: channel.cid };
      const answer = fromBinary(EnqueueResponseSchema, response.payload);
      return [this.#look(domain, target, mid, request.payload, answer)];
    }
    const given: GivenOk[] = [];
    if (name === 'batchEnqueue') {
      const { payloads, targets } = fromBinary(BatchEnqueueRequestSchema, payload);
      const { statuses } = fromBinary(BatchEnqueueResponseSchema, response.payload);
      for (const [index, { rid, domain: home, payload: of }] of targets.entries()) {
        const [sealed, status] = [payloads[of], statuses[index]];
        if (sealed === undefined || status === undefined) {
          this.#find(`${domain}: ${statuses.length} answers for ${targets.length} targets`);
        } else if (status.outcome !== Outcome.UNSPECIFIED) {
          const target = { rid, domain: home };
          given.push(this.#look(domain, target, sealed.mid, sealed.payload, status));
        }
      }
    }
    return given;
  }

  #look(
    domain: string,
    target: StoredTarget,
    mid: Uint8Array,
    payload: Uint8Array,
    { outcome, receivedMs, proof }: Answer,
  ): GivenOk {
    const { signKeyOf, wasSaid, mayForget } = this.#parts;
    this.checked += 1;
    const tag = messageTag(mid, payload);
    const place = 'cid' in target ? target.cid : target.rid;
    const what = `${domain} on ${hex(place).slice(0, 8)} ${hex(tag).slice(0, 8)}`;
    const key = signKeyOf(domain);
    const statement = { mid, tag, target, receivedMs: Number(receivedMs) };
    if (key === undefined || !verifyDeliveryProof(statement, proof, [key])) {
      this.#find(`${what}: an OK (${outcome}) that is not signed`);
    }
    if (!wasSaid(domain, place, tag)) {
      this.#find(`${what}: signed before its transaction was over`);
    }
    const name = `${domain} ${hex(place)} ${hex(tag)}`;
    const known = outcome === Outcome.STORED ? undefined : this.#firstMs.get(name);
    const firstMs = known ?? receivedMs;
    this.#firstMs.set(name, firstMs);
    if (firstMs !== receivedMs && !mayForget) {
      this.#find(`${what}: signed for two times, ${firstMs} and ${receivedMs}`);
    }
    return { place, tag, isDuplicate: outcome !== Outcome.STORED };
  }

  #find(text: string): void {
    this.violations.push({ checker: 'proofs', text });
  }
}
