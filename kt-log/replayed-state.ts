/**
 * A replayed log in the form that a follower stores and that evidence shows: a checkpoint, both trees
 * one entry before it, and that entry. So the checkpoint vouches for all of it, the prefix tree's
 * root and the time included. Pure; browser-safe.
 */
import type { AuditedLog } from './auditor-update.ts';
import { appendEntry } from './auditor-update.ts';
import { maxTimeMs } from './codec.ts';
import type { Hash, Sha256, TreeHasher } from './hash.ts';
import { hashBytes, keytransHasher, logEntryBytes, rfc6962Hasher } from './hash.ts';
import type { RetainedLog } from './log-tree.ts';
import { Frontier, fullSubtrees } from './log-tree.ts';
import { pathElementsMax } from './node-path.ts';
import type { Structure, Writer } from './presentation.ts';
import { maxUint16, maxUint8, Reader } from './presentation.ts';
import { verify } from './verification-error.ts';

/** Most bytes of a checkpoint without cosignatures. */
export const ownNoteBytesMax = 8_192;

export interface ReplayedState {
  /** The checkpoint of the state: a C2SP note with the log's own signature. */
  readonly note: Uint8Array;
  /** Heads of the full subtrees of both trees one entry before the checkpoint. */
  readonly keytransHeads: readonly Hash[];
  readonly rfc6962Heads: readonly Hash[];
  /** The last entry, 40 bytes. */
  readonly entry: Uint8Array;
}

/** A short vector of hashes. */
export function writeHashes(w: Writer, hashes: readonly Hash[], field: string): void {
  w.vector(hashes, maxUint8, field, (hash) => w.fixed(hash, hashBytes, field));
}
export const readHashes = (r: Reader, field: string): Hash[] =>
  r.vector(maxUint8, hashBytes, field, () => r.fixed(hashBytes, field), pathElementsMax);

export const replayedState: Structure<ReplayedState> = {
  name: 'ReplayedState',
  write(w, state) {
    w.opaque(state.note, maxUint16, 'note');
    writeHashes(w, state.keytransHeads, 'keytrans_heads');
    writeHashes(w, state.rfc6962Heads, 'rfc6962_heads');
    w.fixed(state.entry, logEntryBytes, 'entry');
  },
  read: (r) => ({
    note: r.opaque(maxUint16, 'note', ownNoteBytesMax),
    keytransHeads: readHashes(r, 'keytrans_heads'),
    rfc6962Heads: readHashes(r, 'rfc6962_heads'),
    entry: r.fixed(logEntryBytes, 'entry'),
  }),
};

/** The state after `state` and `entries`, at least one; `note` is the checkpoint of that size. */
export function replayedStateOf(
  sha256: Sha256,
  state: Pick<AuditedLog, 'log' | 'rfc6962'>,
  entries: readonly Uint8Array[],
  note: Uint8Array,
): ReplayedState {
  const entry = entries.at(-1);
  verify(entry !== undefined, 'COUNT', 'entries', 'at least one');
  const grow = (hasher: TreeHasher, retained: RetainedLog): readonly Hash[] => {
    const tree = new Frontier(hasher, retained);
    for (const one of entries.slice(0, -1)) tree.append(hasher.leaf(one));
    return tree.retained().heads;
  };
  return {
    note,
    keytransHeads: grow(keytransHasher(sha256), state.log),
    rfc6962Heads: grow(rfc6962Hasher(sha256), state.rfc6962),
    entry,
  };
}

/**
 * The auditor's state of `size` entries that `given` stands for. Whether the checkpoint has these
 * roots is the caller's to check. Throws VerificationError COUNT, MALFORMED.
 */
export function auditedOf(sha256: Sha256, given: ReplayedState, size: number): AuditedLog {
  verify(size > 0, 'COUNT', 'checkpoint size', 'at least one entry');
  const { length } = fullSubtrees(size - 1);
  const isWhole = given.keytransHeads.length === length && given.rfc6962Heads.length === length;
  verify(isWhole, 'COUNT', 'full subtrees', `${length} of either tree`);
  const before: AuditedLog = {
    log: { size: size - 1, heads: given.keytransHeads },
    rfc6962: { size: size - 1, heads: given.rfc6962Heads },
    newestMs: entryTimeMs(given.entry),
    prefixRoot: given.entry.subarray(-hashBytes),
  };
  return appendEntry(sha256, before, given.entry);
}

/** Timestamp of a 40-byte log entry. Throws VerificationError MALFORMED. */
export function entryTimeMs(entry: Uint8Array): number {
  return new Reader(entry, 'LogEntry').u64('timestamp', maxTimeMs);
}
