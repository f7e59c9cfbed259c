/**
 * The recovery bundle (docs/protocol/cryptography.md): the account key, sealed so that only who
 * knows the password can open it, kept at the node for the account's next device. A fresh key seals
 * the contents; it is wrapped under a key of the OPAQUE export key.
 */
import { hasReason, type Random } from '@quicprochat/proto';
import { AccountError } from './account.ts';
import { aesGcmNonceLength, aesGcmOpen, aesGcmSeal, aesGcmTagLength } from '../crypto/aes-gcm.ts';
import { DecryptionError } from '../crypto/decryption-error.ts';
import { hkdfExpand, hkdfExtract } from '../crypto/hkdf.ts';

const layout = 1;
const keyBytes = 32;
const seedBytes = 32;
/** Account keys in one bundle: during a rotation the old one and the next one. */
const seedsMax = 2;
const headerBytes = 9;
const wrapBytes = aesGcmNonceLength + keyBytes + aesGcmTagLength;
/** Always of this size, so that it tells nothing of its contents: 1 number and room for the seeds. */
const contentsBytes = 1 + seedsMax * seedBytes;
const bundleBytes = headerBytes + wrapBytes + aesGcmNonceLength + contentsBytes + aesGcmTagLength;

export interface RecoveryBundle {
  /** Grows with every bundle of the account. */
  readonly seq: number;
  /** Ed25519 seeds of account keys (32 bytes each), 1 or 2; the opener wipes them. */
  readonly accountSeeds: readonly Uint8Array[];
}

/** Seals a bundle; `exportKey` (64 bytes) stays the caller's. */
export function sealBundle(
  userId: string,
  { seq, accountSeeds }: RecoveryBundle,
  exportKey: Uint8Array,
  random: Random,
): Uint8Array {
  const header = headerOf(seq);
  const contents = new Uint8Array(contentsBytes);
  contents[0] = accountSeeds.length;
  for (const [i, seed] of accountSeeds.entries()) contents.set(seed, 1 + i * seedBytes);
  const key = random.bytes(keyBytes);
  const wrapping = wrappingKey(exportKey);
  try {
    const aad = aadOf(userId, header);
    const [wrapNonce, nonce] = [random.bytes(aesGcmNonceLength), random.bytes(aesGcmNonceLength)];
    return new Uint8Array(
      Buffer.concat([
        header,
        wrapNonce,
        aesGcmSeal(wrapping, wrapNonce, aad, key),
        nonce,
        aesGcmSeal(key, nonce, aad, contents),
      ]),
    );
  } finally {
    for (const secret of [contents, key, wrapping]) secret.fill(0);
  }
}

/**
 * Opens a bundle. Throws AccountError NO_BUNDLE for one that this password does not open, OLD_BUNDLE
 * below `seqMin`.
 */
export function openBundle(
  userId: string,
  bundle: Uint8Array,
  exportKey: Uint8Array,
  seqMin: number,
): RecoveryBundle {
  const header = bundle.subarray(0, headerBytes);
  if (bundle.length !== bundleBytes || header[0] !== layout) {
    throw new AccountError('NO_BUNDLE', 'the node holds no recovery bundle of a known kind');
  }
  const wrapped = bundle.subarray(headerBytes, headerBytes + wrapBytes);
  const sealed = bundle.subarray(headerBytes + wrapBytes);
  const open = (key: Uint8Array, box: Uint8Array): Uint8Array =>
    aesGcmOpen(
      key,
      box.subarray(0, aesGcmNonceLength),
      aadOf(userId, header),
      box.subarray(aesGcmNonceLength),
    );
  const wrapping = wrappingKey(exportKey);
  let key: Uint8Array | undefined;
  let contents: Uint8Array | undefined;
  try {
    key = open(wrapping, wrapped);
    contents = open(key, sealed);
    const seq = Number(new DataView(header.buffer, header.byteOffset).getBigUint64(1));
    if (seq < seqMin) {
      throw new AccountError('OLD_BUNDLE', `recovery bundle ${seq}, at least ${seqMin} was made`);
    }
    const plain = contents;
    const accountSeeds = Array.from({ length: Math.min(seedsMax, plain[0] ?? 0) }, (_, i) =>
      plain.slice(1 + i * seedBytes, 1 + (i + 1) * seedBytes),
    );
    return { seq, accountSeeds };
  } catch (cause) {
    if (!(cause instanceof DecryptionError)) throw cause;
    throw new AccountError('NO_BUNDLE', 'the recovery bundle is not sealed by this password', {
      cause,
    });
  } finally {
    for (const secret of [wrapping, key, contents]) secret?.fill(0);
  }
}

/** Whether a failure says that there is no usable bundle, so that a new one is to be made. */
export function hasNoBundle(error: unknown): boolean {
  return hasReason(error, 'NO_BUNDLE');
}

function headerOf(seq: number): Uint8Array {
  const header = new Uint8Array(headerBytes);
  header[0] = layout;
  new DataView(header.buffer).setBigUint64(1, BigInt(seq));
  return header;
}

function aadOf(userId: string, header: Uint8Array): Uint8Array {
  return Buffer.concat([header, Buffer.from(userId)]);
}

function wrappingKey(exportKey: Uint8Array): Uint8Array {
  const prk = hkdfExtract('sha256', new Uint8Array(0), exportKey);
  try {
    return hkdfExpand('sha256', prk, Buffer.from('qpc/bundle/1'), keyBytes);
  } finally {
    prk.fill(0);
  }
}
