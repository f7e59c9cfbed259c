/**
 * AuditorUpdate: what changed in one log entry, and how an auditor that keeps no leaves follows it
 * (protocol section 15.2). Logs of this project only add (kt-log/README.md), so an update that
 * removes a leaf is refused. Pure; browser-safe.
 */
import type { PrefixLeaf, PrefixProof } from './codec.ts';
import { maxTimeMs, prefixLeaf, prefixProof } from './codec.ts';
import type { Hash, Sha256 } from './hash.ts';
import {
  compareBytes,
  keytransHasher,
  logEntry,
  prefixHasher,
  rfc6962Hasher,
  sameBytes,
  zeroHash,
} from './hash.ts';
import type { RetainedLog } from './log-tree.ts';
import { Frontier } from './log-tree.ts';
import { evaluateInsertion } from './prefix-proof.ts';
import type { Structure } from './presentation.ts';
import { maxUint16 } from './presentation.ts';
import { verify } from './verification-error.ts';

/** Most leaves of one entry: a PrefixProof has room for 255 results (section 12.2). */
export const leavesPerEntryMax = 255;

export interface AuditorUpdate {
  readonly timestampMs: number;
  readonly added: readonly PrefixLeaf[];
  readonly removed: readonly PrefixLeaf[];
  /** Batch lookup of `added`, then `removed`, in the tree of the entry before. */
  readonly proof: PrefixProof;
}
export const auditorUpdate: Structure<AuditorUpdate> = {
  name: 'AuditorUpdate',
  write(w, update) {
    w.u64(update.timestampMs, 'timestamp');
    w.vector(update.added, maxUint16, 'added', (leaf) => prefixLeaf.write(w, leaf));
    w.vector(update.removed, maxUint16, 'removed', (leaf) => prefixLeaf.write(w, leaf));
    prefixProof.write(w, update.proof);
  },
  read(r) {
    const leaves = (field: string): PrefixLeaf[] =>
      r.vector(maxUint16, 64, field, () => prefixLeaf.read(r), leavesPerEntryMax);
    return {
      timestampMs: r.u64('timestamp', maxTimeMs),
      added: leaves('added'),
      removed: leaves('removed'),
      proof: prefixProof.read(r),
    };
  },
};

/** All that an auditor remembers of a log: some hashes, however large it is. */
export interface AuditedLog {
  /** KEYTRANS log tree. */
  readonly log: RetainedLog;
  /** RFC 6962 tree over the same entries. */
  readonly rfc6962: RetainedLog;
  readonly newestMs: number;
  readonly prefixRoot: Hash;
}

export const emptyAudit: AuditedLog = {
  log: { size: 0, heads: [] },
  rfc6962: { size: 0, heads: [] },
  newestMs: 0,
  prefixRoot: zeroHash,
};

/** Grows both log trees by an entry. */
export function appendEntry(sha256: Sha256, before: AuditedLog, entry: Uint8Array): AuditedLog {
  const grow = (hasher: ReturnType<typeof keytransHasher>, retained: RetainedLog): RetainedLog => {
    const tree = new Frontier(hasher, retained);
    tree.append(hasher.leaf(entry));
    return tree.retained();
  };
  return {
    ...before,
    log: grow(keytransHasher(sha256), before.log),
    rfc6962: grow(rfc6962Hasher(sha256), before.rfc6962),
  };
}

/**
 * Section 15.2, steps 1 to 7: the log after one more entry. `entry`, where the log gave it, has to
 * be the one that the update results in. Throws VerificationError NOT_MONOTONIC, CHAIN, COUNT,
 * LADDER or BAD_ROOT; the state before is unchanged.
 */
export function applyAuditorUpdate(
  sha256: Sha256,
  before: AuditedLog,
  update: AuditorUpdate,
  entry?: Uint8Array,
): AuditedLog {
  const { timestampMs, added, removed, proof } = update;
  verify(timestampMs >= before.newestMs, 'NOT_MONOTONIC', 'entry time', 'not before the last one');
  verify(removed.length === 0, 'CHAIN', 'removed leaves', 'none: this log only adds');
  // Without a key there is nothing to evaluate in step 6.
  verify(added.length > 0, 'COUNT', 'added leaves', 'at least one');
  const ascends = added.every((leaf, i) => {
    const previous = added[i - 1];
    return previous === undefined || compareBytes(previous.vrfOutput, leaf.vrfOutput) < 0;
  });
  verify(ascends, 'CHAIN', 'added leaves', 'ascending keys, none twice');
  const roots = evaluateInsertion(prefixHasher(sha256), added, proof);
  verify(
    sameBytes(roots.before, before.prefixRoot),
    'BAD_ROOT',
    'prefix tree before the entry',
    'the root of the entry before',
  );
  const made = logEntry(timestampMs, roots.after);
  verify(
    entry === undefined || sameBytes(entry, made),
    'BAD_ROOT',
    'log entry',
    'the time and root that the update gives',
  );
  const grown = appendEntry(sha256, before, made);
  return { ...grown, newestMs: timestampMs, prefixRoot: roots.after };
}
