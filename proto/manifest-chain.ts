/**
 * How an account's manifests follow one another: what the next version may change and who has to
 * have signed it. The node applies this before it logs a version, the client to every version that
 * the log shows. A version's value in the log is the encoded SignedManifest.
 */
import { hex, sameBytes } from './bytes.ts';
import { createHash } from 'node:crypto';
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf';
import {
  ManifestSchema,
  SignedManifestSchema,
  type Manifest,
  type SignedManifest,
} from './gen/qpc/v1/manifest_pb.ts';
import { checkManifest, maxRevoked } from './manifest.ts';
import { signStatement, verifyStatement, type SigningKey } from './signature.ts';
import { ConflictError, InvalidArgumentError } from './status.ts';

/**
 * What a version did to the account key. `identityReset`: another account key that the old one did
 * not sign for; legal, and loud at every contact.
 */
export type ManifestChange = 'first' | 'next' | 'accountKeyRotated' | 'identityReset';

export interface CheckedManifest {
  readonly manifest: Manifest;
  readonly change: ManifestChange;
}

/** A signed manifest as the value of its version in the log, and back. */
export function manifestValue(signed: SignedManifest): Uint8Array {
  return toBinary(SignedManifestSchema, signed);
}

/** Throws InvalidArgumentError BAD_FIELD for anything but an encoded SignedManifest. */
export function manifestOfValue(value: Uint8Array): SignedManifest {
  try {
    return fromBinary(SignedManifestSchema, value);
  } catch (cause) {
    throw new InvalidArgumentError('BAD_FIELD', 'manifest: not an encoded SignedManifest', {
      cause,
    });
  }
}

/**
 * Checks `next` alone and as the version after `previous` (undefined: as version 0). Throws
 * ConflictError SEQ_CONFLICT when it does not continue `previous`, InvalidArgumentError BAD_FIELD or
 * BAD_SIGNATURE for everything else.
 */
export function checkNextManifest(
  previous: SignedManifest | undefined,
  next: SignedManifest,
  userId: string,
): CheckedManifest {
  const manifest = checkManifest(next, userId);
  need(
    manifest.closed ? manifest.devices.length === 0 : manifest.devices.length > 0,
    'has devices, unless it closes the account',
  );
  if (previous === undefined) {
    const isFirst = manifest.seq === 0n && manifest.prev.length === 0 && !manifest.closed;
    need(isFirst && manifest.revoked.length === 0, 'version 0 stands alone');
    need(manifest.akPrev.length === 0, 'version 0 has no previous account key');
    return { manifest, change: 'first' };
  }
  const before = checkManifest(previous, userId);
  const digest = createHash('sha256').update(previous.manifest).digest();
  const follows = manifest.seq === before.seq + 1n && sameBytes(manifest.prev, digest);
  if (!follows || before.closed) {
    throw new ConflictError('SEQ_CONFLICT', `manifest: does not follow version ${before.seq}`);
  }
  checkRevoked(before, manifest);
  const change = changeOfAccountKey(before, next, manifest);
  if (before.policy?.requireCosign === true && change !== 'identityReset') {
    checkApproval(before, next, manifest);
  }
  return { manifest, change };
}

/** A device leaves by being revoked, and a revoked key never comes back. */
function checkRevoked(before: Manifest, after: Manifest): void {
  const revoked = keysOf(after.revoked);
  const devices = keysOf(after.devices);
  need(
    after.devices.every((device) => !revoked.has(hex(device.identityPub))),
    'no device is revoked',
  );
  need(
    before.devices.every(({ identityPub }) => {
      const key = hex(identityPub);
      return devices.has(key) || revoked.has(key);
    }),
    'a device that is gone is revoked',
  );
  const known = keysOf(before.revoked);
  const added = after.revoked.filter(({ identityPub }) => !known.has(hex(identityPub))).length;
  // The list is bounded: its oldest entries make room for new ones.
  const kept = before.revoked.slice(Math.max(0, before.revoked.length - (maxRevoked - added)));
  need(
    kept.every(({ identityPub }) => revoked.has(hex(identityPub))),
    'what was revoked stays revoked',
  );
}

function changeOfAccountKey(
  before: Manifest,
  signed: SignedManifest,
  after: Manifest,
): ManifestChange {
  if (sameBytes(before.akPub, after.akPub)) {
    need(after.akPrev.length === 0, 'the account key is the same');
    return 'next';
  }
  if (after.akPrev.length === 0) return 'identityReset';
  need(sameBytes(after.akPrev, before.akPub), 'ak_prev is the previous account key');
  if (!verifyStatement('qpc/manifest/1', signed.manifest, signed.akPrevSignature, before.akPub)) {
    throw new InvalidArgumentError('BAD_SIGNATURE', 'manifest: not signed by ak_prev');
  }
  return 'accountKeyRotated';
}

/** With `require_cosign`, new devices and the end of that rule need a device that was there. */
function checkApproval(before: Manifest, signed: SignedManifest, after: Manifest): void {
  const known = keysOf(before.devices);
  const added = after.devices.filter(({ identityPub }) => !known.has(hex(identityPub)));
  const isRuleKept = after.closed || after.policy?.requireCosign === true;
  if (added.length === 0 && isRuleKept) return;
  const approvers = before.devices.filter(
    (device) =>
      !keysOf(after.revoked).has(hex(device.identityPub)) &&
      added.every((one) => sameBytes(one.cosignedBy, device.identityPub)),
  );
  const isApproved = approvers.some(({ identityPub }) =>
    verifyStatement('qpc/device-approval/1', signed.manifest, signed.approval, identityPub),
  );
  if (!isApproved) {
    throw new InvalidArgumentError('BAD_SIGNATURE', 'manifest: needs the approval of a device');
  }
}

/** Who signs a version besides the account key. */
export interface ManifestSigners {
  /** The account key of the new version. */
  readonly accountKey: SigningKey;
  /** The previous account key, when `accountKey` is another; without it the version is a reset. */
  readonly previousAccountKey?: SigningKey;
  /** A device of the previous version, where its policy asks for approval. */
  readonly approver?: SigningKey;
}

/** Makes and signs the version after `previous`, with some of its fields replaced. */
export function nextManifest(
  previous: SignedManifest,
  changes: Pick<
    MessageInitShape<typeof ManifestSchema>,
    'devices' | 'revoked' | 'policy' | 'closed'
  >,
  signers: ManifestSigners,
): SignedManifest {
  const before = fromBinary(ManifestSchema, previous.manifest);
  const { accountKey, previousAccountKey, approver } = signers;
  const manifest = toBinary(
    ManifestSchema,
    create(ManifestSchema, {
      userId: before.userId,
      devices: before.devices,
      revoked: before.revoked,
      ...(before.policy === undefined ? {} : { policy: before.policy }),
      ...changes,
      seq: before.seq + 1n,
      prev: createHash('sha256').update(previous.manifest).digest(),
      akPub: accountKey.publicKey,
      ...(previousAccountKey === undefined ? {} : { akPrev: previousAccountKey.publicKey }),
    }),
  );
  const signature = signStatement('qpc/manifest/1', manifest, accountKey);
  return create(SignedManifestSchema, {
    manifest,
    signature,
    ...(previousAccountKey === undefined
      ? {}
      : { akPrevSignature: signStatement('qpc/manifest/1', manifest, previousAccountKey) }),
    ...(approver === undefined
      ? {}
      : { approval: signStatement('qpc/device-approval/1', manifest, approver) }),
  });
}

function need(isHeld: boolean, rule: string): void {
  if (!isHeld) throw new InvalidArgumentError('BAD_FIELD', `manifest: broken rule: ${rule}`);
}

const keysOf = (list: readonly { readonly identityPub: Uint8Array }[]): Set<string> =>
  new Set(list.map(({ identityPub }) => hex(identityPub)));
