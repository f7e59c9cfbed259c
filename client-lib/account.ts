/**
 * The account of this device: its keys, registration and login by OPAQUE (RFC 9807) with the
 * device's transport key bound to its identity key. Knows nothing of conversations; dialing and
 * Hello are the client's.
 */
import {
  call,
  checkManifest,
  firstManifest,
  hasReason,
  methods,
  parseNodeAddress,
  parseUserId,
  QpcError,
  sessionMac,
  signDeviceProof,
  signingKeyFromSeed,
  Status,
  TransportError,
} from '@quicprochat/proto';
import type { Clock, LoginBinding, Random, SigningKey } from '@quicprochat/proto';
import type { Manifest, SignedManifest } from '@quicprochat/proto/messages';
import { loadIdentity, makeIdentity } from '@quicprochat/proto/transport';
import type { Connection, NodeIdentity } from '@quicprochat/proto/transport';
import { authFailed, startOpaqueLogin, startOpaqueRegistration } from './crypto/opaque.ts';
import type { AccountRecord, ClientStore } from './store/store.ts';

/** The keys of one device of one account. */
export interface AccountKeys {
  /** Signs device manifests; absent on a device that never held it. */
  readonly accountKey: SigningKey | undefined;
  readonly identityKey: SigningKey;
  /** The certificate that the device dials with. */
  readonly transport: NodeIdentity;
}

export interface Credentials {
  readonly userId: string;
  /** UTF-8. Stays the caller's, to be wiped by it. */
  readonly password: Uint8Array;
  readonly keys: AccountKeys;
  /** The node's OPAQUE key (32 bytes) that this device has pinned, when it has. */
  readonly pinnedServerKey: Uint8Array | undefined;
}

/** What a node granted; nothing of it is in the store until `recordSession`. */
export interface GrantedSession {
  readonly sessionExpiresMs: number;
  /** The node's OPAQUE key (32 bytes), to be pinned. */
  readonly serverKey: Uint8Array;
  /** Checked: signed by its account key, about this user, this device in it. */
  readonly manifest: Manifest;
}

/**
 * A failure that no retry mends. OTHER_ACCOUNT: the store belongs to somebody else.
 * NO_ACCOUNT_KEY: this device cannot register. SERVER_KEY_CHANGED: the node's OPAQUE key is not the
 * pinned one. BAD_MANIFEST: the node's manifest of the account is not this device's.
 */
export class AccountError extends QpcError {
  override name = 'AccountError';
  constructor(
    reason: 'OTHER_ACCOUNT' | 'NO_ACCOUNT_KEY' | 'SERVER_KEY_CHANGED' | 'BAD_MANIFEST',
    message: string,
    options?: { readonly cause?: unknown },
  ) {
    super(Status.FailedPrecondition, reason, message, options);
  }
}

/**
 * The store's account; made with fresh keys, durably, when there is none. Keys are on disk before
 * the node hears of them, so that a lost answer costs nothing: the next try uses the same ones.
 * An account that is not registered yet takes the new node address, or makes room for another user.
 * Throws AccountError OTHER_ACCOUNT, InvalidArgumentError for a malformed user id or address.
 */
export async function prepareAccount(
  store: ClientStore,
  owner: { readonly userId: string; readonly nodeAddress: string },
  random: Random,
): Promise<AccountRecord> {
  const { userId } = parseUserId(owner.userId);
  parseNodeAddress(owner.nodeAddress);
  const identity = await makeIdentity(random);
  return store.transaction(() => {
    const existing = store.account.get();
    if (existing?.isRegistered === true) {
      if (existing.userId === userId) return existing;
      throw new AccountError('OTHER_ACCOUNT', 'the store holds the account of another user');
    }
    const record: AccountRecord = {
      accountSeed: random.bytes(32),
      identitySeed: random.bytes(32),
      certificatePem: identity.certificatePem,
      privateKeyPem: identity.privateKeyPem,
      opaqueServerKey: undefined,
      isRegistered: false,
      sessionExpiresMs: 0,
      // The keys of an unfinished registration, but never under two names.
      ...(existing?.userId === userId ? existing : {}),
      userId,
      nodeAddress: owner.nodeAddress,
    };
    store.account.put(record);
    return record;
  });
}

/** The keys of a stored account, ready to sign and dial. */
export function accountKeys(record: AccountRecord): AccountKeys {
  return {
    accountKey:
      record.accountSeed === undefined ? undefined : signingKeyFromSeed(record.accountSeed),
    identityKey: signingKeyFromSeed(record.identitySeed),
    transport: loadIdentity(record.certificatePem, record.privateKeyPem),
  };
}

/** Keeps what a node granted. Durable on return. */
export function recordSession(
  store: ClientStore,
  record: AccountRecord,
  session: GrantedSession,
): AccountRecord {
  const updated: AccountRecord = {
    ...record,
    opaqueServerKey: session.serverKey,
    isRegistered: true,
    sessionExpiresMs: session.sessionExpiresMs,
  };
  store.transaction(() => store.account.put(updated));
  return updated;
}

/**
 * Registers the account with this device as its only one and a session for this connection's
 * transport key. Safe to repeat after a lost answer: a name that is taken by these very keys and
 * this password is a success. Throws ConflictError (status 6) NAME_TAKEN, AccountError, and what
 * the node or the connection answers.
 */
export async function register(
  connection: Connection,
  credentials: Credentials,
  clock: Clock,
  signal?: AbortSignal,
): Promise<GrantedSession> {
  try {
    return await registerOnce(connection, credentials, clock, signal);
  } catch (error) {
    if (!hasReason(error, 'NAME_TAKEN')) throw error;
    try {
      return await login(connection, credentials, signal);
    } catch (loginError) {
      // Taken by somebody else, or by us with another password: then the name is simply taken.
      const isSomebodyElse = hasReason(loginError, 'AUTH_FAILED', 'UNKNOWN_DEVICE', 'BAD_MANIFEST');
      throw isSomebodyElse ? error : loginError;
    }
  }
}

async function registerOnce(
  connection: Connection,
  credentials: Credentials,
  clock: Clock,
  signal: AbortSignal | undefined,
): Promise<GrantedSession> {
  const { userId, password, keys } = credentials;
  if (keys.accountKey === undefined) {
    throw new AccountError('NO_ACCOUNT_KEY', 'this device does not hold the account key');
  }
  const options = signal === undefined ? {} : { signal };
  await using opaque = await startOpaqueRegistration({ userId, password, ...options });
  const { request } = opaque;
  const started = await call(
    connection,
    methods.opaqueRegisterStart,
    { userId, registrationRequest: request },
    options,
  );
  const response = started.registrationResponse;
  const { record, serverKey, exportKey } = await opaque.finish({ response, ksf: started.ksf });
  exportKey.fill(0);
  const manifest = firstManifest(userId, keys.accountKey, keys.identityKey.publicKey, clock.now());
  const finished = await call(
    connection,
    methods.opaqueRegisterFinish,
    {
      handle: started.handle,
      registrationRecord: record,
      manifest,
      deviceProof: signDeviceProof(
        bindingOf(connection, keys, [request, response, record]),
        keys.identityKey,
      ),
    },
    options,
  );
  return {
    sessionExpiresMs: Number(finished.sessionExpiresMs),
    serverKey,
    manifest: ownManifest(manifest, credentials),
  };
}

/**
 * Logs this device in: afterwards the node knows it by this connection's transport key until
 * `sessionExpiresMs`. Throws UnauthenticatedError AUTH_FAILED for a wrong password and an unknown
 * user alike, UNKNOWN_DEVICE (status 4) for a device that is not in the account's manifest,
 * AccountError, and what the node or the connection answers.
 */
export async function login(
  connection: Connection,
  credentials: Credentials,
  signal?: AbortSignal,
): Promise<GrantedSession> {
  const { userId, password, keys } = credentials;
  const options = signal === undefined ? {} : { signal };
  await using opaque = await startOpaqueLogin({ userId, password, ...options });
  const { ke1 } = opaque;
  const started = await call(connection, methods.opaqueLoginStart, { userId, ke1 }, options);
  const { ke2 } = started;
  const { ke3, sessionKey, exportKey, serverKey } = await opaque.finish({
    response: ke2,
    ksf: started.ksf,
  });
  exportKey.fill(0);
  try {
    requirePinned(serverKey, credentials.pinnedServerKey);
    const binding = bindingOf(connection, keys, [ke1, ke2, ke3]);
    const finished = await call(
      connection,
      methods.opaqueLoginFinish,
      {
        handle: started.handle,
        ke3,
        identityPub: keys.identityKey.publicKey,
        deviceProof: signDeviceProof(binding, keys.identityKey),
        sessionMac: sessionMac(binding, sessionKey),
      },
      options,
    );
    if (finished.manifest === undefined) {
      throw new TransportError('protocol', 'login: the node answered without a manifest');
    }
    return {
      sessionExpiresMs: Number(finished.sessionExpiresMs),
      serverKey,
      manifest: ownManifest(finished.manifest, credentials),
    };
  } catch (error) {
    // The same error as the one that this side finds by itself.
    throw hasReason(error, 'AUTH_FAILED') ? authFailed(error) : error;
  } finally {
    sessionKey.fill(0);
  }
}

function bindingOf(
  connection: Connection,
  keys: AccountKeys,
  transcript: readonly Uint8Array[],
): LoginBinding {
  return {
    transcript,
    clientSpki: keys.transport.spkiSha256,
    nodeSpki: connection.peer.spkiSha256,
  };
}

function requirePinned(serverKey: Uint8Array, pinned: Uint8Array | undefined): void {
  if (pinned === undefined || Buffer.compare(serverKey, pinned) === 0) return;
  throw new AccountError(
    'SERVER_KEY_CHANGED',
    'the node proves itself with another OPAQUE key than at registration',
  );
}

/** The account's manifest, which must be signed by our account key and name this device. */
function ownManifest(signed: SignedManifest, { userId, keys }: Credentials): Manifest {
  let manifest: Manifest;
  try {
    manifest = checkManifest(signed, userId);
  } catch (cause) {
    throw new AccountError('BAD_MANIFEST', 'the node’s manifest of this account is not valid', {
      cause,
    });
  }
  const { accountKey, identityKey } = keys;
  if (accountKey !== undefined && Buffer.compare(manifest.akPub, accountKey.publicKey) !== 0) {
    throw new AccountError('BAD_MANIFEST', 'the account has another account key than this device');
  }
  const isInIt = manifest.devices.some(
    (device) => Buffer.compare(device.identityPub, identityKey.publicKey) === 0,
  );
  if (!isInIt) throw new AccountError('BAD_MANIFEST', 'this device is not in the manifest');
  return manifest;
}
