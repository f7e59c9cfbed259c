/**
 * Signing in at the account's node, over a connection of its own each time: register, login, one
 * device more, and what a device needs besides the session before others can reach it. A login also
 * gives the password's key, for what only that opens.
 */
import {
  InvalidArgumentError,
  parseNodeAddress,
  parseUserId,
  type Runtime,
} from '@quicprochat/proto';
import type { Connection, Transport } from '@quicprochat/proto/transport';
import { NoAccountError, type AccountOptions, type NewDeviceOptions } from '../client-types.ts';
import type { Device } from '../device.ts';
import { callerOf, overConnection, type Caller } from '../dial.ts';
import { Logs } from '../kt/logs.ts';
import type { AccountRecord } from '../store/account-rows.ts';
import type { ClientStore } from '../store/store.ts';
import {
  accountKeys,
  login,
  prepareAccount,
  recordSession,
  register,
  AccountError,
  type AccountKeys,
  type Credentials,
  type GrantedSession,
} from './account.ts';
import { enroll } from './enrolment.ts';

export interface SignInParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly transport: Transport;
  /** The running parts of the account; asked for only once the store has its record. */
  readonly device: () => Device;
}

type Exchange = (connection: Connection, credentials: Credentials) => Promise<GrantedSession>;

export class SignIn {
  readonly #parts: SignInParts;

  constructor(parts: SignInParts) {
    this.#parts = parts;
  }

  /** See QpcClient.register. */
  async register(options: NewDeviceOptions): Promise<void> {
    const { store, runtime } = this.#parts;
    const owner = { ...options, isNewAccount: true };
    const record = await prepareAccount(store, owner, runtime.random);
    await this.#begin(record, options, (connection, credentials) =>
      register(connection, credentials, runtime.clock, options.signal),
    );
  }

  /** See QpcClient.login. */
  async login(options: AccountOptions): Promise<void> {
    const record = this.#record();
    if (record.userId !== options.userId) {
      throw new InvalidArgumentError('BAD_FIELD', 'login: the store is of another user');
    }
    await this.#begin(record, options, byLogin(options));
  }

  /** See QpcClient.addDevice. */
  async addDevice(options: NewDeviceOptions): Promise<void> {
    const { store, runtime } = this.#parts;
    const owner = { ...options, isNewAccount: false };
    const record = await prepareAccount(store, owner, runtime.random);
    await this.#begin(record, options, byLogin(options));
  }

  /**
   * Logs in once more, for what needs the password's key (64 bytes, wiped afterwards). Throws AccountError
   * NOT_A_DEVICE, what `login` throws, and what the work throws.
   */
  async again(
    options: AccountOptions,
    work: (caller: Caller, exportKey: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const record = this.#record();
    await this.#exchange(record, options, byLogin(options), async (connection, granted) => {
      if (granted.isEnrolling) throw new AccountError('NOT_A_DEVICE', 'this device was revoked');
      recordSession(this.#parts.store, record, granted);
      await work(callerOf(connection), granted.exportKey);
    });
  }

  /** The exchange, then what others need to reach this device. */
  async #begin(record: AccountRecord, options: AccountOptions, exchange: Exchange): Promise<void> {
    await this.#exchange(record, options, exchange, async (connection, granted, keys) => {
      const caller = callerOf(connection);
      const sessionExpiresMs = granted.isEnrolling
        ? await this.#enroll(record, granted, keys, caller)
        : granted.sessionExpiresMs;
      recordSession(this.#parts.store, record, { ...granted, sessionExpiresMs });
      const device = this.#parts.device();
      await device.prepare(caller);
      await device.changes.keepBundle(granted.exportKey, caller, options.signal);
      if (device.link.state === 'sessionExpired') device.start();
    });
  }

  /** Brings this device into its account; returns the end of its session (ms). */
  async #enroll(
    record: AccountRecord,
    { exportKey }: GrantedSession,
    keys: AccountKeys,
    caller: Caller,
  ): Promise<number> {
    // A device that was in the account once does not come back: its key is revoked.
    if (record.isRegistered) {
      throw new AccountError('NOT_A_DEVICE', 'this device was revoked: make a new one');
    }
    const { store, runtime } = this.#parts;
    const { userId, nodeAddress } = record;
    // The running parts have their own: they come only after this device is in its account.
    const own = { domain: parseUserId(userId).domain, pin: parseNodeAddress(nodeAddress).pin };
    const logs = new Logs({ store, runtime, own, onRefused: () => undefined });
    return enroll({ store, runtime, logs, userId, keys }, exportKey, caller);
  }

  async #exchange(
    record: AccountRecord,
    { userId, password, signal }: AccountOptions,
    exchange: Exchange,
    then: (connection: Connection, granted: GrantedSession, keys: AccountKeys) => Promise<void>,
  ): Promise<void> {
    const { runtime, transport } = this.#parts;
    const keys = accountKeys(record);
    const { nodeAddress, opaqueServerKey: pinnedServerKey } = record;
    const credentials = { userId, password, keys, pinnedServerKey };
    await overConnection(
      { runtime, transport, nodeAddress, identity: keys.transport },
      async (connection) => {
        const granted = await exchange(connection, credentials);
        try {
          await then(connection, granted, keys);
        } finally {
          granted.exportKey.fill(0);
        }
      },
      signal,
    );
  }

  #record(): AccountRecord {
    const record = this.#parts.store.account.get();
    if (record === undefined) throw new NoAccountError();
    return record;
  }
}

function byLogin({ signal }: AccountOptions): Exchange {
  return (connection, credentials) => login(connection, credentials, signal);
}
