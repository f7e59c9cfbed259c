/**
 * What becomes of an authentic content (docs/protocol/delivery.md): shown, counted and receipted, or taken
 * in silently. All of it is part of the transaction that uses up the message's key.
 */
import { messageTag, type Runtime } from '@quicprochat/proto';
import type { SignedEndpointRecord } from '@quicprochat/proto/messages';
import {
  ContentError,
  parseContent,
  type KeyEvidence,
  type ParsedContent,
  type ReceiptMessage,
  type TextMessage,
} from '../content.ts';
import type { DeliveryTokens } from '../sending/delivery-tokens.ts';
import type { ClientEvent, EventBus } from '../events.ts';
import type { ForkWatch } from '../groups/hubs/fork-watch.ts';
import type { Holes } from './holes.ts';
import type { Leaves } from '../groups/intents/leaves.ts';
import type { Identity, Processed } from '../mls/index.ts';
import { noteNumber } from './number-ranges.ts';
import { receiptLimits, takeReceipt } from './receipts.ts';
import type { ConversationRecord } from '../store/group-rows.ts';
import type { InboxRow } from '../store/inbox-rows.ts';
import type { ClientStore } from '../store/store.ts';
import type { Batch } from '../writer.ts';

export interface ContentsParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly identity: Identity;
  readonly tokens: Pick<DeliveryTokens, 'take' | 'changed'>;
  readonly holes: Pick<Holes, 'wake'>;
  readonly leaves: Pick<Leaves, 'take'>;
  readonly forks: Pick<ForkWatch, 'heard'>;
  /** A member passed on what logs say; done when it is taken in. */
  readonly onEvidence: (evidence: KeyEvidence) => Promise<void>;
  /** A member passed on evidence against logs. */
  readonly onConvictions: (evidence: readonly Uint8Array[], conversationId: Uint8Array) => void;
  /** A device said where it is reached without a node, in the transaction of what brought it. */
  readonly onEndpoint: (endpoint: SignedEndpointRecord, from: Uint8Array) => void;
  /** Messages are in the store that the application has not seen. */
  readonly onMessages: () => void;
  /** Copies are due to be sealed. */
  readonly onDue: () => void;
  /** Receipts are due in this conversation. */
  readonly onReceiptsDue: (conversationId: Uint8Array) => void;
}

/** An authentic message of a group, and what it came in. */
export interface Opened {
  readonly processed: Extract<Processed, { kind: 'application' }>;
  readonly bytes: Uint8Array;
  readonly row: InboxRow;
}

export class Contents {
  readonly #parts: ContentsParts;
  /** A row that nobody can read is recorded. */
  readonly #unreadable: (row: InboxRow, reason: string, batch: Batch) => void;

  constructor(
    parts: ContentsParts,
    unreadable: (row: InboxRow, reason: string, batch: Batch) => void,
  ) {
    this.#parts = parts;
    this.#unreadable = unreadable;
  }

  /** An authentic message: its keys are used up even if its content is nonsense. */
  take(opened: Opened, batch: Batch): void {
    const { store } = this.#parts;
    const { next, sender, plaintext, epoch, wipe } = opened.processed;
    const { groupId } = next;
    batch.useKeys(next, epoch, wipe);
    const { authenticatedData } = opened.processed;
    batch.after(() =>
      this.#parts.forks.heard(groupId, epoch, authenticatedData, sender.identityPub),
    );
    let isDue = false;
    batch.write(() => {
      store.outbox.confirmHandshakes(groupId, sender.identityPub, epoch);
      // Who was away is back, and has a prekey again. What waits though one is known waits for something else.
      const { notAfterMs = 0 } = store.contacts.prekey(sender.identityPub) ?? {};
      isDue =
        notAfterMs <= batch.nowMs &&
        store.outbox.prekeyWaitsDue(sender.identityPub, batch.nowMs) > 0;
    });
    batch.after(() => {
      if (isDue) this.#parts.onDue();
    });
    const conversation = batch.conversationOfGroup(groupId);
    if (conversation === undefined) return;
    let parsed: ParsedContent;
    try {
      parsed = parseContent(plaintext);
    } catch (error) {
      if (!(error instanceof ContentError)) throw error;
      this.#unreadable(opened.row, error.reason, batch);
      return;
    }
    const { tokens, endpoint, convictions } = parsed.content;
    if (tokens !== undefined) {
      batch.write(() => this.#parts.tokens.take(tokens, sender.identityPub, batch.nowMs));
      batch.after(() => this.#parts.tokens.changed());
    }
    if (endpoint !== undefined) {
      batch.write(() => this.#parts.onEndpoint(endpoint, sender.identityPub));
    }
    if (convictions !== undefined) {
      batch.after(() => this.#parts.onConvictions(convictions, conversation.id));
    }
    switch (parsed.type) {
      case 'extras':
        break;
      case 'leave':
        this.#parts.leaves.take(sender, groupId, batch);
        break;
      case 'text':
        this.#show(parsed.content, conversation, opened, batch);
        break;
      case 'receipt':
        this.#takeReceipt(parsed.content, conversation, opened, batch);
        break;
      case 'unknown':
        this.#unreadable(opened.row, 'UNKNOWN_CONTENT', batch);
        this.#count(parsed.content.n, opened, batch);
        break;
    }
  }

  #show(
    message: TextMessage,
    conversation: ConversationRecord,
    opened: Opened,
    batch: Batch,
  ): void {
    const { store } = this.#parts;
    const { bytes, row } = opened;
    const { sender, epoch } = opened.processed;
    this.#count(message.n, opened, batch);
    batch.advance(
      conversation,
      conversation.sentCount,
      Math.max(conversation.lamport, message.lamport),
    );
    const {
      evidence,
      tokens: _tokens,
      endpoint: _endpoint,
      convictions: _told,
      ...shown
    } = message;
    batch.write(() => {
      const messageId = store.messages.add({
        conversationId: conversation.id,
        senderUser: sender.userId,
        senderDevice: sender.deviceId,
        ...shown,
        receivedMs: batch.nowMs,
        via: row.via,
      });
      if (messageId === undefined) {
        this.#writeReceiptAgain(
          store.messages.idOf(conversation.id, sender.deviceId, shown.innerId),
          batch.nowMs,
        );
        return;
      }
      store.receipts.addDue(messageId, 'DELIVERED');
      store.resend.addCiphertext(
        {
          groupId: conversation.groupId,
          sender: sender.identityPub,
          n: shown.n,
          epoch: Number(epoch),
          tag: messageTag(row.mid, row.payload),
          messageId,
          bytes,
        },
        batch.nowMs,
      );
    });
    batch.after(() => {
      this.#parts.onMessages();
      this.#parts.onReceiptsDue(conversation.id);
    });
    if (evidence !== undefined) batch.after(() => this.#takeEvidence(evidence));
  }

  /** What the number of a message says about others that are missing. */
  #count(n: number, { processed: { next, sender } }: Opened, batch: Batch): void {
    const { store, holes } = this.#parts;
    const numbered = { groupId: next.groupId, sender: sender.identityPub, n };
    let isNew = false;
    batch.write(() => {
      isNew = noteNumber(store.resend, numbered, batch.nowMs);
    });
    batch.after(() => {
      if (isNew) holes.wake();
    });
  }

  #takeReceipt(
    receipt: ReceiptMessage,
    conversation: ConversationRecord,
    { processed: { sender } }: Opened,
    batch: Batch,
  ): void {
    const { store, identity } = this.#parts;
    const { nowMs } = batch;
    const from = { conversationId: conversation.id, rid: sender.identityPub, nowMs };
    const events: ClientEvent[] = [];
    batch.write(() => events.push(...takeReceipt(store, identity, receipt, from)));
    batch.after(() => {
      for (const event of events) this.#parts.events.emit(event);
    });
  }

  /** A row came again: its sender has no receipt, so it gets one more. */
  again(tag: Uint8Array, batch: Batch): void {
    const { store } = this.#parts;
    batch.write(() => this.#writeReceiptAgain(store.resend.messageOfTag(tag), batch.nowMs));
  }
  #writeReceiptAgain(messageId: number | undefined, nowMs: number): void {
    const { store, onReceiptsDue } = this.#parts;
    if (messageId === undefined) return;
    if (!store.receipts.addAgain(messageId, nowMs - receiptLimits.repeatMs)) return;
    const conversationId = store.messages.message(messageId)?.conversationId;
    if (conversationId !== undefined) onReceiptsDue(conversationId);
  }

  #takeEvidence(evidence: KeyEvidence): void {
    this.#parts.onEvidence(evidence).catch((error: unknown) => {
      this.#parts.runtime.log.error('evidence of a member', { error: String(error) });
    });
  }
}
