/** Door of client-lib: the client, its events and its errors. */
export { hasReason, QpcError, Status, TransportError } from '@quicprochat/proto';
export { VerificationError } from '@quicprochat/kt-log';
export { needsLogin, QpcClient } from './client.ts';
export {
  NoAccountError,
  type AccountOptions,
  type Conversation,
  type GroupState,
  type NewDeviceOptions,
  type OpenOptions,
  type Progress,
  type WhoAmI,
} from './client-types.ts';
export { AccountError } from './account/account.ts';
export type { OwnDevice } from './account/account-changes.ts';
export {
  ContactError,
  contactLimits,
  type Contact,
  type ContactDevice,
  type Verification,
} from './contacts/contact.ts';
export { ConversationEndedError } from './groups/conversation.ts';
export { GroupChangeError } from './groups/intents/group-intents.ts';
export { conversationLimits } from './groups/create-conversation.ts';
export { ContentError, contentLimits } from './content.ts';
export { eventLimits, type ClientEvent, type LinkState } from './events.ts';
export { PrekeyError } from './sending/fan-out.ts';
export type { MissingMessages } from './receiving/holes.ts';
export type { DatedChange } from './kt/key-history.ts';
export { groupLimits, type Role } from './mls/index.ts';
export type { GroupMember, GroupMetadata } from './groups/group-roles.ts';
export type { HeldFork } from './groups/hubs/held-forks.ts';
export { LogError } from './kt/log-record.ts';
export type { LogStatus } from './kt/log-status.ts';
export type { OwnMailbox, OwnMailboxes } from './mailboxes/own-mailboxes.ts';
export type { VersionChange } from './kt/manifest-history.ts';
export { ClosedError } from './link.ts';
export { MlsError, type MlsReason } from './mls/index.ts';
export type { FallbackOptions, PeerSwarm } from './peers/peer-swarm.ts';
export type { ReceivedMessage } from './receiving/received.ts';
export { StaleKeysError } from './sending/sealing.ts';
export { StoreError } from './store/database.ts';
export type { StoredKeyEvent } from './store/log-rows.ts';
export type { KeySource } from './store/contact-rows.ts';
export type { UndecryptableRow } from './store/inbox-rows.ts';
export type { MessageRecord, SendState } from './store/message-rows.ts';
export type { StoredProof } from './store/outbox-copies.ts';
export type { Path, PeerPath } from './store/paths.ts';
export type { Waiting } from './receiving/waiting.ts';
