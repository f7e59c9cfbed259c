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
import { authFailed, startOpaqueLogin, startOpaqueRegistration } from '../crypto/opaque.ts';
import type { AccountRecord } from '../store/account-rows.ts';
import type { ClientStore } from '../store/store.ts';

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
  /** 0 while the device is only enrolling. */
  readonly sessionExpiresMs: number;
  /** The node's OPAQUE key (32 bytes), to be pinned. */
  readonly serverKey: Uint8Array;
  /** The password's key of the recovery bundle (OPAQUE export key, 64 bytes); the caller wipes it. */
  readonly exportKey: Uint8Array;
  /** This device is not in the account's manifest: the connection may only bring it in. */
  readonly isEnrolling: boolean;
  /** The account's manifest by the node's word: believed when the log shows it. */
  readonly manifest: Manifest;
}

/**
 * A failure that no retry mends. OTHER_ACCOUNT: the store belongs to somebody else.
 * NO_ACCOUNT_KEY: this device does not hold the account key. SERVER_KEY_CHANGED: the node's OPAQUE
 * key is not the pinned one. BAD_MANIFEST: the node's manifest of the account is not this device's.
 * NOT_A_DEVICE: the account's manifest has no such device (any more). NO_BUNDLE: there is no recovery
 * bundle with the account key. OLD_BUNDLE: it is older than one that was seen. NEEDS_APPROVAL: the
 * account lets in devices only with an older one's signature.
 */
export class AccountError extends QpcError {
  override name = 'AccountError';
  constructor(
    reason:
      | 'OTHER_ACCOUNT'
      | 'NO_ACCOUNT_KEY'
      | 'SERVER_KEY_CHANGED'
      | 'BAD_MANIFEST'
      | 'NOT_A_DEVICE'
      | 'NO_BUNDLE'
      | 'OLD_BUNDLE'
      | 'NEEDS_APPROVAL',
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
  owner: {
    readonly userId: string;
    readonly nodeAddress: string;
    /** False: the account exists, and this device joins it. */
    readonly isNewAccount?: boolean;
  },
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
      accountSeed: owner.isNewAccount === false ? undefined : random.bytes(32),
      nextAccountSeed: undefined,
      bundleSeq: 0,
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

/** Keeps what a node granted, with whatever else the account's record became meanwhile. Durable. */
export function recordSession(
  store: ClientStore,
  record: AccountRecord,
  session: Pick<GrantedSession, 'serverKey' | 'sessionExpiresMs'>,
): AccountRecord {
  return store.transaction(() => {
    const updated: AccountRecord = {
      ...(store.account.get() ?? record),
      opaqueServerKey: session.serverKey,
      isRegistered: true,
      sessionExpiresMs: session.sessionExpiresMs,
    };
    store.account.put(updated);
    return updated;
  });
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
      const granted = await login(connection, credentials, signal);
      if (!granted.isEnrolling) return granted;
      granted.exportKey.fill(0);
      throw error;
    } catch (loginError) {
      if (loginError === error) throw error;
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
  const sessionExpiresMs = Number(finished.sessionExpiresMs);
  return {
    sessionExpiresMs,
    serverKey,
    exportKey,
    isEnrolling: false,
    manifest: ownManifest(manifest, credentials, true),
  };
}

/**
 * Logs this device in: afterwards the node knows it by this connection's transport key until
 * `sessionExpiresMs`; a device that is not in the account's manifest is let in to enroll. Throws UnauthenticatedError AUTH_FAILED for a wrong password and an unknown
 * user alike, AccountError, and what the node or the connection answers.
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
    const { isEnrolling } = finished;
    return {
      sessionExpiresMs: isEnrolling ? 0 : Number(finished.sessionExpiresMs),
      serverKey,
      exportKey,
      isEnrolling,
      manifest: ownManifest(finished.manifest, credentials, !isEnrolling),
    };
  } catch (error) {
    exportKey.fill(0);
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

/**
 * What the node says the account's manifest is; it only decides whether this login makes sense, as
 * keys are believed when the log shows them. Throws AccountError BAD_MANIFEST.
 */
function ownManifest(
  signed: SignedManifest,
  { userId, keys }: Credentials,
  isDevice: boolean,
): Manifest {
  let manifest: Manifest;
  try {
    manifest = checkManifest(signed, userId);
  } catch (cause) {
    throw new AccountError('BAD_MANIFEST', 'the node’s manifest of this account is not valid', {
      cause,
    });
  }
  const isInIt = manifest.devices.some(
    (device) => Buffer.compare(device.identityPub, keys.identityKey.publicKey) === 0,
  );
  if (isInIt !== isDevice) {
    throw new AccountError(
      'BAD_MANIFEST',
      isDevice ? 'this device is not in the manifest' : 'this device is in the manifest already',
    );
  }
  return manifest;
}
