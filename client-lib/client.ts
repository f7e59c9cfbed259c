/**
 * QpcClient: one device of one account. Puts the parts together and owns their start and stop;
 * everything an application does goes through here.
 */
import {
  hasReason,
  InvalidArgumentError,
  NotFoundError,
  QpcError,
  silentLog,
  Status,
  systemClock,
  systemRandom,
  type Runtime,
} from '@quicprochat/proto';
import { CloseCode, transportOf, type Transport } from '@quicprochat/proto/transport';
import {
  accountKeys,
  login,
  prepareAccount,
  recordSession,
  register,
  type AccountKeys,
  type Credentials,
} from './account.ts';
import type { Contact } from './contacts.ts';
import { Device } from './device.ts';
import { EventBus, type ClientEvent } from './events.ts';
import { callerOf, ClosedError, dialNode } from './link.ts';
import { receivedMessages, type ReceivedMessage } from './received.ts';
import { openStore } from './store/sqlite-store.ts';
import type {
  AccountRecord,
  ClientStore,
  ConversationRecord,
  MessageRecord,
  UndecryptableRow,
} from './store/store.ts';

export interface OpenOptions {
  /** The device store's file; made when it is not there. `:memory:` keeps nothing. */
  readonly storePath: string;
  /** Raw 32-byte key of the store; the caller wipes it. */
  readonly storeKey: Uint8Array;
  readonly runtime?: Runtime;
  /** Default: QUIC, and TLS over TCP where UDP does not pass. */
  readonly transport?: Transport;
}

export interface AccountOptions {
  /** `name@domain`. */
  readonly userId: string;
  /** UTF-8; stays the caller's, to be wiped by it. */
  readonly password: Uint8Array;
  readonly signal?: AbortSignal;
}

/** Who this device is. */
export interface WhoAmI {
  readonly userId: string;
  readonly deviceId: string;
  /** Device identity key (32 bytes): delivery address. */
  readonly identityPub: Uint8Array;
  /** Account key (32 bytes): what others compare; undefined where this device does not hold it. */
  readonly accountKey: Uint8Array | undefined;
  readonly nodeAddress: string;
  readonly isRegistered: boolean;
  readonly sessionExpiresMs: number;
}

export interface Conversation {
  /** 32 bytes. */
  readonly id: Uint8Array;
  readonly name: string;
  readonly creator: string;
  /** True when this device may add members. */
  readonly isCommitter: boolean;
  readonly suite: number;
  readonly joinedMs: number;
}

/** The store is of no account yet. */
export class NoAccountError extends QpcError {
  override name = 'NoAccountError';
  constructor() {
    super(Status.FailedPrecondition, 'NO_ACCOUNT', 'the store has no account: register first');
  }
}

export class QpcClient implements AsyncDisposable {
  readonly #store: ClientStore;
  readonly #runtime: Runtime;
  readonly #transport: Transport;
  readonly #events = new EventBus();
  #device: Device | undefined;
  #closed: Promise<void> | undefined;

  private constructor(store: ClientStore, runtime: Runtime, transport: Transport) {
    this.#store = store;
    this.#runtime = runtime;
    this.#transport = transport;
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
    return new QpcClient(openStore(options.storePath, options.storeKey), runtime, transport);
  }

  /**
   * Registers the account at a node (`qpc://host:port#pin`), with this device as its only one, and
   * publishes its keys. Safe to repeat after a lost answer. Throws ConflictError NAME_TAKEN,
   * AccountError, TransportError and the node's own errors.
   */
  async register(options: AccountOptions & { readonly nodeAddress: string }): Promise<void> {
    const record = await prepareAccount(this.#store, options, this.#runtime.random);
    await this.#authenticate(record, options, (connection, credentials) =>
      register(connection, credentials, this.#runtime.clock, options.signal),
    );
  }

  /**
   * Logs this device in again, at the node of its registration. Throws UnauthenticatedError
   * AUTH_FAILED for a wrong password and an unknown user alike, NoAccountError, AccountError,
   * TransportError and the node's own errors.
   */
  async login(options: AccountOptions): Promise<void> {
    const record = this.#store.account.get();
    if (record === undefined) throw new NoAccountError();
    if (record.userId !== options.userId) {
      throw new InvalidArgumentError('BAD_FIELD', 'login: the store is of another user');
    }
    await this.#authenticate(record, options, (connection, credentials) =>
      login(connection, credentials, options.signal),
    );
  }

  /** Starts the background connection. No effect while it runs. Throws NoAccountError. */
  start(): void {
    this.#requireDevice().start();
  }

  /** Resolves when the device is online; rejects with the signal's reason, NOT_LOGGED_IN or CLOSED. */
  async online(signal?: AbortSignal): Promise<void> {
    await this.#requireDevice().link.session(signal);
  }

  /** See Conversations.create: durable on return, needs the node. Returns the id (32 bytes). */
  async createConversation(
    options: { readonly name: string; readonly members: readonly string[] },
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    const { conversations } = this.#requireDevice();
    return conversations.create(options.name, options.members, signal);
  }

  /** See Conversations.addMembers. Throws NotCommitterError for everybody but the creator. */
  async addMembers(
    conversationId: Uint8Array,
    members: readonly string[],
    signal?: AbortSignal,
  ): Promise<void> {
    await this.#requireDevice().conversations.addMembers(conversationId, members, signal);
  }

  /** Sends a text; durable on return, also offline. The id is the message's inner id (16 bytes). */
  async send(
    conversationId: Uint8Array,
    text: string,
    signal?: AbortSignal,
  ): Promise<{ readonly id: Uint8Array }> {
    const { id } = await this.#requireDevice().conversations.send(conversationId, text, signal);
    return { id };
  }

  /**
   * Received messages that the application has not had yet, in order of arrival, and then every
   * new one, until the signal or the loop ends. A message counts as had when the next one is asked
   * for or the loop is left. After a crash the last few (at most 16) come again.
   */
  messages(
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncIterableIterator<ReceivedMessage> {
    return receivedMessages(
      { store: this.#store, runtime: this.#runtime, news: this.#requireDevice().news },
      options.signal,
    );
  }

  conversations(): readonly Conversation[] {
    return this.#store.groups.conversations().map(conversationOf);
  }

  /** User ids of a conversation's members. Throws NotFoundError UNKNOWN_GROUP. */
  async members(conversationId: Uint8Array): Promise<readonly string[]> {
    return this.#requireDevice().conversations.members(conversationId);
  }

  /**
   * Newest messages of a conversation, sent and received, in display order (lamport, inner id).
   * Throws NotFoundError UNKNOWN_GROUP.
   */
  history(conversationId: Uint8Array, limit = 1_000): readonly MessageRecord[] {
    if (this.#store.groups.conversation(conversationId) === undefined) {
      throw new NotFoundError('UNKNOWN_GROUP', 'conversation: none with this id here');
    }
    return this.#store.messages.history(conversationId, limit);
  }

  /** Rows that could never be opened. */
  undecryptable(): readonly UndecryptableRow[] {
    return this.#store.inbox.undecryptable();
  }

  /** What is pinned of a person; undefined for somebody never met. */
  contact(userId: string): Contact | undefined {
    return this.#requireDevice().contacts.get(userId);
  }

  /** Throws NoAccountError. */
  whoami(): WhoAmI {
    const record = this.#store.account.get();
    if (record === undefined) throw new NoAccountError();
    const keys = accountKeys(record);
    return {
      userId: record.userId,
      deviceId: Device.idOf(keys),
      identityPub: keys.identityKey.publicKey,
      accountKey: keys.accountKey?.publicKey,
      nodeAddress: record.nodeAddress,
      isRegistered: record.isRegistered,
      sessionExpiresMs: record.sessionExpiresMs,
    };
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

  /** Register or login over a connection of its own, then what others need to reach us. */
  async #authenticate(
    record: AccountRecord,
    { userId, password, signal }: AccountOptions,
    exchange: (
      connection: Parameters<typeof register>[0],
      credentials: Credentials,
    ) => ReturnType<typeof login>,
  ): Promise<void> {
    const keys: AccountKeys = accountKeys(record);
    const { connection } = await dialNode(
      {
        runtime: this.#runtime,
        transport: this.#transport,
        nodeAddress: record.nodeAddress,
        identity: keys.transport,
      },
      signal,
    );
    try {
      const granted = await exchange(connection, {
        userId,
        password,
        keys,
        pinnedServerKey: record.opaqueServerKey,
      });
      recordSession(this.#store, record, granted);
      const device = this.#requireDevice();
      await device.prepare(callerOf(connection));
      if (device.link.state === 'sessionExpired') device.start();
    } finally {
      await connection.close(CloseCode.Normal, 'done');
    }
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
      });
    }
    return this.#device;
  }
}

function conversationOf(record: ConversationRecord): Conversation {
  const { id, name, creator, isCommitter, suite, joinedMs } = record;
  return { id, name, creator, isCommitter, suite, joinedMs };
}

/** True when an error says that this device must log in again. */
export function needsLogin(error: unknown): boolean {
  return hasReason(error, 'NOT_LOGGED_IN');
}
