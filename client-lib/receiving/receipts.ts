/**
 * Receipts (docs/protocol/delivery.md, "End-to-end re-send"): what is due stands in the store since the
 * transaction that took the message in, and leaves it in the one that seals the receipt; at most one
 * second of it together. A receipt is a content like any other, but has no number, is not shown and
 * is not receipted itself.
 */
import { QpcError, hex } from '@quicprochat/proto';
import { contentLimits, encodeReceipt, type ReceiptMessage } from '../content.ts';
import type { ClientEvent } from '../events.ts';
import type { Identity, MlsGroup } from '../mls/index.ts';
import { mayCome, withPrekeys } from '../account/prekeys.ts';
import { recipientsOf, sealContent, type Sealed } from '../sending/sealing.ts';
import { sendUncounted } from '../sending/uncounted.ts';
import type { DueReceipt } from '../store/receipt-rows.ts';
import type { ConversationRecord } from '../store/group-rows.ts';
import type { ReceiptKind } from '../store/outbox-copies.ts';
import type { ClientStore } from '../store/store.ts';
import type { Batch } from '../writer.ts';
import type { SendingParts } from '../sending/sending-parts.ts';

export const receiptLimits = {
  /** Devices of a group, beyond which nobody sends receipts: each would go to all the others. */
  devices: 32,
  /** Receipts of one conversation wait this long for company (ms). */
  delayMs: 1_000,
  /** After a failure, such as a prekey that cannot be fetched (ms). */
  retryMs: 60_000,
  /** A message that comes again is receipted again, but not more often than this (ms). */
  repeatMs: 3600 * 1000,
} as const;

export class Receipts {
  readonly #parts: SendingParts;
  /** Conversations with a timer, by id in hex. */
  readonly #timed = new Set<string>();
  readonly #sealing = new Map<string, Promise<void>>();
  #isStopped = false;

  constructor(parts: SendingParts) {
    this.#parts = parts;
  }

  /** What the last run left over goes on. */
  start(): void {
    for (const id of this.#parts.store.receipts.conversations()) this.wake(id);
  }

  /** A conversation has due receipts: they leave soon, together. */
  wake(conversationId: Uint8Array, delayMs: number = receiptLimits.delayMs): void {
    const key = hex(conversationId);
    if (this.#isStopped || this.#timed.has(key)) return;
    this.#timed.add(key);
    this.#parts.runtime.clock.timer(delayMs, () => {
      this.#timed.delete(key);
      if (!this.#isStopped) void this.#sealSoon(conversationId);
    });
  }

  /** People saw these messages (row ids of received ones), and their senders may know. */
  addRead(messageIds: readonly number[]): void {
    const { store } = this.#parts;
    store.transaction(() => {
      for (const id of messageIds) store.receipts.addDue(id, 'READ');
    });
    this.start();
  }

  /** Seals everything that is due. Durable on return, except what cannot be sealed now. */
  async flush(): Promise<void> {
    const { receipts } = this.#parts.store;
    await Promise.all(receipts.conversations().map((id) => this.#sealSoon(id)));
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#sealing.values());
  }

  /** One at a time per conversation: two would seal the same receipts. Never fails. */
  #sealSoon(conversationId: Uint8Array): Promise<void> {
    const key = hex(conversationId);
    const before = this.#sealing.get(key) ?? Promise.resolve();
    const sealing = before
      .then(() => this.#seal(conversationId))
      .catch((error: unknown) => {
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        this.#parts.runtime.log.info('receipts wait', { reason, error: String(error) });
        this.wake(conversationId, receiptLimits.retryMs);
      })
      .finally(() => {
        if (this.#sealing.get(key) === sealing) this.#sealing.delete(key);
      });
    this.#sealing.set(key, sealing);
    return sealing;
  }

  async #seal(conversationId: Uint8Array): Promise<void> {
    const { writer } = this.#parts;
    // Who cannot be reached goes without, rather than that nobody is told.
    const isMore = await withPrekeys(
      this.#parts,
      (fetched) => writer.run((batch) => this.#sealDue(batch, conversationId, mayCome(fetched))),
      { isFrequent: true },
    );
    if (isMore) this.wake(conversationId);
  }

  /** True when more is due than fits into one receipt. */
  async #sealDue(batch: Batch, conversationId: Uint8Array, mayFetch: boolean): Promise<boolean> {
    const { store, contacts } = this.#parts;
    const due = store.receipts.due(conversationId, contentLimits.receiptIds);
    const conversation = store.groups.conversation(conversationId);
    const group = conversation === undefined ? undefined : batch.group(conversation.groupId);
    if (due.length === 0 || conversation === undefined) return false;
    const recipients = group === undefined ? [] : recipientsOf(group);
    const isOver =
      group === undefined ||
      !group.isActive ||
      conversation.staleMs !== undefined ||
      recipients.length === 0 ||
      recipients.length >= receiptLimits.devices ||
      // Copies of a post are not told apart by device.
      group.info.channelNonce !== undefined;
    if (isOver) {
      batch.write(() => store.receipts.drop(conversationId));
      return false;
    }
    contacts.requireUnblocked(recipients.map(({ userId }) => userId));
    const sealed = await this.#sealEach(group, conversation, due, mayFetch);
    sendUncounted(this.#parts, batch, group.groupId, sealed, () =>
      store.receipts.sealed(due, batch.nowMs),
    );
    return due.length === contentLimits.receiptIds;
  }

  /** One receipt for each kind that is due; read says delivered too. */
  async #sealEach(
    group: MlsGroup,
    { lamport }: ConversationRecord,
    due: readonly DueReceipt[],
    mayFetch: boolean,
  ): Promise<readonly Sealed[]> {
    const { store, mls, contacts, runtime } = this.#parts;
    const { random, clock } = runtime;
    const read = new Set(due.filter(({ kind }) => kind === 'READ').map((one) => one.messageId));
    const idsOf = (wanted: ReceiptKind): Uint8Array[] =>
      due
        .filter(
          ({ kind, messageId }) => kind === wanted && (kind === 'READ' || !read.has(messageId)),
        )
        .map(({ innerId }) => innerId);
    const sealed: Sealed[] = [];
    for (const kind of ['DELIVERED', 'READ'] as const) {
      const ids = idsOf(kind);
      if (ids.length === 0) continue;
      const innerId = random.bytes(contentLimits.innerIdBytes);
      const plaintext = encodeReceipt({ innerId, lamport, sentMs: clock.now(), kind, ids });
      const from = sealed.at(-1)?.next ?? group;
      const recipients = recipientsOf(group);
      sealed.push(
        await sealContent({ store, mls, contacts, random }, from, plaintext, recipients, mayFetch),
      );
    }
    return sealed;
  }
}

/**
 * Takes a receipt in, as part of the transaction: copies for that device are DELIVERED or READ, and
 * so is the message once a device of every other member said so. Returns what is to be told then.
 */
export function takeReceipt(
  store: ClientStore,
  own: Identity,
  { kind, ids }: ReceiptMessage,
  from: { readonly conversationId: Uint8Array; readonly rid: Uint8Array; readonly nowMs: number },
): readonly ClientEvent[] {
  const events: ClientEvent[] = [];
  for (const innerId of ids) {
    const messageId = store.messages.idOf(from.conversationId, own.deviceId, innerId);
    if (messageId === undefined || !store.outbox.confirm(messageId, from.rid, kind)) continue;
    for (const what of ['READ', 'DELIVERED'] as const) {
      if (what === 'READ' && kind !== 'READ') continue;
      if (!isComplete(store, own.userId, messageId, what)) continue;
      if (!store.receipts.markComplete(messageId, what, from.nowMs)) break;
      events.push({ type: what === 'READ' ? 'read' : 'delivered', messageId });
      break;
    }
  }
  return events;
}

/**
 * After a copy of a message arrived: whether a device of every other member has it now, which is written
 * down then. True if that was news.
 */
export function completed(
  store: ClientStore,
  ownUserId: string,
  messageId: number,
  nowMs: number,
): boolean {
  return (
    isComplete(store, ownUserId, messageId, 'DELIVERED') &&
    store.receipts.markComplete(messageId, 'DELIVERED', nowMs)
  );
}

function isComplete(
  store: ClientStore,
  ownUserId: string,
  messageId: number,
  what: ReceiptKind,
): boolean {
  return store.outbox.usersWithout(messageId, what).every((userId) => userId === ownUserId);
}
