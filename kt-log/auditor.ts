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
} from './hash.ts';
import type { RetainedLog } from './log-tree.ts';
import { fullSubtrees, rootOfHeads } from './log-tree.ts';
import type { Checkpoint, LogIdentity, NoteKey, NoteSignature } from './note.ts';
import { cosign, formatCheckpoint, keytransRoot, noteLimits, openCheckpoint } from './note.ts';
import type { Structure } from './presentation.ts';
import { decode, encode, maxUint16, maxUint32, Writer } from './presentation.ts';
import type { Signer, VerifierSuite } from './suite.ts';
import { verify } from './verification-error.ts';

/** Most entries of one bundle. */
export const bundleEntriesMax = 256;

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
 * Replays a bundle on the state before it. Throws VerificationError and leaves the state as it was:
 * BAD_SIGNATURE for a bundle that is not the log's; COUNT for one that does not continue the state;
 * TOO_NEW for entries ahead of `nowMs`; anything else convicts the log with the bundle as evidence.
 */
export function applyAuditBundle(
  suite: VerifierSuite,
  { config, identity }: AuditedIdentity,
  before: AuditedLog,
  bytes: Uint8Array,
  nowMs: number,
): Audited {
  const { sha256 } = suite;
  const bundle = decode(auditBundle, bytes);
  const isSigned = suite.verifySignature(
    identity.key.publicKey,
    bundleTbs(sha256, bundle),
    bundle.signature,
  );
  verify(isSigned, 'BAD_SIGNATURE', 'audit bundle', "the log's signature");
  const { from, entries, updates } = bundle;
  verify(from === before.log.size, 'COUNT', 'audit bundle', `entries from ${before.log.size} on`);
  const isWhole = entries.length > 0 && entries.length === updates.length;
  verify(isWhole, 'COUNT', 'audit bundle', 'one update for each entry, at least one');
  const { checkpoint } = openCheckpoint(suite, bundle.checkpoint, identity);
  let log = before;
  for (const [i, update] of updates.entries()) {
    const isTimely = update.timestampMs <= nowMs + config.maxAheadMs;
    verify(isTimely, 'TOO_NEW', `entry ${from + i}`, `at most ${config.maxAheadMs} ms ahead`);
    log = applyAuditorUpdate(sha256, log, update, entries[i]);
  }
  verify(checkpoint.size === log.log.size, 'COUNT', 'checkpoint size', 'the end of the bundle');
  const { size } = checkpoint;
  const rfc6962Root = rootOfHeads(rfc6962Hasher(sha256), size, log.rfc6962.heads);
  verify(
    sameBytes(checkpoint.root, rfc6962Root),
    'FORK',
    'checkpoint root',
    'the root of the entries that were replayed',
  );
  const root = rootOfHeads(keytransHasher(sha256), size, log.log.heads);
  const named = keytransRoot(checkpoint);
  verify(
    named !== undefined && sameBytes(named, root),
    'FORK',
    'checkpoint extension line',
    'the KEYTRANS root of the same entries',
  );
  return { log, checkpoint };
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
