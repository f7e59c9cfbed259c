/**
 * QpcClient: one device of one account. Puts the parts together and owns their start and stop;
 * everything an application does goes through here.
 */
import {
  hasReason,
  InvalidArgumentError,
  NotFoundError,
  parseUserId,
  silentLog,
  systemClock,
  systemRandom,
  type Runtime,
} from '@quicprochat/proto';
import { transportOf, type Transport } from '@quicprochat/proto/transport';
import { accountKeys } from './account/account.ts';
import type { OwnDevice } from './account/account-changes.ts';
import { SignIn } from './account/sign-in.ts';
import {
  conversationOf,
  NoAccountError,
  whoIs,
  type AccountOptions,
  type Conversation,
  type GroupState,
  type NewDeviceOptions,
  type OpenOptions,
  type Progress,
  type WhoAmI,
} from './client-types.ts';
import type { Contact } from './contacts/contact.ts';
import { Device } from './device.ts';
import { EventBus, type ClientEvent } from './events.ts';
import type { GroupMember, GroupMetadata } from './groups/group-roles.ts';
import type { HeldFork } from './groups/hubs/held-forks.ts';
import { keyHistory, type DatedChange } from './kt/key-history.ts';
import { logStatuses, type LogStatus } from './kt/log-status.ts';
import type { OwnMailboxes } from './mailboxes/own-mailboxes.ts';
import { labelOf } from './kt/logs.ts';
import { callerOf, overConnection } from './dial.ts';
import { ClosedError } from './link.ts';
import { missingOf, type MissingMessages } from './receiving/holes.ts';
import type { Role } from './mls/index.ts';
import { receivedMessages, type ReceivedMessage } from './receiving/received.ts';
import type { StoredKeyEvent } from './store/log-rows.ts';
import { openStore } from './store/sqlite-store.ts';
import type { ConversationRecord } from './store/group-rows.ts';
import type { UndecryptableRow } from './store/inbox-rows.ts';
import type { MessageRecord, SendState } from './store/message-rows.ts';
import type { StoredProof } from './store/outbox-copies.ts';
import type { ClientStore } from './store/store.ts';
import { untilReached } from './sending/progress.ts';
import { waitingRows, type Waiting } from './receiving/waiting.ts';

export class QpcClient implements AsyncDisposable {
  readonly #store: ClientStore;
  readonly #runtime: Runtime;
  readonly #transport: Transport;
  readonly #events = new EventBus();
  readonly #signIn: SignIn;
  readonly #options: Pick<OpenOptions, 'sendsReadReceipts' | 'sealedSender' | 'fallback'>;
  #device: Device | undefined;
  #closed: Promise<void> | undefined;

  private constructor(
    store: ClientStore,
    runtime: Runtime,
    transport: Transport,
    { sendsReadReceipts = false, sealedSender = false, fallback }: OpenOptions,
  ) {
    this.#options = { sendsReadReceipts, sealedSender, fallback };
    this.#store = store;
    this.#runtime = runtime;
    this.#transport = transport;
    this.#signIn = new SignIn({ store, runtime, transport, device: () => this.#requireDevice() });
  }

  /**
   * Opens the device store; no network yet. Throws StoreError STORE_IN_USE, STORE_KEY,
   * STORE_VERSION or STORE_PATH.
   */
  static async open(options: OpenOptions): Promise<QpcClient> {
    const runtime = options.runtime ?? {
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
    };
    const transport = options.transport ?? transportOf(runtime, ['quic', 'tls']);
    const open = options.openStore ?? openStore;
    const store = open(options.storePath, options.storeKey);
    return new QpcClient(store, runtime, transport, options);
  }

  /**
   * Registers the account at a node (`qpc://host:port#pin`), with this device as its only one, and
   * publishes its keys. Resolves when the node's log shows the account with this device's keys. Safe to
   * repeat after a lost answer. Throws ConflictError NAME_TAKEN, AccountError, VerificationError or
   * LogError (the log is not to be believed), TransportError and the node's own errors.
   */
  async register(options: NewDeviceOptions): Promise<void> {
    await this.#signIn.register(options);
  }

  /**
   * Logs this device in again, at the node of its registration. Throws UnauthenticatedError
   * AUTH_FAILED for a wrong password and an unknown user alike, NoAccountError, AccountError,
   * TransportError and the node's own errors.
   */
  async login(options: AccountOptions): Promise<void> {
    await this.#signIn.login(options);
  }

  /**
   * Makes this device one more of an account that exists: the password opens the account key in the
   * recovery bundle, and the log gets a manifest with this device. Safe to repeat. Throws like
   * `register`, UnauthenticatedError AUTH_FAILED, AccountError NO_BUNDLE or NEEDS_APPROVAL.
   */
  async addDevice(options: NewDeviceOptions): Promise<void> {
    await this.#signIn.addDevice(options);
  }

  /** The account's devices as its log shows them now. Needs the node. */
  async devices(signal?: AbortSignal): Promise<readonly OwnDevice[]> {
    const { changes, link } = this.#requireDevice();
    return changes.devices(link, signal);
  }

  /**
   * Revokes another device of the account, for good; done when the log shows it, and then it is taken out
   * of conversations, if this device is in them. Throws
   * NotFoundError UNKNOWN_DEVICE, InvalidArgumentError for this device, AccountError NO_ACCOUNT_KEY.
   */
  async revokeDevice(deviceId: string, reason = 'revoked', signal?: AbortSignal): Promise<void> {
    const { changes, link, groups } = this.#requireDevice();
    if (deviceId === this.whoami().deviceId) {
      throw new InvalidArgumentError('BAD_FIELD', 'revoke: this device; do it from another one');
    }
    await changes.revokeDevice(deviceId, reason, link, signal);
    groups.revocations.look();
  }

  /**
   * Replaces the account key; the old one signs for the new one, so contacts go on. Needs the password,
   * for the recovery bundle. Done when the log shows it.
   */
  async rotateAccountKey(options: Omit<AccountOptions, 'userId'>): Promise<void> {
    const { changes } = this.#requireDevice();
    const { userId } = this.whoami();
    await this.#signIn.again({ ...options, userId }, (caller, exportKey) =>
      changes.rotateAccountKey(exportKey, caller, options.signal),
    );
  }

  /**
   * Deletes the account at its node, for good: nobody gets the name again. The store stays, to be
   * read or deleted. Needs the node.
   */
  async deleteAccount(signal?: AbortSignal): Promise<void> {
    const { changes, link } = this.#requireDevice();
    await changes.deleteAccount(link, signal);
    link.expire();
  }

  /** Starts the background connection. No effect while it runs. Throws NoAccountError. */
  start(): void {
    this.#requireDevice().start();
  }

  /** Tells that this machine has another network now: what was dialed over the old one is dialed again. */
  networkChanged(): void {
    this.#requireDevice().networkChanged();
  }

  /** Resolves when the device is online; rejects with the signal's reason, NOT_LOGGED_IN or CLOSED. */
  async online(signal?: AbortSignal): Promise<void> {
    await this.#requireDevice().link.session(signal);
  }

  /**
   * Makes a conversation with every device of these users and the account's other devices; this user owns it.
   * Returns its id (32 bytes) when its hub has it; needs the node. Throws NotFoundError UNKNOWN_USER, NO_KEY_PACKAGE,
   * ContactError, VerificationError, LogError, MlsError: nothing was made then. Ended by the signal it may go on.
   */
  async createConversation(
    options: { readonly name: string; readonly members: readonly string[] },
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    const { conversations } = this.#requireDevice();
    return conversations.create(options.name, options.members, signal);
  }

  /**
   * Adds every device of these users that is not there yet; of the own user, the account's other devices. Like all changes
   * of a conversation it is durable at once, waits while the hub is away, also over restarts, and is done on return;
   * ended by the signal it goes on. Throws NotFoundError UNKNOWN_GROUP, what `createConversation` throws, MlsError
   * NOT_ALLOWED (roles), GroupChangeError, ConversationEndedError, and what the hub says.
   */
  async addMembers(
    conversationId: Uint8Array,
    members: readonly string[],
    signal?: AbortSignal,
  ): Promise<void> {
    await this.#requireDevice().conversations.addMembers(conversationId, members, signal);
  }

  /**
   * Removes users with all their devices, and single devices (`alice@red.example/<device id>`); who is not there is gone
   * already. Like `addMembers`; InvalidArgumentError BAD_FIELD for the own user and device.
   */
  async removeMembers(
    conversationId: Uint8Array,
    members: readonly string[],
    signal?: AbortSignal,
  ): Promise<void> {
    await this.#requireDevice().conversations.removeMembers(conversationId, members, signal);
  }

  /** Name and timer of a conversation, in one change. Like `addMembers`; InvalidArgumentError BAD_FIELD out of bounds. */
  async updateMetadata(
    conversationId: Uint8Array,
    metadata: GroupMetadata,
    signal?: AbortSignal,
  ): Promise<void> {
    await this.#requireDevice().conversations.updateMetadata(conversationId, metadata, signal);
  }

  /** Makes a user owner, admin or member. Like `addMembers`; also MlsError UNKNOWN_MEMBER and LAST_OWNER. */
  async setRole(
    conversationId: Uint8Array,
    userId: string,
    role: Role,
    signal?: AbortSignal,
  ): Promise<void> {
    await this.#requireDevice().conversations.setRole(conversationId, userId, role, signal);
  }

  /** Fresh keys for this device and the conversation. Like `addMembers`. */
  async rotateKeys(conversationId: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#requireDevice().conversations.rotateKeys(conversationId, signal);
  }

  /**
   * Leaves with every device of the own user: others are asked to remove them, and it is done when one of them did.
   * Like `addMembers`; GroupChangeError LAST_OWNER when nobody who stays is an owner.
   */
  async leave(conversationId: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#requireDevice().conversations.leave(conversationId, signal);
  }

  /**
   * Sends a text (1 to 16 384 bytes of UTF-8); durable on return, also offline. `id` (16 bytes) is the same on all devices, and what
   * `reached` and `proofs` take; `messageId` is what events of this client say. Throws NotFoundError UNKNOWN_GROUP,
   * InvalidArgumentError, PayloadTooLargeError, StaleKeysError, ConversationEndedError, MlsError, ContactError IDENTITY_RESET.
   */
  async send(
    conversationId: Uint8Array,
    text: string,
    signal?: AbortSignal,
  ): Promise<{ readonly id: Uint8Array; readonly messageId: number }> {
    return this.#requireDevice().conversations.send(conversationId, text, signal);
  }

  /**
   * Received messages that the application has not had yet, in order of arrival, and then every
   * new one, until the signal or the loop ends. A message counts as had when the next one is asked
   * for or the loop is left. After a crash the last few (at most 16) come again.
   */
  messages(
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncIterableIterator<ReceivedMessage> {
    const { news, contacts, receipts, disappearing } = this.#requireDevice();
    const onHad = (ids: readonly number[]): void => {
      disappearing.wake();
      if (this.#options.sendsReadReceipts === true) receipts.addRead(ids);
    };
    return receivedMessages(
      { store: this.#store, runtime: this.#runtime, news, contacts, onHad },
      options.signal,
    );
  }

  conversations(): readonly Conversation[] {
    return this.#store.groups.conversations().map(conversationOf);
  }

  /**
   * Tells the others that somebody writes here; call it while that goes on: at most one in 3 s leaves, in
   * conversations of up to 64 devices, and only while this device is online. Returns whether one left.
   */
  async typing(conversationId: Uint8Array): Promise<boolean> {
    return this.#requireDevice().typing.send(conversationId);
  }

  /** User ids of a conversation's members. Throws NotFoundError UNKNOWN_GROUP. */
  async members(conversationId: Uint8Array): Promise<readonly string[]> {
    return this.#requireDevice().conversations.members(conversationId);
  }

  /** Its name and timer; undefined where nothing can be read any more. Throws UNKNOWN_GROUP. */
  async metadata(conversationId: Uint8Array): Promise<Required<GroupMetadata> | undefined> {
    return this.#requireDevice().conversations.metadata(conversationId);
  }

  /** Where this device stands in the group's one history; undefined where nothing can be read any more. Throws UNKNOWN_GROUP. */
  async groupState(conversationId: Uint8Array): Promise<GroupState | undefined> {
    return this.#requireDevice().conversations.groupState(conversationId);
  }

  /** Its users by user id, with roles and devices. Throws NotFoundError UNKNOWN_GROUP. */
  async listMembers(conversationId: Uint8Array): Promise<readonly GroupMember[]> {
    return this.#requireDevice().conversations.listMembers(conversationId);
  }

  /**
   * Newest messages of a conversation, sent and received, in display order (lamport, inner id).
   * Throws NotFoundError UNKNOWN_GROUP.
   */
  history(conversationId: Uint8Array, limit = 1_000): readonly MessageRecord[] {
    this.#requireConversation(conversationId);
    this.#requireDevice().disappearing.sweep();
    return this.#store.messages.history(conversationId, limit);
  }

  /**
   * What waits for this device at its node, without taking it; also while the client is not started.
   * Throws NoAccountError, UnauthenticatedError, TransportError and the node's own errors.
   */
  async waiting(signal?: AbortSignal): Promise<Waiting> {
    const record = this.#store.account.get();
    if (record?.isRegistered !== true) throw new NoAccountError();
    const parts = {
      ...{ runtime: this.#runtime, transport: this.#transport },
      nodeAddress: record.nodeAddress,
      identity: accountKeys(record).transport,
    };
    return overConnection(
      parts,
      (connection) => waitingRows(this.#store, callerOf(connection), signal),
      signal,
    );
  }

  /** What is known to be missing in a conversation. Throws NotFoundError UNKNOWN_GROUP. */
  missing(conversationId: Uint8Array): readonly MissingMessages[] {
    return missingOf(this.#store, this.#requireConversation(conversationId));
  }

  /**
   * Where hubs signed two histories of a conversation, oldest first, each with evidence that anybody checks offline
   * (`qpc verify-fork`, verifyForkEvidence).
   */
  async forks(): Promise<readonly HeldFork[]> {
    return this.#requireDevice().conversations.forks();
  }

  /** Rows that could never be opened. */
  undecryptable(): readonly UndecryptableRow[] {
    return this.#store.inbox.undecryptable();
  }

  /** What is verified of a person; undefined for somebody never met. Asks nobody. */
  contact(userId: string): Contact | undefined {
    return this.#requireDevice().contacts.get(userId);
  }

  /**
   * Looks a person up in the log of its home, now. Throws NotFoundError UNKNOWN_USER, ContactError, VerificationError,
   * LogError (docs/developer/verification.md), and what the node says.
   */
  async lookUp(userId: string, signal?: AbortSignal): Promise<Contact> {
    const { contacts, link } = this.#requireDevice();
    return contacts.resolve(parseUserId(userId).userId, link, signal);
  }

  /**
   * People compared this account key (32 bytes) with the person's own. Throws NotFoundError UNKNOWN_USER for somebody never
   * looked up, InvalidArgumentError BAD_FIELD when the log shows another key.
   */
  verify(userId: string, accountKey: Uint8Array): Contact {
    return this.#requireDevice().contacts.verify(userId, accountKey);
  }

  /** Uses the keys of a contact whose account key was replaced without its signature. */
  async acceptIdentityReset(userId: string): Promise<void> {
    await this.#requireDevice().acceptIdentityReset(userId);
  }

  /**
   * Somebody's messages are not wanted: the delivery token of this device is replaced, and goes to
   * everybody else, also in conversations with this person. Of those without it the node takes 50
   * messages at a time. What the person wrote and `messages` has not shown is hidden, from now on. Done
   * when the node has the new token. Throws as any call of the node.
   */
  async block(userId: string): Promise<void> {
    const { tokens, link } = this.#requireDevice();
    await tokens.block(userId, link);
  }

  /** The person gets the token again, with the next message or soon; what was hidden shows. Durable on return. */
  unblock(userId: string): void {
    const { tokens, news } = this.#requireDevice();
    tokens.unblock(userId);
    news.restart();
  }

  /** User ids, sorted. */
  blocked(): readonly string[] {
    return this.#store.tokens.blocked();
  }

  /**
   * Every version of a person's keys that the log still shows, oldest first, each judged as the
   * successor of the one before. Needs the node. Throws as Contacts.resolve.
   */
  async keyHistory(userId: string, signal?: AbortSignal): Promise<readonly DatedChange[]> {
    const { logs, link } = this.#requireDevice();
    return keyHistory(parseUserId(userId).userId, logs, link, signal);
  }

  /** What happened to keys and logs, newest first. */
  keyEvents(limit = 100): readonly StoredKeyEvent[] {
    return this.#store.logs.events(limit);
  }

  /**
   * The newest credential of the own keys, wrapped with what shows its log entry to strangers: others
   * check it with `qpc-audit check` while no node answers. Undefined before the log made one.
   */
  credential(): Uint8Array | undefined {
    const { userId } = this.whoami();
    const log = this.#requireDevice().logs.known(parseUserId(userId).domain);
    return log?.client.credentials.own(labelOf(userId));
  }

  /**
   * The own contact card (docs/protocol/contact-cards.md), good for ten days at most. Throws
   * NoAccountError, and FailedPreconditionError BAD_CURSOR while there is nothing to make it of.
   */
  exportCard(): Uint8Array {
    return this.#requireDevice().cards.export();
  }

  /**
   * Takes in somebody's card: known by a credential from then on, and checked in full once the log can
   * be asked. Throws NoAccountError, InvalidArgumentError BAD_FIELD, VerificationError, LogError, PermissionDeniedError
   * BLOCKED (docs/protocol/contact-cards.md says when).
   */
  async importCard(card: Uint8Array): Promise<Contact> {
    return this.#requireDevice().importCard(card);
  }

  /** Mailboxes of this device at other nodes. Throws NoAccountError. */
  get mailboxes(): OwnMailboxes {
    return this.#requireDevice().mailboxes;
  }

  /** The logs that this device relies on, as it saw them last. */
  logs(): readonly LogStatus[] {
    const { logs, gossip } = this.#requireDevice();
    return logStatuses(logs, (domain) => gossip.heardSize(domain));
  }

  /**
   * A person's word that a convicted log may be believed again: its operator has explained it. The
   * evidence that is here stays; more of it convicts the log again. Throws NoAccountError.
   */
  trustLog(domain: string): void {
    this.#requireDevice().logs.trust(domain);
  }

  /** Throws NoAccountError. */
  whoami(): WhoAmI {
    const record = this.#store.account.get();
    if (record === undefined) throw new NoAccountError();
    return whoIs(record);
  }

  /** Events from now on, until the signal or the loop ends. */
  events(signal?: AbortSignal): AsyncIterableIterator<ClientEvent> {
    return this.#events.subscribe(signal);
  }

  /**
   * Resolves when the own node has everything that was sent (or refused it for good: see events);
   * rejects with the signal's reason.
   */
  async flush(signal?: AbortSignal): Promise<void> {
    await this.#requireDevice().outbox.flush(signal);
  }

  /**
   * Resolves with the state of an own message once it is at least `wanted`, or lost (failed, bounced,
   * expired). Rejects with the signal's reason, NotFoundError UNKNOWN_GROUP, or CLOSED.
   */
  async reached(
    conversationId: Uint8Array,
    id: Uint8Array,
    wanted: Progress,
    signal?: AbortSignal,
  ): Promise<SendState> {
    const messageId = this.#store.messages.idOf(conversationId, this.whoami().deviceId, id);
    using _ = wanted === 'relayed' ? this.#device?.watchCopies() : undefined;
    return await untilReached(this.#store, this.#events, messageId, wanted, signal);
  }

  /**
   * What nodes signed for the copies of an own message, as long as nobody confirmed it: with the record
   * of the own node, or of a sealed sender's recipient, anybody can check it (verifyDeliveryProof).
   */
  proofs(conversationId: Uint8Array, id: Uint8Array): readonly StoredProof[] {
    const messageId = this.#store.messages.idOf(conversationId, this.whoami().deviceId, id);
    return messageId === undefined ? [] : this.#store.outbox.proofs(messageId);
  }

  /** Seals the receipts that wait for company; then `flush` sends them. */
  async sealReceipts(): Promise<void> {
    await this.#requireDevice().receipts.flush();
  }

  /** Disconnects and closes the store; unsent messages stay in it. Idempotent. */
  async close(): Promise<void> {
    this.#closed ??= (async () => {
      await this.#device?.stop();
      this.#events.close();
      this.#store.close();
    })();
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #requireConversation(id: Uint8Array): ConversationRecord {
    const conversation = this.#store.groups.conversation(id);
    if (conversation !== undefined) return conversation;
    throw new NotFoundError('UNKNOWN_GROUP', 'conversation: none with this id here');
  }

  /** The running parts of the account; built when they are first needed. */
  #requireDevice(): Device {
    if (this.#closed !== undefined) {
      throw new ClosedError();
    }
    if (this.#device === undefined) {
      const record = this.#store.account.get();
      if (record?.isRegistered !== true) throw new NoAccountError();
      this.#device = new Device({
        store: this.#store,
        runtime: this.#runtime,
        transport: this.#transport,
        events: this.#events,
        record,
        sealsSender: this.#options.sealedSender === true,
        fallback: this.#options.fallback,
      });
    }
    return this.#device;
  }
}

/** True when an error says that this device must log in again. */
export function needsLogin(error: unknown): boolean {
  return hasReason(error, 'NOT_LOGGED_IN');
}
