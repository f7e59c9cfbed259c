/**
 * Handlers of an account's devices, keys and recovery bundle. What changes the account carries its
 * next manifest and is answered when the key-transparency log has it (accounts.ts).
 */
import { InvalidArgumentError, NotFoundError, type Clock, type Handlers } from '@quicprochat/proto';
import type { SignedManifest } from '@quicprochat/proto/messages';
import type { Accounts } from '../accounts.ts';
import type { Sessions } from '../sessions.ts';
import type { NodeStore } from '../store/store.ts';
import { accountOf, deviceOf, enrollingOf } from './caller.ts';

export interface DeviceParts {
  readonly clock: Clock;
  readonly store: NodeStore;
  readonly accounts: Accounts;
  readonly sessions: Sessions;
  readonly sessionTtlMs: number;
}

export function deviceHandlers(
  parts: DeviceParts,
): Pick<
  Handlers,
  | 'resolveIdentity'
  | 'revokeKey'
  | 'registerDevice'
  | 'listDevices'
  | 'revokeDevice'
  | 'storeRecoveryBundle'
  | 'fetchRecoveryBundle'
  | 'deleteRecoveryBundle'
  | 'deleteAccount'
> {
  const { store, accounts, sessions, clock } = parts;

  return {
    async resolveIdentity({ identityPub }) {
      const account = await store.accountByIdentity(identityPub);
      if (account === undefined) {
        throw new NotFoundError('UNKNOWN_DEVICE', 'no device of this node has that key');
      }
      return { userId: account.userId };
    },

    async registerDevice({ manifest }, context) {
      const { userId, identityPub } = enrollingOf(context);
      const { connection } = context;
      const transportSpki = connection.peer.spkiSha256;
      const sessionExpiresMs = clock.now() + parts.sessionTtlMs;
      await accounts.change(userId, given(manifest), {
        kind: 'enroll',
        identityPub,
        transportSpki,
        sessionExpiresMs,
      });
      sessions.endEnrolling(connection);
      return { sessionExpiresMs: BigInt(sessionExpiresMs) };
    },

    async listDevices(_request, context) {
      const devices = await store.devices(accountOf(context));
      return {
        devices: devices.map(({ deviceId, identityPub, addedMs, ...session }) => ({
          deviceId,
          identityPub,
          addedMs: BigInt(addedMs ?? 0),
          sessionExpiresMs:
            session.transportSpki === undefined ? 0n : BigInt(session.sessionExpiresMs),
        })),
      };
    },

    async revokeDevice({ manifest }, context) {
      const { userId, identityPub } = deviceOf(context);
      await accounts.change(userId, given(manifest), { kind: 'revokeDevice', identityPub });
      return {};
    },

    async revokeKey({ manifest }, context) {
      const { userId, identityPub } = deviceOf(context);
      await accounts.change(userId, given(manifest), { kind: 'revokeKey', identityPub });
      return {};
    },

    async deleteAccount({ manifest }, context) {
      const { userId, identityPub } = deviceOf(context);
      await accounts.change(userId, given(manifest), { kind: 'close', identityPub });
      return {};
    },

    async storeRecoveryBundle({ bundle }, context) {
      await store.putRecoveryBundle(deviceOf(context).userId, bundle);
      return {};
    },

    async fetchRecoveryBundle(_request, context) {
      const bundle = await store.recoveryBundle(accountOf(context));
      return bundle === undefined ? {} : { bundle };
    },

    async deleteRecoveryBundle(_request, context) {
      await store.deleteRecoveryBundle(deviceOf(context).userId);
      return {};
    },
  };
}

/** The method table demands it; this keeps the types honest. */
function given(manifest: SignedManifest | undefined): SignedManifest {
  if (manifest === undefined) throw new InvalidArgumentError('BAD_FIELD', 'manifest: is missing');
  return manifest;
}
