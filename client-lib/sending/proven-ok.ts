/**
 * Whether a node's OK to a copy is one (docs/protocol/delivery.md, "Delivery proofs"): without the node's
 * signature the copy stays where it is, and the application is told once.
 */
import { messageTag } from '@quicprochat/proto';
import type { DeliveryProofs } from './delivery-proofs.ts';
import type { EventBus } from '../events.ts';
import type { SealedReceipt } from './sealed-sender.ts';
import type { OutboxEntry } from '../store/outbox-copies.ts';

export class ProvenOk {
  readonly #proofs: Pick<DeliveryProofs, 'isProven'>;
  readonly #events: EventBus;
  /** Rows whose OK was not signed, and of which that was told. */
  readonly #unproven = new Set<number>();

  constructor(proofs: Pick<DeliveryProofs, 'isProven'>, events: EventBus) {
    this.#proofs = proofs;
    this.#events = events;
  }

  /** `by` is the domain that has to have signed. Throws what a look-up of its record throws. */
  async check(
    entry: OutboxEntry,
    { proof, receivedMs, caller }: SealedReceipt,
    by: string,
  ): Promise<boolean> {
    const { rid, mid, payload, messageId } = entry;
    const isSafe = receivedMs <= BigInt(Number.MAX_SAFE_INTEGER);
    const target = entry.post === undefined ? { rid, domain: entry.domain } : { cid: rid };
    const tag = messageTag(mid, payload);
    const statement = { mid, tag, target, receivedMs: isSafe ? Number(receivedMs) : 0 };
    if (isSafe && (await this.#proofs.isProven(by, statement, proof, caller))) {
      this.forget(entry.id);
      return true;
    }
    if (!this.#unproven.has(entry.id)) {
      this.#unproven.add(entry.id);
      const reason = proof.length === 0 ? 'NO_PROOF' : 'BAD_PROOF';
      this.#events.emit({ type: 'unproven', messageId, rid, reason });
    }
    return false;
  }

  forget(id: number): void {
    this.#unproven.delete(id);
  }
}
