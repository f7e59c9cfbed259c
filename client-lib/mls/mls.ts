/**
 * The adapter's door as one object: every operation with its parts filled in. A pure state
 * machine: groups go in, new groups come out; no store, no network, no timers.
 */
import type { Clock, Random } from '@quicprochat/proto';
import type { CryptoProvider } from 'ts-mls';
import { createMlsCryptoProvider } from '../crypto/provider.ts';
import type { ManifestLookup } from './authentication.ts';
import { commit, createGroup } from './commit.ts';
import type { Change, PendingCommit } from './commit.ts';
import { cipherSuite } from './context.ts';
import type { MlsParts } from './context.ts';
import { MlsError } from './errors.ts';
import { comeBack, groupInfoOf, processReturn } from './external.ts';
import type { Return } from './external.ts';
import type { MlsGroup } from './group.ts';
import { stateOf } from './group.ts';
import { inspectKeyPackage, makeKeyPackage } from './key-package.ts';
import type { KeyPackageInfo, MadeKeyPackage, SignatureKey } from './key-package.ts';
import { mlsExporter } from './library.ts';
import { encrypt, process } from './message.ts';
import type { Encrypted, Processed } from './message.ts';
import { rolesAllow } from './policy.ts';
import type { CommitPolicy } from './policy.ts';
import { reinstated } from './reinstated.ts';
import { spendHandshakeKey } from './spent-handshake.ts';
import { joinFromWelcome } from './welcome.ts';
import type { Joined, KeyPackageRow } from './welcome.ts';

/** Operations on MLS groups; their contracts stand with the functions of the same name. */
export interface Mls {
  makeKeyPackage(request: Parameters<typeof makeKeyPackage>[1]): Promise<MadeKeyPackage>;
  inspectKeyPackage(bytes: Uint8Array): Promise<KeyPackageInfo>;
  createGroup(request: Parameters<typeof createGroup>[1]): Promise<MlsGroup>;
  /** Any mix of Adds, Removes and new context extensions that the rules of policy.ts allow. */
  commit(group: MlsGroup, change: Change): Promise<PendingCommit>;
  addMembers(group: MlsGroup, keyPackages: readonly Uint8Array[]): Promise<PendingCommit>;
  removeMembers(group: MlsGroup, leafIndexes: readonly number[]): Promise<PendingCommit>;
  rekey(group: MlsGroup): Promise<PendingCommit>;
  /** The next commit of this epoch takes another key: one that took the last was refused. */
  spendHandshakeKey(group: MlsGroup): ReturnType<typeof spendHandshakeKey>;
  /** The removal of this device was none: the group of the same epoch, active. */
  reinstated(group: MlsGroup): ReturnType<typeof reinstated>;
  joinFromWelcome(
    welcome: Uint8Array,
    rows: readonly KeyPackageRow[],
    signatureKey: SignatureKey,
  ): Promise<Joined>;
  encrypt(
    group: MlsGroup,
    plaintext: Uint8Array,
    authenticatedData: Uint8Array,
  ): Promise<Encrypted>;
  process(group: MlsGroup, message: Uint8Array): Promise<Processed>;
  /** For devices that lost their place: see external.ts. */
  groupInfoOf(group: MlsGroup): Promise<Uint8Array>;
  comeBack(
    groupInfo: Uint8Array,
    lost: MlsGroup,
    own: Parameters<typeof comeBack>[3],
  ): Promise<Return>;
  processReturn(group: MlsGroup, message: Uint8Array): ReturnType<typeof processReturn>;
  /** A secret of this epoch, equal on all members. RFC 9420 section 8.5. */
  exporter(
    group: MlsGroup,
    label: string,
    context: Uint8Array,
    length: number,
  ): Promise<Uint8Array>;
}

/**
 * Builds the adapter. `manifests` answers from a cache of verified manifests, own account
 * included. `provider` and `mayCommit` default to node:crypto and to the rules of policy.ts.
 */
export function createMls(options: {
  readonly clock: Clock;
  readonly random: Random;
  readonly manifests: ManifestLookup;
  readonly provider?: CryptoProvider;
  readonly mayCommit?: CommitPolicy;
}): Mls {
  const { clock, random, manifests, mayCommit = rolesAllow } = options;
  const provider = options.provider ?? createMlsCryptoProvider({ random });
  const parts: MlsParts = { provider, clock, random, manifests, mayCommit };
  return {
    makeKeyPackage: (request) => makeKeyPackage(parts, request),
    inspectKeyPackage: (bytes) => inspectKeyPackage(parts, bytes),
    createGroup: (request) => createGroup(parts, request),
    commit: (group, change) => commit(parts, group, change),
    addMembers: (group, add) => commit(parts, group, { add }),
    removeMembers: (group, remove) => commit(parts, group, { remove }),
    rekey: (group) => commit(parts, group, {}),
    spendHandshakeKey: (group) => spendHandshakeKey(parts, group),
    reinstated: (group) => reinstated(parts, group),
    joinFromWelcome: (welcome, rows, key) => joinFromWelcome(parts, welcome, rows, key),
    encrypt: (group, plaintext, aad) => encrypt(parts, group, plaintext, aad),
    process: (group, message) => process(parts, group, message),
    groupInfoOf: (group) => groupInfoOf(parts, group),
    comeBack: (groupInfo, lost, own) => comeBack(parts, groupInfo, lost, own),
    processReturn: (group, message) => processReturn(parts, group, message),
    exporter: async (group, label, context, length) => {
      // A removed member is still in its last epoch: its exporter would be the others' past one.
      if (!group.isActive) throw new MlsError('REMOVED', 'group: this device has been removed');
      const cs = await cipherSuite(parts, group.suite);
      return mlsExporter(stateOf(group).keySchedule.exporterSecret, label, context, length, cs);
    },
  };
}
