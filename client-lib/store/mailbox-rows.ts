/** Tables `mailbox` and `mailbox_node` of the device store, and which copies of the outbox lie in mailboxes. */
import type { Database } from './database.ts';

export const mailboxBounds = {
  /** Nodes that keep mailboxes of contacts; beyond, those that were not asked about for longest go. */
  nodes: 256,
} as const;

/** A mailbox of this device at another node. */
export interface MailboxRow {
  readonly domain: string;
  /** SignedNodeRecord, encoded. */
  readonly record: Uint8Array;
  readonly expiresMs: number;
}

export interface MailboxRows {
  /** Sorted by domain. */
  own(): readonly MailboxRow[];
  put(mailbox: MailboxRow): void;
  delete(domain: string): void;
  /** What the own node showed of a node that keeps mailboxes of contacts. */
  node(domain: string): { readonly record: Uint8Array; readonly checkedMs: number } | undefined;
  putNode(domain: string, record: Uint8Array, nowMs: number): void;
  /** A node has a copy of this row (id in the outbox) for a mailbox of its device. */
  took(id: number, domain: string): void;
}

/** Log of a mailbox in the table of cursors: an inbox has none, a channel 32 bytes. */
export function mailboxLog(domain: string): Uint8Array {
  return new TextEncoder().encode(`mailbox ${domain}`);
}

export function mailboxRows(db: Database): MailboxRows {
  return {
    own: () =>
      db.all('SELECT * FROM mailbox ORDER BY domain').map((row) => ({
        domain: row.text('domain'),
        record: row.bytes('record'),
        expiresMs: row.number('expires_ms'),
      })),
    put({ domain, record, expiresMs }) {
      db.run('INSERT OR REPLACE INTO mailbox VALUES (?, ?, ?)', domain, record, expiresMs);
    },
    delete(domain) {
      db.run('DELETE FROM mailbox WHERE domain = ?', domain);
      db.run('DELETE FROM cursor WHERE log = ?', mailboxLog(domain));
    },
    node(domain) {
      const row = db.get('SELECT * FROM mailbox_node WHERE domain = ?', domain);
      if (row === undefined) return undefined;
      return { record: row.bytes('record'), checkedMs: row.number('checked_ms') };
    },
    putNode(domain, record, nowMs) {
      db.run('INSERT OR REPLACE INTO mailbox_node VALUES (?, ?, ?)', domain, record, nowMs);
      db.run(
        `DELETE FROM mailbox_node WHERE domain IN
           (SELECT domain FROM mailbox_node ORDER BY checked_ms DESC, domain LIMIT -1 OFFSET ?)`,
        mailboxBounds.nodes,
      );
    },
    took(id, domain) {
      db.run(
        `UPDATE outbox SET mailboxes = mailboxes || ? || ' ', via = coalesce(via, 'mailbox')
         WHERE id = ? AND instr(mailboxes, ' ' || ? || ' ') = 0`,
        domain,
        id,
        domain,
      );
    },
  };
}
