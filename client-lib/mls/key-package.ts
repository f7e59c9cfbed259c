/**
 * KeyPackages (RFC 9420 section 10): making them, and judging those of others. The published
 * form is the bare KeyPackage struct, not wrapped into an MLSMessage.
 */
import type { KeyPackage, Lifetime, PrivateKeyPackage } from 'ts-mls';
import { isMlsSuite } from '../crypto/provider.ts';
import type { MlsSuite } from '../crypto/provider.ts';
import { concat } from '../crypto/octets.ts';
import { identityOf } from './authentication.ts';
import { cipherSuite, decodeExactly } from './context.ts';
import type { MlsParts } from './context.ts';
import { MlsError } from './errors.ts';
import { credentialIdentity } from './identity.ts';
import type { Identity } from './identity.ts';
import {
  defaultCredentialTypes,
  encode,
  generateKeyPackageWithKey,
  keyPackageDecoder,
  keyPackageEncoder,
  makeCustomExtension,
  makeKeyPackageRef,
  protocolVersions,
} from './library.ts';
import { Reader, vector } from './presentation.ts';
import { capabilities, lastResortExtensionType, limits, sameBytes } from './suite.ts';
import { verifyKeyPackageSignatures } from './key-package-signature.ts';

const day = 86_400_000;
const lifetimes = { backMs: day, singleUseMs: 28 * day, lastResortMs: 90 * day } as const;

/** A device's MLS signature key: Ed25519, 32 bytes each. */
export interface SignatureKey {
  readonly publicKey: Uint8Array;
  readonly seed: Uint8Array;
}

/** A new KeyPackage. `privateBytes` is secret and complete: one row of the store, under `ref`. */
export interface MadeKeyPackage {
  readonly publicBytes: Uint8Array;
  /** KeyPackageRef, 32 bytes in suite 1 and 64 in X-Wing. RFC 9420 section 5.2. */
  readonly ref: Uint8Array;
  readonly privateBytes: Uint8Array;
  readonly notAfterMs: number;
}

/** What an inspected KeyPackage says, all of it verified against its own signatures. */
export interface KeyPackageInfo extends Identity {
  readonly suite: MlsSuite;
  readonly signatureKey: Uint8Array;
  readonly ref: Uint8Array;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly isLastResort: boolean;
}

/** Makes a KeyPackage valid from a day ago for 28 days, or 90 days as a last resort. */
export async function makeKeyPackage(
  parts: MlsParts,
  request: {
    readonly suite: MlsSuite;
    readonly identity: Identity;
    readonly signatureKey: SignatureKey;
    readonly lastResort?: boolean;
  },
): Promise<MadeKeyPackage> {
  const { suite, lastResort = false } = request;
  const cs = await cipherSuite(parts, suite);
  const nowMs = parts.clock.now();
  const notAfterMs = nowMs + (lastResort ? lifetimes.lastResortMs : lifetimes.singleUseMs);
  const made = await generate(parts, request, {
    notBefore: seconds(nowMs - lifetimes.backMs),
    notAfter: seconds(notAfterMs),
  });
  const publicBytes = encode(keyPackageEncoder, made.publicPackage);
  const { initPrivateKey, hpkePrivateKey } = made.privatePackage;
  return {
    publicBytes,
    ref: await makeKeyPackageRef(made.publicPackage, cs.hash),
    privateBytes: concat(
      Uint8Array.of(1),
      vector(initPrivateKey),
      vector(hpkePrivateKey),
      publicBytes,
    ),
    notAfterMs,
  };
}

/** The library's KeyPackage with our credential, capabilities and extensions. */
export async function generate(
  parts: MlsParts,
  request: {
    readonly suite: MlsSuite;
    readonly identity: Identity;
    readonly signatureKey: SignatureKey;
    readonly lastResort?: boolean;
  },
  lifetime: Lifetime,
): Promise<{ publicPackage: KeyPackage; privatePackage: PrivateKeyPackage }> {
  const { userId, deviceId } = request.identity;
  return generateKeyPackageWithKey({
    cipherSuite: await cipherSuite(parts, request.suite),
    credential: {
      credentialType: defaultCredentialTypes.basic,
      identity: credentialIdentity(userId, deviceId),
    },
    capabilities: capabilities(),
    lifetime,
    signatureKeyPair: {
      signKey: request.signatureKey.seed,
      publicKey: request.signatureKey.publicKey,
    },
    leafNodeExtensions: [],
    extensions:
      request.lastResort === true
        ? [
            makeCustomExtension({
              extensionType: lastResortExtensionType,
              extensionData: new Uint8Array(0),
            }),
          ]
        : [],
  });
}

/** A lifetime that spans now, for a creator's own leaf. */
export function lifetimeFromNow(nowMs: number): Lifetime {
  return {
    notBefore: seconds(nowMs - lifetimes.backMs),
    notAfter: seconds(nowMs + lifetimes.singleUseMs),
  };
}

/** The private half of a stored row, and the KeyPackage it belongs to. */
export function decodePrivateKeyPackage(privateBytes: Uint8Array): {
  readonly initPrivateKey: Uint8Array;
  readonly hpkePrivateKey: Uint8Array;
  readonly keyPackage: KeyPackage;
} {
  const reader = new Reader(privateBytes);
  const version = reader.uint(1);
  if (version !== 1) throw new MlsError('BAD_STATE', `key package row: version ${version}, know 1`);
  const initPrivateKey = reader.vector(64);
  const hpkePrivateKey = reader.vector(64);
  return { initPrivateKey, hpkePrivateKey, keyPackage: decodeKeyPackage(reader.rest()) };
}

/** A KeyPackage in its canonical encoding. Throws MlsError MALFORMED. */
export function decodeKeyPackage(bytes: Uint8Array): KeyPackage {
  return decodeExactly(keyPackageDecoder, keyPackageEncoder, bytes, 'key package');
}

/**
 * What a KeyPackage says, once everything that can be judged without a manifest holds: both
 * signatures, suite, capabilities, distinct keys, lifetime (now within it, 93 days at most).
 * Whether the signature key is the device's is for the manifest to say.
 * Throws MlsError MALFORMED or BAD_KEY_PACKAGE. RFC 9420 sections 7.3 and 10.1.
 */
export async function inspectKeyPackage(
  parts: MlsParts,
  bytes: Uint8Array,
): Promise<KeyPackageInfo> {
  return (await checkedKeyPackage(parts, bytes)).info;
}

/** {@link inspectKeyPackage}, with the library's value for an Add. */
export async function checkedKeyPackage(
  parts: MlsParts,
  bytes: Uint8Array,
): Promise<{ info: KeyPackageInfo; keyPackage: KeyPackage }> {
  const keyPackage = decodeKeyPackage(bytes);
  const { cipherSuite: suite, leafNode } = keyPackage;
  const refuse = (what: string): MlsError =>
    new MlsError('BAD_KEY_PACKAGE', `key package: ${what}`);

  if (keyPackage.version !== protocolVersions.mls10) throw refuse('not MLS 1.0');
  if (!isMlsSuite(suite)) throw refuse(`suite ${suite} is not one of ours`);
  const identity = identityOf(leafNode.credential);
  if (identity === undefined) throw refuse('no identity of ours');
  if (!sameCapabilities(leafNode.capabilities)) throw refuse('capabilities are not ours');
  if (leafNode.extensions.length > 0) throw refuse('leaf extensions');
  const isLastResort = keyPackage.extensions.some(
    ({ extensionType }) => extensionType === lastResortExtensionType,
  );
  if (keyPackage.extensions.length > (isLastResort ? 1 : 0)) throw refuse('unknown extensions');
  if (sameBytes(keyPackage.initKey, leafNode.hpkePublicKey)) throw refuse('init key is leaf key');
  if (!('lifetime' in leafNode)) throw refuse('leaf is not from a key package');
  const { notBeforeMs, notAfterMs } = lifetimeMs(leafNode.lifetime);
  const nowMs = parts.clock.now();
  if (notAfterMs - notBeforeMs > limits.keyPackageLifetimeMsMax) throw refuse('lives over 93 days');
  if (nowMs < notBeforeMs || nowMs > notAfterMs) throw refuse('not within its lifetime');

  const cs = await cipherSuite(parts, suite);
  if (!(await verifyKeyPackageSignatures(cs, bytes, keyPackage))) throw refuse('bad signature');
  const info: KeyPackageInfo = {
    ...identity,
    suite,
    signatureKey: leafNode.signaturePublicKey,
    ref: await makeKeyPackageRef(keyPackage, cs.hash),
    notBeforeMs,
    notAfterMs,
    isLastResort,
  };
  return { info, keyPackage };
}

function sameCapabilities(theirs: KeyPackage['leafNode']['capabilities']): boolean {
  const ours = capabilities();
  return (
    theirs.versions.join() === ours.versions.join() &&
    theirs.ciphersuites.join() === ours.ciphersuites.join() &&
    theirs.extensions.join() === ours.extensions.join() &&
    theirs.proposals.join() === ours.proposals.join() &&
    theirs.credentials.join() === ours.credentials.join()
  );
}

function seconds(ms: number): bigint {
  return BigInt(Math.floor(ms / 1000));
}

// Bounded before the conversion: beyond 2^53 ms a lifetime is nonsense, whatever it says.
function lifetimeMs(lifetime: Lifetime): { notBeforeMs: number; notAfterMs: number } {
  const bound = BigInt(Number.MAX_SAFE_INTEGER) / 1000n;
  const ms = (s: bigint): number => Number(s < bound ? s : bound) * 1000;
  return { notBeforeMs: ms(lifetime.notBefore), notAfterMs: ms(lifetime.notAfter) };
}
