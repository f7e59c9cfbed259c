/**
 * Authentication Service: OPAQUE registration and login (RFC 9807), and the binding of a device's
 * transport key to its account; a new device gets as far as being registered. Unknown user and wrong password answer alike.
 */
import {
  checkNextManifest,
  InvalidArgumentError,
  ksfArgon2id,
  NotFoundError,
  parseUserId,
  ResourceExhaustedError,
  TokenBuckets,
  UnauthenticatedError,
  verifyDeviceProof,
  verifySessionMac,
  type CallContext,
  type Clock,
  type Handlers,
  type LoginBinding,
  type Rate,
} from '@quicprochat/proto';
import { fromBinary, ManifestSchema } from '@quicprochat/proto/messages';
import { limitKey } from '@quicprochat/proto/transport';
import type { Accounts } from '../accounts.ts';
import type { ExchangeTable, OpaqueServer } from '../opaque.ts';
import type { PushHub } from '../push.ts';
import type { Sessions } from '../sessions.ts';
import type { NodeStore } from '../store/store.ts';
import { deviceOf } from './caller.ts';

/** The OPAQUE setup that new registrations are made under. */
const currentSetupId = 1;

/** An exchange between its two calls. */
export type AuthExchange =
  | {
      readonly kind: 'register';
      readonly userId: string;
      readonly messages: readonly Uint8Array[];
    }
  | {
      readonly kind: 'login';
      readonly userId: string;
      readonly messages: readonly Uint8Array[];
      readonly state: Uint8Array;
    };

export interface AuthParts {
  readonly domain: string;
  readonly clock: Clock;
  readonly store: NodeStore;
  readonly accounts: Accounts;
  readonly opaque: OpaqueServer;
  readonly exchanges: ExchangeTable<AuthExchange>;
  readonly sessions: Sessions;
  readonly push: PushHub;
  readonly nodeSpki: Uint8Array;
  readonly sessionTtlMs: number;
  /** Tries per user id, on top of the per-address limit of the method table. */
  readonly ratePerUser: Rate;
}

export function authHandlers(
  parts: AuthParts,
): Pick<
  Handlers,
  | 'opaqueRegisterStart'
  | 'opaqueRegisterFinish'
  | 'opaqueLoginStart'
  | 'opaqueLoginFinish'
  | 'logout'
> {
  const { store, opaque, exchanges, sessions, clock } = parts;
  const perUser = new TokenBuckets(clock);

  function admit(userId: string): void {
    if (parseUserId(userId).domain !== parts.domain) {
      throw new InvalidArgumentError('BAD_FIELD', `user id: this node serves ${parts.domain}`);
    }
    const waitMs = perUser.take(userId, parts.ratePerUser);
    if (waitMs > 0) {
      throw new ResourceExhaustedError('RATE_LIMITED', 'too many tries for this user', {
        retryAfterMs: waitMs,
      });
    }
  }

  function binding(context: CallContext, messages: readonly Uint8Array[]): LoginBinding {
    return {
      transcript: messages,
      clientSpki: context.connection.peer.spkiSha256,
      nodeSpki: parts.nodeSpki,
    };
  }

  return {
    async opaqueRegisterStart(request, { connection }) {
      admit(request.userId);
      const response = opaque.startRegistration(request.userId, request.registrationRequest);
      const handle = exchanges.open(connection, limitKey(connection.peer.host), {
        kind: 'register',
        userId: request.userId,
        messages: [request.registrationRequest, response],
      });
      return { registrationResponse: response, ksf: ksfArgon2id, handle };
    },

    async opaqueRegisterFinish(request, context) {
      const exchange = exchanges.take(context.connection, request.handle);
      const { manifest: signed } = request;
      if (exchange.kind !== 'register' || signed === undefined) throw authFailed();
      const { manifest } = checkNextManifest(undefined, signed, exchange.userId);
      const [device] = manifest.devices;
      if (device === undefined || manifest.devices.length !== 1) {
        throw new InvalidArgumentError(
          'BAD_FIELD',
          'manifest: need exactly the registering device',
        );
      }
      const bound = binding(context, [...exchange.messages, request.registrationRecord]);
      if (!verifyDeviceProof(bound, request.deviceProof, device.identityPub)) {
        throw new InvalidArgumentError(
          'BAD_SIGNATURE',
          'device proof: not by the registering device',
        );
      }
      const sessionExpiresMs = clock.now() + parts.sessionTtlMs;
      const account = {
        userId: exchange.userId,
        setupId: currentSetupId,
        opaqueRecord: request.registrationRecord,
        device: {
          deviceId: device.deviceId,
          identityPub: device.identityPub,
          transportSpki: context.connection.peer.spkiSha256,
        },
        sessionExpiresMs,
      };
      await parts.accounts.register(account, signed);
      sessions.endEnrolling(context.connection);
      return { sessionExpiresMs: BigInt(sessionExpiresMs) };
    },

    async opaqueLoginStart(request, { connection }) {
      admit(request.userId);
      // One look-up for known and unknown users; without a record OPAQUE answers with a fake one.
      const account = await store.account(request.userId);
      const { ke2, state } = opaque.startLogin(request.userId, account?.opaqueRecord, request.ke1);
      const handle = exchanges.open(connection, limitKey(connection.peer.host), {
        kind: 'login',
        userId: request.userId,
        messages: [request.ke1, ke2],
        state,
      });
      return { ke2, ksf: ksfArgon2id, handle };
    },

    async opaqueLoginFinish(request, context) {
      const exchange = exchanges.take(context.connection, request.handle);
      if (exchange.kind !== 'login') throw authFailed();
      // Throws AUTH_FAILED for a wrong password and for an unknown user alike.
      const sessionKey = opaque.finishLogin(exchange.userId, exchange.state, request.ke3);
      const bound = binding(context, [...exchange.messages, request.ke3]);
      const isMacValid = verifySessionMac(bound, request.sessionMac, sessionKey);
      sessionKey.fill(0);
      if (!isMacValid) throw authFailed();
      if (!verifyDeviceProof(bound, request.deviceProof, request.identityPub)) {
        throw new InvalidArgumentError('BAD_SIGNATURE', 'device proof: not by the named device');
      }
      const account = await store.account(exchange.userId);
      if (account === undefined) throw authFailed();
      const { manifest } = account;
      const { identityPub } = request;
      const { devices, revoked } = fromBinary(ManifestSchema, manifest.manifest);
      if (hasKey(revoked, identityPub)) {
        throw new NotFoundError('UNKNOWN_DEVICE', 'this device was revoked');
      }
      if (!hasKey(devices, identityPub)) {
        const { userId } = exchange;
        const expiresMs = sessions.bindEnrolling(context.connection, userId, identityPub);
        return { sessionExpiresMs: BigInt(expiresMs), manifest, isEnrolling: true };
      }
      const sessionExpiresMs = clock.now() + parts.sessionTtlMs;
      const { spkiSha256 } = context.connection.peer;
      await store.bindSession(exchange.userId, identityPub, spkiSha256, sessionExpiresMs);
      sessions.endEnrolling(context.connection);
      sessions.forgetDevice(identityPub);
      sessions.forget(spkiSha256);
      return { sessionExpiresMs: BigInt(sessionExpiresMs), manifest };
    },

    async logout(_request, context) {
      const device = deviceOf(context);
      await store.endSession(context.connection.peer.spkiSha256);
      sessions.forget(context.connection.peer.spkiSha256);
      parts.push.end(device.identityPub);
      return {};
    },
  };
}

function hasKey(
  list: readonly { readonly identityPub: Uint8Array }[],
  identityPub: Uint8Array,
): boolean {
  return list.some((one) => Buffer.compare(one.identityPub, identityPub) === 0);
}

function authFailed(): UnauthenticatedError {
  return new UnauthenticatedError('AUTH_FAILED', 'wrong user name or password');
}
