/**
 * Following one log from its audit bundles (kt-log/README.md): every entry replayed, both roots
 * compared with the signed checkpoint, then a cosignature. A bundle is signed as a whole, so one
 * whose replay fails convicts the log. Pure state in, state out; browser-safe.
 */
import { InvalidArgumentError } from '@quicprochat/proto/status';
import type { AuditedLog, AuditorUpdate } from './auditor-update.ts';
import { applyAuditorUpdate, auditorUpdate } from './auditor-update.ts';
import type { Configuration } from './codec.ts';
import { maxTimeMs, maxTreeSize } from './codec.ts';
import {
  hashBytes,
  keytransHasher,
  logEntryBytes,
  rfc6962Hasher,
  sameBytes,
  type Sha256,
  zeroHash,
} from './hash.ts';
import type { RetainedLog } from './log-tree.ts';
import { Frontier, fullSubtrees, leavesOf, rootOfHeads } from './log-tree.ts';
import type { Checkpoint, LogIdentity, NoteKey, NoteSignature } from './note.ts';
import { cosign, formatCheckpoint, keytransRoot, noteLimits, openCheckpoint } from './note.ts';
import type { Structure } from './presentation.ts';
import { decode, encode, maxUint16, maxUint32, Writer } from './presentation.ts';
import type { Signer, VerifierSuite } from './suite.ts';
import { verify, VerificationError } from './verification-error.ts';

/** Most entries of one bundle. */
export const bundleEntriesMax = 256;
/**
 * Most bytes of one bundle: 256 entries of 255 leaves each, at a kilobyte for a leaf and its part of
 * the proof. Bundles of a usual log are a hundred times smaller.
 */
export const bundleBytesMax = 67_108_864;

/** Entries [from, from + n) with their updates, and the checkpoint of the tree that ends there. */
export interface AuditBundle {
  readonly from: number;
  /** 40 bytes each. */
  readonly entries: readonly Uint8Array[];
  readonly updates: readonly AuditorUpdate[];
  /** A C2SP note with the log's signature. */
  readonly checkpoint: Uint8Array;
  readonly signature: Uint8Array;
}

const bundleBody: Structure<Omit<AuditBundle, 'signature'>> = {
  name: 'AuditBundle',
  write(w, bundle) {
    w.u64(bundle.from, 'from');
    w.vector(bundle.entries, maxUint16, 'entries', (entry) =>
      w.fixed(entry, logEntryBytes, 'entry'),
    );
    w.vector(bundle.updates, maxUint16, 'updates', (update) => auditorUpdate.write(w, update));
    w.opaque(bundle.checkpoint, maxUint32, 'checkpoint');
  },
  read: (r) => ({
    from: r.u64('from', maxTreeSize),
    entries: r.vector(
      maxUint16,
      logEntryBytes,
      'entries',
      () => r.fixed(logEntryBytes, 'entry'),
      bundleEntriesMax,
    ),
    updates: r.vector(maxUint16, 15, 'updates', () => auditorUpdate.read(r), bundleEntriesMax),
    checkpoint: r.opaque(maxUint32, 'checkpoint', noteLimits.bytesMax),
  }),
};
export const auditBundle: Structure<AuditBundle> = {
  name: 'AuditBundle',
  write(w, bundle) {
    bundleBody.write(w, bundle);
    w.opaque(bundle.signature, maxUint16, 'signature');
  },
  read: (r) => ({ ...bundleBody.read(r), signature: r.opaque(maxUint16, 'signature') }),
};

const context = new TextEncoder().encode('qpc/kt-audit/1\0');

/** What the note key signs of a bundle: the hash of everything before the signature. */
function bundleTbs(sha256: Sha256, body: Omit<AuditBundle, 'signature'>): Uint8Array {
  return new Writer()
    .raw(context)
    .raw(sha256(encode(bundleBody, body)))
    .finish();
}

export function signAuditBundle(
  sha256: Sha256,
  body: Omit<AuditBundle, 'signature'>,
  signer: Signer,
): AuditBundle {
  return { ...body, signature: signer.sign(bundleTbs(sha256, body)) };
}

/** The log as an auditor pinned it. */
export interface AuditedIdentity {
  readonly config: Configuration;
  readonly identity: LogIdentity;
}

/** The log after a bundle, and what may be cosigned of it. */
export interface Audited {
  readonly log: AuditedLog;
  readonly checkpoint: Checkpoint;
}

/**
 * Decodes a bundle and verifies that the log's note key signed it: from here on the log answers for
 * what stands in it. Throws VerificationError MALFORMED, BAD_SIGNATURE.
 */
export function openAuditBundle(
  suite: VerifierSuite,
  key: NoteKey,
  bytes: Uint8Array,
): AuditBundle {
  const bundle = decode(auditBundle, bytes);
  const isSigned = suite.verifySignature(
    key.publicKey,
    bundleTbs(suite.sha256, bundle),
    bundle.signature,
  );
  verify(isSigned, 'BAD_SIGNATURE', 'audit bundle', "the log's signature");
  return bundle;
}

/** openAuditBundle and replayAuditBundle; throws as they do. */
export function applyAuditBundle(
  suite: VerifierSuite,
  log: AuditedIdentity,
  before: AuditedLog,
  bytes: Uint8Array,
  nowMs: number,
): Audited {
  const bundle = openAuditBundle(suite, log.identity.key, bytes);
  return replayAuditBundle(suite, log.identity, before, bundle, nowMs + log.config.maxAheadMs);
}

/** Whether a failed replay of a signed bundle convicts the log: all do but these two. */
export function convicts(error: VerificationError): boolean {
  return error.reason !== 'TOO_NEW' && !(error.reason === 'COUNT' && error.checked === continuing);
}
const continuing = 'audit bundle range';

/**
 * Replays a signed bundle on the state before it. Entries that the state has already (a bundle of
 * the HTTP door is the same for everybody) are compared with it. Throws VerificationError and leaves
 * the state as it was: COUNT for a bundle that does not continue the state; TOO_NEW for entries after
 * `latestMs`; anything else convicts the log with the bundle as evidence.
 */
export function replayAuditBundle(
  suite: VerifierSuite,
  identity: LogIdentity,
  before: AuditedLog,
  bundle: AuditBundle,
  latestMs: number,
): Audited {
  const { sha256 } = suite;
  const { from, entries, updates } = bundle;
  const known = before.log.size - from;
  const continues = known >= 0 && known < Math.max(entries.length, updates.length);
  verify(continues, 'COUNT', continuing, `entries from ${before.log.size} on, at least one`);
  const isWhole = entries.length === updates.length;
  verify(isWhole, 'COUNT', 'audit bundle entries', 'one update for each');
  const { checkpoint } = openCheckpoint(suite, bundle.checkpoint, identity);
  verifyKnownEntries(sha256, before, from, entries.slice(0, known));
  let log = before;
  for (const [i, update] of updates.entries()) {
    if (i < known) continue;
    const isTimely = update.timestampMs <= latestMs;
    verify(isTimely, 'TOO_NEW', `entry ${from + i}`, 'a time no further ahead than is agreed');
    log = replayEntry(sha256, log, update, entries[i]);
  }
  verify(checkpoint.size === log.log.size, 'COUNT', 'checkpoint size', 'the end of the bundle');
  verifyCheckpointRoots(sha256, log, checkpoint);
  return { log, checkpoint };
}

/** applyAuditorUpdate, whose errors name the entry. */
export function replayEntry(
  sha256: Sha256,
  before: AuditedLog,
  update: AuditorUpdate,
  entry: Uint8Array | undefined,
): AuditedLog {
  try {
    return applyAuditorUpdate(sha256, before, update, entry);
  } catch (error) {
    if (!(error instanceof VerificationError)) throw error;
    const checked = `entry ${before.log.size}: ${error.checked}`;
    throw new VerificationError(error.reason, checked, error.expected, error);
  }
}

/** Compares entries from `from` up to the state's size with the full subtrees that it keeps. */
function verifyKnownEntries(
  sha256: Sha256,
  before: AuditedLog,
  from: number,
  entries: readonly Uint8Array[],
): void {
  const { size, heads } = before.rfc6962;
  const ids = fullSubtrees(size);
  const shared = ids.filter((id) => leavesOf(id).start < from).length;
  const isAligned = from === size || leavesOf(ids[shared] ?? 0).start === from;
  verify(isAligned, 'COUNT', continuing, `entries from ${size} on, or from a subtree before`);
  const hasher = rfc6962Hasher(sha256);
  const tree = new Frontier(hasher, { size: from, heads: heads.slice(0, shared) });
  for (const entry of entries) tree.append(hasher.leaf(entry));
  const isSame = tree.retained().heads.every((head, i) => sameBytes(head, heads[i] ?? zeroHash));
  verify(isSame, 'FORK', `entries ${from} to ${size}`, 'those that were replayed before');
}

/** Throws VerificationError FORK unless both roots of a checkpoint are those of the state. */
export function verifyCheckpointRoots(
  sha256: Sha256,
  state: AuditedLog,
  checkpoint: Checkpoint,
): void {
  const { size } = checkpoint;
  verify(
    sameBytes(checkpoint.root, rootOfHeads(rfc6962Hasher(sha256), size, state.rfc6962.heads)),
    'FORK',
    'checkpoint root',
    'the root of the entries that were replayed',
  );
  const named = keytransRoot(checkpoint);
  verify(
    named !== undefined &&
      sameBytes(named, rootOfHeads(keytransHasher(sha256), size, state.log.heads)),
    'FORK',
    'checkpoint extension line',
    'the KEYTRANS root of the same entries',
  );
}

/**
 * Cosigns what was audited (C2SP cosignature v1). The caller stores the state first, so that it
 * never cosigns a smaller size or another root. Throws InvalidArgumentError for `previousSize` above
 * the checkpoint's.
 */
export function cosignAudited(
  audited: Audited,
  previousSize: number,
  key: NoteKey,
  signer: Signer,
  timeSeconds: number,
): NoteSignature {
  if (previousSize > audited.checkpoint.size) {
    throw new InvalidArgumentError('BAD_FIELD', 'cosign: a larger size was cosigned before');
  }
  return cosign(formatCheckpoint(audited.checkpoint), key, signer, timeSeconds);
}

/** An auditor's state as bytes: below 5 KB, however large the log. */
export const auditState: Structure<AuditedLog> = {
  name: 'AuditState',
  write(w, state) {
    w.u64(state.log.size, 'size').u64(state.newestMs, 'newest');
    w.fixed(state.prefixRoot, hashBytes, 'prefix_root');
    for (const { heads } of [state.log, state.rfc6962]) {
      for (const head of heads) w.fixed(head, hashBytes, 'head');
    }
  },
  read(r) {
    const size = r.u64('size', maxTreeSize);
    const newestMs = r.u64('newest', maxTimeMs);
    const prefixRoot = r.fixed(hashBytes, 'prefix_root');
    const heads = (): RetainedLog => ({
      size,
      heads: fullSubtrees(size).map(() => r.fixed(hashBytes, 'head')),
    });
    return { newestMs, prefixRoot, log: heads(), rfc6962: heads() };
  },
};
