/**
 * What the store keeps of the keys by which devices are reached, as an interface: KeyPackages, each handed out
 * once, and hybrid prekeys. `NodeStore` has these methods too.
 */
import type { StoredManifest } from './account-store.ts';

export interface NewKeyPackage {
  /** KeyPackageRef (RFC 9420 section 5.2). */
  readonly ref: Uint8Array;
  readonly suite: number;
  readonly bytes: Uint8Array;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly lastResort: boolean;
}

export interface KeyPackageCount {
  readonly suite: number;
  readonly singleUse: number;
  readonly hasLastResort: boolean;
  readonly lastResortUsed: boolean;
}

export interface StoredPrekey {
  readonly prekey: Uint8Array;
  readonly signature: Uint8Array;
}

export interface ClaimKeyPackages {
  readonly userId: string;
  /** 16 bytes; the same id within 10 minutes answers with the same packages. */
  readonly claimId: Uint8Array;
  /** Where the question comes from: this node's own users, or one peer. */
  readonly scope: string;
  /** Who asks there, for the per-requester limits; claim ids belong to it. */
  readonly requester: string;
  /** Acceptable suites, best first. */
  readonly suites: readonly number[];
  /** Above these many single-use claims per hour the last-resort package is handed out instead. */
  readonly singleUsePerRequesterPerHour: number;
  /** The same bound for one user as the target of everybody of the scope together. */
  readonly singleUsePerTargetPerHour: number;
}

export interface ClaimedKeyPackage {
  readonly identityPub: Uint8Array;
  readonly suite: number;
  readonly bytes: Uint8Array;
  readonly lastResort: boolean;
  readonly prekey: StoredPrekey | undefined;
}

export interface ClaimedKeyPackages {
  readonly manifest: StoredManifest;
  readonly packages: readonly ClaimedKeyPackage[];
}

export interface KeyStore {
  /** Known refs (also consumed ones, 90 days) are skipped; a last-resort package replaces its suite's. */
  addKeyPackages(
    identityPub: Uint8Array,
    packages: readonly NewKeyPackage[],
  ): Promise<{ readonly stored: number; readonly counts: readonly KeyPackageCount[] }>;
  keyPackageCounts(identityPub: Uint8Array): Promise<readonly KeyPackageCount[]>;
  /** One transaction; a single-use package is never handed to two claims. Undefined: unknown user. */
  claimKeyPackages(claim: ClaimKeyPackages): Promise<ClaimedKeyPackages | undefined>;
  putPrekey(identityPub: Uint8Array, prekey: StoredPrekey, notAfterMs: number): Promise<void>;
  /** Undefined: unknown user. */
  prekeys(userId: string): Promise<
    | {
        readonly manifest: StoredManifest;
        readonly prekeys: readonly {
          readonly identityPub: Uint8Array;
          readonly prekey: StoredPrekey;
        }[];
      }
    | undefined
  >;
}
