/** What QpcClient is given and what it tells: options, results, and the error of a store without an account. */
import { deviceIdOf, QpcError, Status, type Runtime } from '@quicprochat/proto';
import type { Transport } from '@quicprochat/proto/transport';
import { accountKeys } from './account/account.ts';
import type { FallbackOptions } from './peers/peer-swarm.ts';
import type { AccountRecord } from './store/account-rows.ts';
import type { LossCause } from './store/resync-rows.ts';
import type { ConversationEnd, ConversationRecord } from './store/group-rows.ts';
import type { ClientStore } from './store/store.ts';

export interface OpenOptions {
  /** The device store's file; made when it is not there. `:memory:` keeps nothing. */
  readonly storePath: string;
  /** Raw 32-byte key of the store; the caller wipes it. */
  readonly storeKey: Uint8Array;
  readonly runtime?: Runtime;
  /** Default: QUIC, and TLS over TCP where UDP does not pass. */
  readonly transport?: Transport;
  /** How the store is opened; a simulation watches and breaks it. Default: the file on SQLCipher. */
  readonly openStore?: (path: string, key: Uint8Array) => ClientStore;
  /** Tells senders when `messages` handed their messages to the application; false unless told. */
  readonly sendsReadReceipts?: boolean;
  /**
   * Messages for devices whose delivery token is known go to their node without a login, so that it
   * does not learn who sends; no node tells then when one is lost. False unless told.
   */
  readonly sealedSender?: boolean;
  /**
   * Ways past the own node while it, or that of a recipient, does not answer: those nodes, and perhaps
   * the devices themselves, learn this device's address then. Absent: messages wait.
   */
  readonly fallback?: FallbackOptions | undefined;
}

export interface AccountOptions {
  /** `name@domain`. */
  readonly userId: string;
  /** UTF-8; stays the caller's, to be wiped by it. */
  readonly password: Uint8Array;
  readonly signal?: AbortSignal;
}

/** For an account, or one more device of it, at a node (`qpc://host:port#pin`). */
export interface NewDeviceOptions extends AccountOptions {
  readonly nodeAddress: string;
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

export function whoIs(record: AccountRecord): WhoAmI {
  const { userId, nodeAddress, isRegistered, sessionExpiresMs } = record;
  const { identityKey, accountKey } = accountKeys(record);
  return {
    ...{ userId, nodeAddress, isRegistered, sessionExpiresMs },
    deviceId: deviceIdOf(identityKey.publicKey),
    identityPub: identityKey.publicKey,
    accountKey: accountKey?.publicKey,
  };
}

export interface Conversation {
  /** 32 bytes. */
  readonly id: Uint8Array;
  readonly name: string;
  readonly creator: string;
  readonly suite: number;
  readonly joinedMs: number;
  /** True when this device can read and not write here: its store is an older copy of itself. */
  readonly isStale: boolean;
  /** Why nothing can be sent here any more; undefined: this device is a member. */
  readonly ended: ConversationEnd | undefined;
}

/** Where a device stands in a group's one history. */
export interface GroupState {
  readonly epoch: number;
  /**
   * The same for members of an epoch that see the same members and keys, and for nobody else (RFC 9420
   * section 8.7); people may compare it.
   */
  readonly epochAuthenticator: Uint8Array;
  /** This device lost its place, and comes back: why, and what kept it from that the last time it tried. */
  readonly lost:
    | { readonly cause: LossCause; readonly reason: string | undefined; readonly dueMs: number }
    | undefined;
}

export function conversationOf(record: ConversationRecord): Conversation {
  const { id, name, creator, suite, joinedMs, staleMs, ended } = record;
  return { id, name, creator, suite, joinedMs, isStale: staleMs !== undefined, ended };
}

/** How far a message can be known to have come. */
export type Progress = 'accepted' | 'relayed' | 'delivered' | 'read';

/** The store is of no account yet. */
export class NoAccountError extends QpcError {
  override name = 'NoAccountError';
  constructor() {
    super(Status.FailedPrecondition, 'NO_ACCOUNT', 'the store has no account: register first');
  }
}
