/** Door of client-lib: the client, its events and its errors. */
export { needsLogin, QpcClient } from './client.ts';
export {
  NoAccountError,
  type AccountOptions,
  type Conversation,
  type GroupState,
  type OpenOptions,
  type Progress,
  type WhoAmI,
} from './client-types.ts';
export { AccountError } from './account.ts';
export type { OwnDevice } from './account-changes.ts';
export {
  ContactError,
  contactLimits,
  type Contact,
  type ContactDevice,
  type Verification,
} from './contact.ts';
export { conversationLimits } from './conversation.ts';
export { ContentError, contentLimits } from './content.ts';
export { eventLimits, type ClientEvent, type LinkState } from './events.ts';
export { PrekeyError } from './fan-out.ts';
export type { MissingMessages } from './holes.ts';
export type { DatedChange } from './kt/key-history.ts';
export { groupLimits, type Role } from './mls/index.ts';
export type { GroupMember, GroupMetadata } from './group-roles.ts';
export { LogError } from './kt/log-record.ts';
export type { LogStatus } from './kt/log-status.ts';
export type { VersionChange } from './kt/manifest-history.ts';
export { ClosedError } from './link.ts';
export { MlsError, type MlsReason } from './mls/index.ts';
export type { FallbackOptions, PeerSwarm } from './peers/peer-swarm.ts';
export type { ReceivedMessage } from './received.ts';
export { StaleKeysError } from './sealing.ts';
export { StoreError } from './store/database.ts';
export type { StoredKeyEvent } from './store/log-rows.ts';
export type {
  KeySource,
  MessageRecord,
  Path,
  PeerPath,
  StoredProof,
  SendState,
  UndecryptableRow,
} from './store/store.ts';
export type { Waiting } from './waiting.ts';
