/**
 * Device manifests and signed prekeys: build, sign, and check what is handed around as signed
 * bytes. The account key signs the manifest, a device in it signs its prekey.
 */
import { createHash } from 'node:crypto';
import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type MessageShape,
} from '@bufbuild/protobuf';
import {
  ManifestSchema,
  PrekeySchema,
  SignedManifestSchema,
  SignedPrekeySchema,
  type Manifest,
  type SignedManifest,
  type SignedPrekey,
} from './gen/qpc/v1/manifest_pb.ts';
import { parseUserId } from './address.ts';
import { InvalidArgumentError } from './status.ts';
import { signStatement, verifyStatement, type SigningKey } from './signature.ts';
import { isXwingPublicKey, xwingPublicKeyBytes } from './xwing-key.ts';

export const maxDevices = 16;
/** Revoked keys that a manifest lists; the oldest make room. */
export const maxRevoked = 64;
const maxReasonCharacters = 64;
export const maxManifestBytes = 8192;
/** A prekey may be valid for at most this long ahead, and is made for less (ms). */
export const maxPrekeyMs = 14 * 24 * 3600 * 1000;

const base32 = 'abcdefghijklmnopqrstuvwxyz234567';

/** Device id: first 10 bytes of SHA-256(identity key) in lower-case base32 (16 characters). */
export function deviceIdOf(identityPub: Uint8Array): string {
  const digest = createHash('sha256').update(identityPub).digest();
  let bits = 0n;
  for (const byte of digest.subarray(0, 10)) bits = (bits << 8n) | BigInt(byte);
  let text = '';
  for (let shift = 75n; shift >= 0n; shift -= 5n) text += base32[Number((bits >> shift) & 31n)];
  return text;
}

/** Version 0 of an account's manifest: one device. */
export function firstManifest(
  userId: string,
  accountKey: SigningKey,
  identityPub: Uint8Array,
  nowMs: number,
): SignedManifest {
  const manifest = create(ManifestSchema, {
    userId,
    seq: 0n,
    akPub: accountKey.publicKey,
    devices: [{ deviceId: deviceIdOf(identityPub), identityPub, addedMs: BigInt(nowMs) }],
    policy: {},
  });
  const bytes = toBinary(ManifestSchema, manifest);
  return create(SignedManifestSchema, {
    manifest: bytes,
    signature: signStatement('qpc/manifest/1', bytes, accountKey),
  });
}

/**
 * Decodes a signed manifest and checks everything that stands in it alone: the account key's
 * signature, the user id, sizes, device ids and uniqueness. Whether the account key is the user's
 * is another question (key transparency). Throws InvalidArgumentError.
 */
export function checkManifest(signed: SignedManifest, userId: string): Manifest {
  const { length } = signed.manifest;
  if (length > maxManifestBytes) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      `manifest: ${length} bytes, at most ${maxManifestBytes}`,
    );
  }
  const manifest = decode(ManifestSchema, signed.manifest, 'manifest');
  if (!verifyStatement('qpc/manifest/1', signed.manifest, signed.signature, manifest.akPub)) {
    throw new InvalidArgumentError('BAD_SIGNATURE', 'manifest: not signed by its account key');
  }
  parseUserId(manifest.userId);
  if (manifest.userId !== userId) {
    throw new InvalidArgumentError('BAD_FIELD', 'manifest: is about another user');
  }
  if (manifest.seq > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new InvalidArgumentError('BAD_FIELD', 'manifest: version above 2^53 - 1');
  }
  const { devices } = manifest;
  if (devices.length > maxDevices) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      `manifest: ${devices.length} devices, at most ${maxDevices}`,
    );
  }
  const keys = new Set<string>();
  for (const device of devices) {
    if (device.identityPub.length !== 32) {
      throw new InvalidArgumentError(
        'BAD_FIELD',
        `manifest: identity key of ${device.identityPub.length} bytes, need 32`,
      );
    }
    if (device.deviceId !== deviceIdOf(device.identityPub)) {
      throw new InvalidArgumentError('BAD_FIELD', 'manifest: device id does not belong to its key');
    }
    keys.add(device.deviceId);
  }
  if (keys.size !== devices.length) {
    throw new InvalidArgumentError('BAD_FIELD', 'manifest: a device stands in it twice');
  }
  checkLists(manifest);
  return manifest;
}

/** Sizes of what checkManifest's loops do not look at. Throws InvalidArgumentError BAD_FIELD. */
function checkLists({ devices, revoked, prev, akPrev }: Manifest): void {
  const isKeyOrEmpty = ({ length }: Uint8Array): boolean => length === 0 || length === 32;
  const isSound =
    isKeyOrEmpty(prev) &&
    isKeyOrEmpty(akPrev) &&
    devices.every((one) => isKeyOrEmpty(one.nameHash) && isKeyOrEmpty(one.cosignedBy)) &&
    revoked.length <= maxRevoked &&
    revoked.every((one) => one.identityPub.length === 32) &&
    revoked.every((one) => one.reason.length <= maxReasonCharacters);
  if (!isSound) {
    throw new InvalidArgumentError('BAD_FIELD', 'manifest: a key, hash or reason of a wrong size');
  }
}

function decode<T extends DescMessage>(
  schema: T,
  bytes: Uint8Array,
  what: string,
): MessageShape<T> {
  try {
    return fromBinary(schema, bytes);
  } catch (cause) {
    throw new InvalidArgumentError('BAD_FIELD', `${what}: not the encoded message`, { cause });
  }
}

/** Signs a device's X-Wing key (1216 bytes) as a prekey. */
export function signPrekey(
  identityKey: SigningKey,
  xwingPub: Uint8Array,
  notAfterMs: number,
): SignedPrekey {
  const prekey = toBinary(
    PrekeySchema,
    create(PrekeySchema, {
      deviceId: deviceIdOf(identityKey.publicKey),
      xwingPub,
      notAfterMs: BigInt(notAfterMs),
    }),
  );
  return create(SignedPrekeySchema, {
    prekey,
    signature: signStatement('qpc/hybrid/1', prekey, identityKey),
  });
}

export interface CheckedPrekey {
  readonly xwingPub: Uint8Array;
  readonly notAfterMs: number;
}

/**
 * Checks a prekey against the device key that must have signed it and against the time.
 * Throws InvalidArgumentError BAD_SIGNATURE or BAD_FIELD (wrong device, size, expired, too far ahead, no
 * key that anything can be sealed to).
 */
export function checkPrekey(
  signed: SignedPrekey,
  identityPub: Uint8Array,
  nowMs: number,
): CheckedPrekey {
  if (!verifyStatement('qpc/hybrid/1', signed.prekey, signed.signature, identityPub)) {
    throw new InvalidArgumentError('BAD_SIGNATURE', 'prekey: not signed by the device');
  }
  const prekey = decode(PrekeySchema, signed.prekey, 'prekey');
  const notAfterMs = Number(prekey.notAfterMs);
  if (prekey.deviceId !== deviceIdOf(identityPub)) {
    throw new InvalidArgumentError('BAD_FIELD', 'prekey: names another device');
  }
  if (prekey.xwingPub.length !== xwingPublicKeyBytes) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      `prekey: key of ${prekey.xwingPub.length} bytes, need ${xwingPublicKeyBytes}`,
    );
  }
  if (!isXwingPublicKey(prekey.xwingPub)) {
    throw new InvalidArgumentError('BAD_FIELD', 'prekey: nothing can be sealed to its key');
  }
  // One day of grace ahead for clocks that differ; expiry has none, it is the protection.
  if (notAfterMs <= nowMs || notAfterMs > nowMs + maxPrekeyMs + 24 * 3600 * 1000) {
    throw new InvalidArgumentError('BAD_FIELD', 'prekey: expired, or valid for more than 14 days');
  }
  return { xwingPub: prekey.xwingPub, notAfterMs };
}
