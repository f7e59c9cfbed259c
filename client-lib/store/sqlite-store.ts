/**
 * The device store on SQLCipher: puts the areas together over one database. The memory variant is
 * the same code without a file.
 */
import { accountRows } from './account-rows.ts';
import { channelRows } from './channel-rows.ts';
import { closedRows } from './closed-rows.ts';
import { contactRows } from './contact-rows.ts';
import { openDatabase } from './database.ts';
import { groupLogRows } from './group-log-rows.ts';
import { cardRows } from './card-rows.ts';
import { endpointRows } from './endpoint-rows.ts';
import { mailboxRows } from './mailbox-rows.ts';
import { groupRows } from './group-rows.ts';
import { inboxRows } from './inbox-rows.ts';
import { keyRows } from './key-rows.ts';
import { logRows } from './log-rows.ts';
import { messageRows } from './message-rows.ts';
import { outboxRows } from './outbox-rows.ts';
import { receiptRows } from './receipt-rows.ts';
import { resendRows } from './resend-rows.ts';
import { resyncRows } from './resync-rows.ts';
import { skippedRows } from './skipped-rows.ts';
import { standingRows } from './standing-rows.ts';
import type { ClientStore } from './store.ts';
import { tokenRows } from './token-rows.ts';

/**
 * Opens or creates the store at `path` with a raw 32-byte key (the caller wipes it). Throws
 * StoreError STORE_IN_USE, STORE_KEY, STORE_VERSION or STORE_PATH.
 */
export function openStore(path: string, key: Uint8Array): ClientStore {
  const db = openDatabase(path, key);
  return {
    account: accountRows(db),
    keys: keyRows(db),
    contacts: contactRows(db),
    logs: logRows(db),
    groups: groupRows(db),
    groupLog: groupLogRows(db),
    standings: standingRows(db),
    messages: messageRows(db),
    inbox: inboxRows(db),
    outbox: outboxRows(db),
    channels: channelRows(db),
    receipts: receiptRows(db),
    resend: resendRows(db),
    skipped: skippedRows(db),
    tokens: tokenRows(db),
    endpoints: endpointRows(db),
    mailboxes: mailboxRows(db),
    cards: cardRows(db),
    resync: resyncRows(db),
    closed: closedRows(db),
    transaction: (work) => db.transaction(work),
    checkpoint: () => db.checkpoint(),
    close: () => db.close(),
    [Symbol.dispose]: () => db.close(),
  };
}

/** A store that is gone when it is closed. */
export function openMemoryStore(): ClientStore {
  return openStore(':memory:', new Uint8Array(32));
}
