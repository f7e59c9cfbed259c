/**
 * A person as key-transparency logs show them: what the application may know, how sure that is, and
 * how a record of the store follows the one before (docs/developer/verification.md).
 */
import { checkManifest, manifestOfValue, QpcError, Status, sameBytes } from '@quicprochat/proto';
import type { VersionChange } from '../kt/manifest-history.ts';
import type { ManifestInfo } from '../mls/index.ts';
import type { ContactRecord, KeySource } from '../store/contact-rows.ts';

const dayMs = 24 * 3600 * 1000;

export const contactLimits = {
  /** Older than this, keys are checked again before they are used (ms). */
  freshMs: dayMs,
  /** While the log cannot be reached, keys are used until they are this old (ms). */
  unreachableMs: 7 * dayMs,
  /** The same for keys that a credential showed: its log entry may be this old (ms). */
  credentialMs: 10 * dayMs,
  /** How long a failed attempt to reach a log lets older keys pass (ms). */
  passMs: 5 * 60_000,
  /** How long a user's devices without a prekey are not asked about again (ms). */
  prekeyAskMs: 60_000,
} as const;

/**
 * How sure we are of somebody's keys, best first. `compared`: people compared the account key.
 * `witnessed`: the log shows them, and auditors of other nodes saw that log. `logged`: the log
 * shows them. `credential`: a credential of the log showed them, the log was not asked.
 * `notRechecked`: shown more than a day ago. `blocked`: the account key was replaced without its
 * signature after people had compared it. `revoked`: the device is not among the keys any more.
 * `unknown`: nothing was verified, only in stores of before key transparency.
 */
export type Verification =
  | 'compared'
  | 'witnessed'
  | 'logged'
  | 'credential'
  | 'notRechecked'
  | 'blocked'
  | 'revoked'
  | 'unknown';

/** What the application may know of a person. */
export interface Contact {
  readonly userId: string;
  readonly verification: Verification;
  /** Ed25519 account key (32 bytes): what people compare. */
  readonly accountKey: Uint8Array;
  readonly devices: readonly ContactDevice[];
  /** Version of the user's label in the log of its home. */
  readonly version: number;
  readonly firstSeenMs: number;
  /** When these keys were last shown to be the newest (ms), and the size of the log then. */
  readonly verifiedMs: number;
  readonly treeSize: number;
  /** Auditors of other nodes cosigned a head of the log that covers this. */
  readonly witnessed: boolean;
  readonly source: KeySource;
  /** People compared the account key. */
  readonly isCompared: boolean;
  /** No key of this contact is used until acceptIdentityReset or a new comparison. */
  readonly isBlocked: boolean;
  /** The account was deleted. */
  readonly isClosed: boolean;
}
export interface ContactDevice {
  readonly deviceId: string;
  /** Device identity key (32 bytes): delivery address and MLS signature key. */
  readonly identityPub: Uint8Array;
}

/**
 * Keys for a person that we refuse to use. NOT_IN_LOG: a node served keys that the log of the
 * person's home does not show. MANIFEST_ROLLBACK, MANIFEST_FORK: they are older than the known ones
 * or contradict them. IDENTITY_RESET: the account key was replaced without its signature, and people
 * had compared it. UNEXPECTED_KEY: the log shows keys for the own account that are not its own.
 */
export class ContactError extends QpcError {
  override name = 'ContactError';
  readonly userId: string;
  constructor(
    reason:
      | 'NOT_IN_LOG'
      | 'MANIFEST_ROLLBACK'
      | 'MANIFEST_FORK'
      | 'IDENTITY_RESET'
      | 'UNEXPECTED_KEY',
    userId: string,
    message: string,
    options?: { readonly cause?: unknown },
  ) {
    super(Status.FailedPrecondition, reason, `${userId}: ${message}`, options);
    this.userId = userId;
  }
}

/** What a record of the store says by itself. */
export type Loaded = Omit<Contact, 'verification' | 'witnessed'> & { readonly info: ManifestInfo };

/** A version that was shown to be a user's greatest. */
export interface ShownVersion {
  readonly version: number;
  readonly value: Uint8Array;
  readonly treeSize: number;
  readonly source: KeySource;
  /** When it was the greatest (ms). */
  readonly atMs: number;
}

/** Throws InvalidArgumentError for a record that is damaged. */
export function loadedOf(record: ContactRecord): Loaded {
  // Checked again: it costs one signature per start, and a damaged store must not add a device.
  const manifest = checkManifest(manifestOfValue(record.value), record.userId);
  const { comparedKey, accountKey } = record;
  const revoked = manifest.revoked.map(({ identityPub }) => identityPub);
  const devices = manifest.devices
    .filter(({ identityPub }) => !revoked.some((key) => sameBytes(key, identityPub)))
    .map(({ deviceId, identityPub }) => ({ deviceId, identityPub }));
  return {
    userId: record.userId,
    accountKey,
    devices,
    version: record.version,
    firstSeenMs: record.firstSeenMs,
    verifiedMs: record.verifiedMs,
    treeSize: record.treeSize,
    source: record.source,
    isCompared: comparedKey !== undefined && sameBytes(comparedKey, accountKey),
    isBlocked: comparedKey !== undefined && !sameBytes(comparedKey, accountKey),
    isClosed: manifest.closed,
    info: { devices, revoked },
  };
}

/** The record after a version was shown, with the changes that led to it. */
export function recordAfter(
  userId: string,
  current: ContactRecord | undefined,
  shown: ShownVersion,
  changes: readonly VersionChange[],
): ContactRecord {
  const { akPub } = checkManifest(manifestOfValue(shown.value), userId);
  const isReset = changes.some(({ kind }) => kind === 'identityReset');
  const compared = current?.comparedKey;
  // A key that was replaced with its own signature is as good as the one that people compared; once
  // blocked, only people unblock.
  const wasBlocked =
    compared !== undefined && current !== undefined && !sameBytes(compared, current.accountKey);
  const isNewer = current === undefined || current.verifiedMs <= shown.atMs;
  return {
    userId,
    accountKey: akPub,
    value: shown.value,
    version: shown.version,
    firstSeenMs: current?.firstSeenMs ?? shown.atMs,
    verifiedMs: isNewer ? shown.atMs : current.verifiedMs,
    treeSize: Math.max(shown.treeSize, current?.treeSize ?? 0),
    // What the log itself showed stays so when a credential repeats it.
    source: current?.source === 'log' && current.version === shown.version ? 'log' : shown.source,
    comparedKey: compared === undefined || isReset || wasBlocked ? compared : akPub,
  };
}
