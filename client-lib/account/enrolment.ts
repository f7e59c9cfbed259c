/**
 * Bringing this device into an account that exists (docs/protocol/cryptography.md): the password
 * opens the recovery bundle, its account key signs the next manifest with this device in it, and the
 * log gets that. Runs over the connection of a login that is only enrolling.
 */
import {
  deviceIdOf,
  hasReason,
  manifestOfValue,
  manifestValue,
  methods,
  nextManifest,
  parseUserId,
  signingKeyFromSeed,
  checkManifest,
  ConflictError,
  type Runtime,
  sameBytes,
} from '@quicprochat/proto';
import { AccountError, type AccountKeys } from './account.ts';
import { labelOf, type Logs } from '../kt/logs.ts';
import { untilShown } from '../kt/until-shown.ts';
import type { Caller } from '../dial.ts';
import { openBundle } from './recovery-bundle.ts';
import type { ClientStore } from '../store/store.ts';

const attemptsMax = 3;

export interface EnrolmentParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly logs: Logs;
  readonly userId: string;
  readonly keys: AccountKeys;
}

/**
 * Enrolls this device; returns the end of its session (ms). The account key is durable here before
 * the node hears of the new manifest. Throws AccountError NO_BUNDLE, NEEDS_APPROVAL; VerificationError
 * or LogError when the log is not to be believed; and what the node or the connection answers.
 */
export async function enroll(
  { store, runtime, logs, userId, keys }: EnrolmentParts,
  exportKey: Uint8Array,
  caller: Caller,
): Promise<number> {
  const { bundle } = await caller.call(methods.fetchRecoveryBundle, {});
  const { seq, accountSeeds } = openBundle(userId, bundle, exportKey, 0);
  const log = await logs.of(parseUserId(userId).domain, caller);
  const identityPub = keys.identityKey.publicKey;
  for (let attempt = 1; ; attempt += 1) {
    const { value, version } = await log.client.search(log.transport(caller), labelOf(userId));
    const signed = manifestOfValue(value);
    const current = checkManifest(signed, userId);
    const accountSeed = accountSeeds.find((seed) =>
      sameBytes(signingKeyFromSeed(seed).publicKey, current.akPub),
    );
    if (accountSeed === undefined) {
      throw new AccountError('NO_BUNDLE', 'the recovery bundle has not the account key of the log');
    }
    if (current.policy?.requireCosign === true) {
      throw new AccountError('NEEDS_APPROVAL', 'the account asks for the approval of a device');
    }
    store.transaction(() => {
      const record = store.account.get();
      if (record !== undefined) store.account.put({ ...record, accountSeed, bundleSeq: seq });
    });
    const deviceId = deviceIdOf(identityPub);
    const added = { deviceId, identityPub, addedMs: BigInt(runtime.clock.now()) };
    const manifest = nextManifest(
      signed,
      { devices: [...current.devices, added] },
      { accountKey: signingKeyFromSeed(accountSeed) },
    );
    try {
      const granted = await caller.call(methods.registerDevice, { manifest });
      await requireLogged(manifestValue(manifest), version);
      return Number(granted.sessionExpiresMs);
    } catch (error) {
      // Another change came first: the next manifest follows that one.
      if (!hasReason(error, 'SEQ_CONFLICT') || attempt === attemptsMax) throw error;
    }
  }

  /** The node said that it is the version after `version`; others may have come after it already. */
  async function requireLogged(value: Uint8Array, version: number): Promise<void> {
    const search = (options?: { readonly version: number }) =>
      log.client.search(log.transport(caller), labelOf(userId), options);
    const newest = await untilShown(runtime.clock, async () => {
      const shown = await search();
      return shown.version > version ? shown : undefined;
    });
    const isNext = newest === undefined || newest.version === version + 1;
    const found = isNext ? newest : await search({ version: version + 1 });
    if (found !== undefined && sameBytes(found.value, value)) return;
    throw new ConflictError('SEQ_CONFLICT', 'account: the log shows another version');
  }
}
