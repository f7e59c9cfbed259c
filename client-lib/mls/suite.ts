/**
 * What every group of ours has in common: the two cipher suites and the choice between them,
 * capabilities, padding, windows of kept keys (limits of RFC 9420 sections 7.2, 9.2, 6.3.1).
 */
import type {
  Capabilities,
  ClientConfig,
  KeyPackage,
  LeafNode,
  RequiredCapabilities,
} from 'ts-mls';
import { mlsSuites } from '../crypto/provider.ts';
import type { MlsSuite } from '../crypto/provider.ts';
import { MlsError } from './errors.ts';
import { defaultCredentialTypes, protocolVersions } from './library.ts';

/**
 * Our GroupContext extensions, from the private-use range 0xF000-0xFFFF of RFC 9420 section 17.3;
 * their bodies are in group-extensions.ts.
 */
export const qpcGroupExtensionType = 0xf0c0;
export const qpcHubExtensionType = 0xf0c1;
/** `last_resort`, a KeyPackage extension without a body. draft-ietf-mls-extensions. */
export const lastResortExtensionType = 0x000a;

export const xwingSuite: MlsSuite = mlsSuites.MLS_256_XWING_AES256GCM_SHA512_Ed25519;
export const mandatorySuite: MlsSuite = mlsSuites.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

export const limits = {
  addsPerCommitMax: 64,
  xwingMembersMax: 256,
  /** Past epochs that a member can open messages of, however large the group is. */
  epochsKept: 8,
  /** While they are recent (past-epochs.ts), as far as their trees have no more leaves than `leavesHeldMax` together. */
  epochsHeldMax: 256,
  leavesHeldMax: 4096,
  generationsKept: 256,
  generationsAheadMax: 4096,
  keyPackageLifetimeMsMax: 93 * 86_400_000,
  messageBytesMax: 2 * 1024 * 1024,
} as const;

/** Message keys of one sender and epoch that a member keeps while their messages have not come. */
export const { generationsKept } = limits;

/**
 * The suite of a new group: X-Wing when every initial device offers it and they are at most
 * 256, else suite 1. `offers` has one entry per initial device, the creator's own included.
 * Throws MlsError NO_COMMON_SUITE when a device offers neither.
 */
export function chooseSuite(offers: readonly (readonly MlsSuite[])[]): MlsSuite {
  const all = (suite: MlsSuite): boolean => offers.every((suites) => suites.includes(suite));
  if (offers.length <= limits.xwingMembersMax && all(xwingSuite)) return xwingSuite;
  if (all(mandatorySuite)) return mandatorySuite;
  throw new MlsError('NO_COMMON_SUITE', 'suite: a device offers no suite that the others have');
}

/** The capabilities of every leaf of ours; they never change. RFC 9420 section 7.2. */
export function capabilities(): Capabilities {
  return {
    versions: [protocolVersions.mls10],
    ciphersuites: [xwingSuite, mandatorySuite],
    extensions: [lastResortExtensionType, qpcGroupExtensionType, qpcHubExtensionType],
    proposals: [],
    credentials: [defaultCredentialTypes.basic],
  };
}

/** What a group of ours requires of its members. RFC 9420 section 7.2. */
export function requiredCapabilities(): RequiredCapabilities {
  return {
    extensionTypes: [qpcGroupExtensionType, qpcHubExtensionType],
    proposalTypes: [],
    credentialTypes: [defaultCredentialTypes.basic],
  };
}

/**
 * The padded length of `length` bytes: 256, then the next multiple of 256 to 4 KiB, then PADME
 * (at most 12 % more, leaking O(log log) bits of the length).
 */
export function paddedLength(length: number): number {
  if (length <= 4096) return Math.max(1, Math.ceil(length / 256)) * 256;
  const exponent = Math.floor(Math.log2(length));
  const step = 2 ** (exponent - (Math.floor(Math.log2(exponent)) + 1));
  return Math.ceil(length / step) * step;
}

/**
 * Past epochs of a group that are held in memory and on disk at most: each of them has a whole tree, so
 * as many as come to 4096 leaves, at most 256 and never fewer than eight.
 */
export function epochsHeld(leaves: number): number {
  const { epochsKept, epochsHeldMax, leavesHeldMax } = limits;
  const fit = Math.floor(leavesHeldMax / Math.max(1, leaves));
  return Math.min(epochsHeldMax, Math.max(epochsKept, fit));
}

/**
 * The library's configuration for one call; `contentLength` is what will be padded, `leaves` those of the
 * group's tree.
 */
export function clientConfig(contentLength = 0, leaves = 1): ClientConfig {
  return {
    keyRetentionConfig: {
      retainKeysForEpochs: epochsHeld(leaves),
      retainKeysForGenerations: limits.generationsKept,
      maximumForwardRatchetSteps: limits.generationsAheadMax,
    },
    // Not on receipt: one old member that has not committed for 28 days would bar every joiner.
    lifetimeConfig: {
      maximumTotalLifetime: BigInt(limits.keyPackageLifetimeMsMax / 1000),
      validateLifetimeOnReceive: false,
    },
    keyPackageEqualityConfig: {
      compareKeyPackages: (a, b) => sameClient(a.leafNode, b.leafNode),
      compareKeyPackageToLeafNode: (a: KeyPackage, b) => sameClient(a.leafNode, b),
    },
    paddingConfig: { kind: 'padUntilLength', padUntilLength: paddedLength(contentLength) },
  };
}

/** Whether two leaves are of one client: equal identity or equal signature key. */
export function sameClient(a: LeafNode, b: LeafNode): boolean {
  return (
    sameBytes(a.signaturePublicKey, b.signaturePublicKey) ||
    ('identity' in a.credential &&
      'identity' in b.credential &&
      sameBytes(a.credential.identity, b.credential.identity))
  );
}

/** Equality of public bytes. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
