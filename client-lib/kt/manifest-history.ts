/**
 * What happened to a user's keys between two versions of its label (docs/developer/verification.md):
 * versions that were skipped are fetched from the log, and each is judged as the successor of the
 * one before. What cannot be shown to follow counts as an identity reset.
 */
import {
  checkManifest,
  checkNextManifest,
  ConflictError,
  InvalidArgumentError,
  manifestOfValue,
  QpcError,
  Status,
} from '@quicprochat/proto';
import type { Manifest } from '@quicprochat/proto/messages';
import type { Caller } from '../dial.ts';
import { labelOf, type DomainLog } from './logs.ts';

/** Skipped versions that are fetched one by one. */
const skippedMax = 64;

/** One step of an account's history. */
export interface VersionChange {
  readonly version: number;
  readonly value: Uint8Array;
  readonly kind: 'first' | 'devices' | 'accountKeyRotated' | 'identityReset' | 'closed';
  /** Device ids. */
  readonly added: readonly string[];
  readonly revoked: readonly string[];
}

interface Version {
  readonly version: number;
  readonly value: Uint8Array;
}

/**
 * The changes from `before` (undefined: never seen) to `shown`, in order; none for the same version.
 * Throws InvalidArgumentError when they contradict each other, and what the log's client throws.
 */
export async function historyBetween(
  userId: string,
  before: Version | undefined,
  shown: Version,
  source: { readonly log: DomainLog; readonly caller: Caller } | undefined,
): Promise<readonly VersionChange[]> {
  const { version, value } = shown;
  const after = checkManifest(manifestOfValue(shown.value), userId);
  if (after.seq !== BigInt(version)) {
    throw new InvalidArgumentError('BAD_FIELD', `manifest ${after.seq} is version ${version}`);
  }
  if (before === undefined)
    return [{ version, value, kind: 'first', added: idsOf(after), revoked: [] }];
  if (before.version === version) {
    if (Buffer.compare(before.value, shown.value) === 0) return [];
    throw new InvalidArgumentError('BAD_FIELD', `another manifest of version ${version}`);
  }
  if (version === before.version + 1) return [changeOf(userId, before, shown)];
  const skipped = await fetchBetween(userId, before.version, version, source);
  const known = checkManifest(manifestOfValue(before.value), userId);
  if (skipped === undefined) {
    // The same account key signed both: what lay between is its own affair.
    const isSameKey = Buffer.compare(known.akPub, after.akPub) === 0;
    const kind = isSameKey ? kindOf(after) : 'identityReset';
    return [{ ...differences(known, after), version, value, kind }];
  }
  const all = [before, ...skipped, shown];
  return all.slice(1).map((next, index) => changeOf(userId, all[index] ?? before, next));
}

/** The versions between two, oldest first; undefined when they are too many or not to be had. */
async function fetchBetween(
  userId: string,
  from: number,
  to: number,
  source: { readonly log: DomainLog; readonly caller: Caller } | undefined,
): Promise<Version[] | undefined> {
  if (source === undefined || to - from - 1 > skippedMax) return undefined;
  const { log, caller } = source;
  const versions: Version[] = [];
  for (let version = from + 1; version < to; version += 1) {
    try {
      versions.push(await log.client.search(log.transport(caller), labelOf(userId), { version }));
    } catch (error) {
      // Erased or expired: nothing then shows who signed the change.
      if (error instanceof QpcError && error.status === Status.NotFound) return undefined;
      throw error;
    }
  }
  return versions;
}

/** Judges one version as the successor of the one before. Throws InvalidArgumentError. */
export function changeOf(userId: string, before: Version, next: Version): VersionChange {
  const previous = manifestOfValue(before.value);
  try {
    const checked = checkNextManifest(previous, manifestOfValue(next.value), userId);
    const { manifest, change } = checked;
    const kind = change === 'next' || change === 'first' ? kindOf(manifest) : change;
    const { version, value } = next;
    return { ...differences(checkManifest(previous, userId), manifest), version, value, kind };
  } catch (cause) {
    if (!(cause instanceof ConflictError)) throw cause;
    throw new InvalidArgumentError('BAD_FIELD', cause.message, { cause });
  }
}

const kindOf = (manifest: Manifest): 'devices' | 'closed' =>
  manifest.closed ? 'closed' : 'devices';

const idsOf = ({ devices }: Manifest): string[] => devices.map(({ deviceId }) => deviceId);

function differences(before: Manifest, after: Manifest): Pick<VersionChange, 'added' | 'revoked'> {
  const [old, now] = [idsOf(before), idsOf(after)];
  return {
    added: now.filter((id) => !old.includes(id)),
    revoked: old.filter((id) => !now.includes(id)),
  };
}

/** A change in words. */
export function describeChange({ kind, added, revoked }: VersionChange): string {
  const devices = [
    ...added.map((id) => `device ${id} added`),
    ...revoked.map((id) => `device ${id} revoked`),
  ].join(', ');
  switch (kind) {
    case 'first':
      return `account key and ${added.length} devices`;
    case 'devices':
      return devices === '' ? 'policy changed' : devices;
    case 'accountKeyRotated':
      return ['account key changed, with the signature of the old one', devices]
        .filter((part) => part !== '')
        .join('; ');
    case 'identityReset':
      return ['ACCOUNT KEY REPLACED without the signature of the old one', devices]
        .filter((part) => part !== '')
        .join('; ');
    case 'closed':
      return 'account deleted';
  }
}
