/** Door `@quicprochat/client-lib/store`: the device store for programs that look into a closed one. */
export { StoreError } from './database.ts';
export { openMemoryStore, openStore } from './sqlite-store.ts';
export type {
  AccountRecord,
  ClientStore,
  ConversationRecord,
  MessageRecord,
  ParkedRow,
  SendState,
  UndecryptableRow,
  Verification,
} from './store.ts';
