/** Door `@quicprochat/client-lib/store`: the device store for programs that look into a closed one. */
export { StoreError } from './database.ts';
export { openMemoryStore, openStore } from './sqlite-store.ts';
export type {
  AccountRecord,
  ClientStore,
  ContactRecord,
  ConversationRecord,
  KeySource,
  MessageRecord,
  ParkedRow,
  SendState,
  UndecryptableRow,
} from './store.ts';
export type { LogRows, PinnedLog, StoredKeyEvent } from './log-rows.ts';
