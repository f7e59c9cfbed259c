/** Door `@quicprochat/client-lib/store`: the device store for programs that look into a closed one. */
export { StoreError } from './database.ts';
export { openMemoryStore, openStore } from './sqlite-store.ts';
export type { AccountRecord } from './account-rows.ts';
export type { ContactRecord, KeySource } from './contact-rows.ts';
export type { ConversationRecord } from './group-rows.ts';
export type { ParkedRow, UndecryptableRow } from './inbox-rows.ts';
export type { MessageRecord, SendState } from './message-rows.ts';
export type { ClientStore } from './store.ts';
export type { LogRows, PinnedLog, StoredKeyEvent } from './log-rows.ts';
