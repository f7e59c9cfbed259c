/** Table `receipt_due` of the device store, and what receipts say of messages in table `message`. */
import type { Database } from './database.ts';
import type { ReceiptKind } from './outbox-copies.ts';

/** A receipt that is to be sent. */
export interface DueReceipt {
  readonly messageId: number;
  readonly kind: ReceiptKind;
  /** Inner id (16 bytes) of the message. */
  readonly innerId: Uint8Array;
}

export interface ReceiptRows {
  /** A repeat changes nothing. */
  addDue(messageId: number, kind: ReceiptKind): void;
  /** Like `addDue`, unless a receipt of the message was sealed since then. Returns whether it is due. */
  addAgain(messageId: number, sealedSinceMs: number): boolean;
  /** Oldest first. */
  due(conversationId: Uint8Array, limit: number): readonly DueReceipt[];
  /** Conversations with due receipts. */
  conversations(): readonly Uint8Array[];
  sealed(receipts: readonly DueReceipt[], nowMs: number): void;
  /** They will not be sent. */
  drop(conversationId: Uint8Array): void;
  /** A device of every other member has the own message, or showed it. True if that was news. */
  markComplete(messageId: number, kind: ReceiptKind, nowMs: number): boolean;
}

export function receiptRows(db: Database): ReceiptRows {
  const addDue = (messageId: number, kind: ReceiptKind): void => {
    db.run(
      `INSERT INTO receipt_due (message_id, kind, conversation_id)
       SELECT id, ?, conversation_id FROM message WHERE id = ? AND received_ms IS NOT NULL
       ON CONFLICT DO NOTHING`,
      kind,
      messageId,
    );
  };
  return {
    addDue,
    addAgain(messageId, sealedSinceMs) {
      const isRecent =
        db.get(
          'SELECT 1 FROM message WHERE id = ? AND receipted_ms > ?',
          messageId,
          sealedSinceMs,
        ) !== undefined;
      if (!isRecent) addDue(messageId, 'DELIVERED');
      return !isRecent;
    },
    due: (conversationId, limit) =>
      db
        .all(
          `SELECT d.message_id, d.kind, m.inner_id FROM receipt_due d
             JOIN message m ON m.id = d.message_id
           WHERE d.conversation_id = ? ORDER BY d.message_id LIMIT (? + 0)`,
          conversationId,
          limit,
        )
        .map((row) => ({
          messageId: row.number('message_id'),
          kind: row.text('kind') === 'READ' ? 'READ' : 'DELIVERED',
          innerId: row.bytes('inner_id'),
        })),
    conversations: () =>
      db
        .all('SELECT DISTINCT conversation_id FROM receipt_due')
        .map((row) => row.bytes('conversation_id')),
    sealed(receipts, nowMs) {
      for (const { messageId, kind } of receipts) {
        db.run('DELETE FROM receipt_due WHERE message_id = ? AND kind = ?', messageId, kind);
        db.run('UPDATE message SET receipted_ms = ? WHERE id = ?', nowMs, messageId);
      }
    },
    drop(conversationId) {
      db.run('DELETE FROM receipt_due WHERE conversation_id = ?', conversationId);
    },
    markComplete(messageId, kind, nowMs) {
      const mark = (column: 'delivered_ms' | 'read_ms'): number =>
        db.run(
          `UPDATE message SET ${column} = ? WHERE id = ? AND ${column} IS NULL`,
          nowMs,
          messageId,
        );
      const delivered = mark('delivered_ms');
      return (kind === 'READ' ? mark('read_ms') : delivered) > 0;
    },
  };
}
