/** Door of client-lib: the client, its events and its errors. */
export {
  needsLogin,
  NoAccountError,
  QpcClient,
  type AccountOptions,
  type Conversation,
  type OpenOptions,
  type WhoAmI,
} from './client.ts';
export { AccountError } from './account.ts';
export { ContactError, type Contact, type ContactDevice } from './contacts.ts';
export { conversationLimits, NotCommitterError } from './conversation.ts';
export { ContentError, contentLimits } from './content.ts';
export { eventLimits, type ClientEvent, type LinkState } from './events.ts';
export { PrekeyError } from './fan-out.ts';
export { ClosedError } from './link.ts';
export { MlsError, type MlsReason } from './mls/index.ts';
export type { ReceivedMessage } from './received.ts';
export { StoreError } from './store/database.ts';
export type { MessageRecord, SendState, UndecryptableRow, Verification } from './store/store.ts';
