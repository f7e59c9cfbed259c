/**
 * A credential as it travels between people who may be offline (kt-log/README.md): with a cosigned
 * checkpoint and the RFC 6962 proof of its entry, so that somebody who never met the log can check
 * it by the log's auditors. Browser-safe.
 */
import { maxTreeSize } from './codec.ts';
import type { KnownDistinguished, PendingCredential } from './credential.ts';
import { credential, verifyCredential } from './credential.ts';
import type { Hash } from './hash.ts';
import { hashBytes, logEntryBytes, rfc6962Hasher } from './hash.ts';
import type { LogIdentity } from './note.ts';
import { noteLimits, openCheckpoint, verifyNote } from './note.ts';
import type { Policy } from './policy.ts';
import type { Structure } from './presentation.ts';
import { decode, encode, maxUint32, maxUint8, Reader } from './presentation.ts';
import { verifyInclusion6962 } from './rfc6962.ts';
import { verifyFreshness } from './tree-head.ts';
import { verify } from './verification-error.ts';
import type { LogVerifier } from './verify-response.ts';

/** Bounds: a credential with a value of the largest size fits. */
export const wrappedLimits = { credentialBytesMax: 131_072 } as const;

export interface WrappedCredential {
  /** Credential bytes (protocol section 14). */
  readonly credential: Uint8Array;
  /** Signed checkpoint of a size above the credential's position, with cosignatures. */
  readonly checkpoint: Uint8Array;
  /** The 40-byte log entry at that position. */
  readonly entry: Uint8Array;
  /** Its RFC 6962 inclusion proof under the checkpoint, packed hashes. */
  readonly inclusion: Uint8Array;
}
export const wrappedCredential: Structure<WrappedCredential> = {
  name: 'WrappedCredential',
  write(w, one) {
    w.opaque(one.credential, maxUint32, 'credential').opaque(
      one.checkpoint,
      maxUint32,
      'checkpoint',
    );
    w.fixed(one.entry, logEntryBytes, 'entry').hashes(one.inclusion, maxUint8, 'inclusion');
  },
  read: (r) => ({
    credential: r.opaque(maxUint32, 'credential', wrappedLimits.credentialBytesMax),
    checkpoint: r.opaque(maxUint32, 'checkpoint', noteLimits.bytesMax),
    entry: r.fixed(logEntryBytes, 'entry'),
    inclusion: r.hashes(maxUint8, 'inclusion'),
  }),
};

/** A credential as the log serves it, with what shows its entry (KtService.credential). */
export interface CredentialParts {
  /** Credential bytes. */
  readonly response: Uint8Array;
  readonly checkpoint: Uint8Array;
  readonly entry: Uint8Array;
  /** 32 bytes each. */
  readonly inclusion: readonly Uint8Array[];
}

/** Nothing is verified yet: open what was wrapped before it is handed on. */
export function wrapCredential(parts: CredentialParts): Uint8Array {
  const inclusion = new Uint8Array(parts.inclusion.length * hashBytes);
  for (const [i, hash] of parts.inclusion.entries()) inclusion.set(hash, i * hashBytes);
  const { response, checkpoint, entry } = parts;
  return encode(wrappedCredential, { credential: response, checkpoint, entry, inclusion });
}

/** What somebody who does not know the distinguished entry goes by. */
export interface StrangerRules {
  /** Auditors of other operators, as the witnesses of a C2SP policy. */
  readonly policy: Policy;
  /** How many operators other than the log's have to have cosigned. */
  readonly auditorsMin: number;
  /** Age of the entry that is accepted. */
  readonly recentMs: number;
}
export const defaultAuditorsMin = 2;

export interface OpenedCredential {
  readonly label: Uint8Array;
  readonly version: number;
  readonly value: Uint8Array;
  /** What it was accepted on: a head that is known, or what auditors signed. */
  readonly basis: 'known-head' | 'auditors';
  /** The version was the greatest one in an entry of this time. */
  readonly entryTimeMs: number;
  /** Operators whose auditors cosigned; empty with a known head. */
  readonly auditors: readonly string[];
  /** Undefined: final. Else to be settled (credential.ts). */
  readonly pending: PendingCredential | undefined;
}

/** The operator of a cosigner key: the name up to its first slash. */
const operatorOf = (name: string): string => name.split('/', 1)[0] ?? name;

/**
 * Checks a wrapped credential without the log: by a distinguished head that is known, else by
 * auditors. A failure here is never a reason to ask the log for more (section 14). Throws
 * VerificationError: NOT_FOUND for a provisional one whose head is not known, BAD_SIGNATURE for too
 * few auditors, TOO_OLD for an entry that is not recent.
 */
export function openWrapped(
  log: LogVerifier,
  identity: LogIdentity,
  known: KnownDistinguished,
  stranger: StrangerRules | undefined,
  bytes: Uint8Array,
  nowMs: number,
): OpenedCredential {
  const wrapped = decode(wrappedCredential, bytes);
  const given = decode(credential(log.config.mode), wrapped.credential);
  const base = known.find((one) => one.position === given.position);
  if (base !== undefined) {
    const opened = verifyCredential(log, known, wrapped.credential);
    const { timestampMs: entryTimeMs } = base;
    return { ...opened, basis: 'known-head', entryTimeMs, auditors: [] };
  }
  const isFinal = given.proof.type === 'standard';
  const canJudge = isFinal && stranger !== undefined;
  verify(canJudge, 'NOT_FOUND', 'credential position', 'a known distinguished entry');
  const entry = entryOf(wrapped.entry);
  const auditors = verifyAudited(log, identity, stranger, given.position, wrapped);
  verifyFreshness({ ...log.config, maxBehindMs: stranger.recentMs }, entry.timestampMs, nowMs);
  // A standard credential is checked against its entry's prefix root alone.
  const frontier = [{ position: given.position, ...entry }];
  const view = { size: given.position + 1, heads: [], frontier };
  const { position } = given;
  const { timestampMs } = entry;
  const asIf = [{ position, timestampMs, root: entry.prefixRoot, view }];
  const opened = verifyCredential(log, asIf, wrapped.credential);
  return { ...opened, basis: 'auditors', entryTimeMs: timestampMs, auditors };
}

function entryOf(bytes: Uint8Array): { readonly timestampMs: number; readonly prefixRoot: Hash } {
  const reader = new Reader(bytes, 'LogEntry');
  const timestampMs = reader.u64('timestamp', maxTreeSize);
  return { timestampMs, prefixRoot: reader.fixed(hashBytes, 'prefix_root') };
}

/** That the entry stands in the tree that the auditors signed. Returns their operators. */
function verifyAudited(
  log: LogVerifier,
  identity: LogIdentity,
  { policy, auditorsMin }: StrangerRules,
  position: number,
  wrapped: WrappedCredential,
): string[] {
  const { suite } = log;
  const { note, checkpoint } = openCheckpoint(suite, wrapped.checkpoint, identity);
  verify(checkpoint.size > position, 'CHAIN', 'checkpoint size', `more than ${position}`);
  const signed = verifyNote(suite, note, [identity.key, ...policy.witnesses]);
  const own = operatorOf(identity.key.name);
  const operators = new Set(
    signed.filter((one) => one.key !== identity.key).map((one) => operatorOf(one.key.name)),
  );
  operators.delete(own);
  const isEnough = operators.size >= auditorsMin;
  verify(isEnough, 'BAD_SIGNATURE', 'cosignatures', `auditors of ${auditorsMin} other operators`);
  const hasher = rfc6962Hasher(suite.sha256);
  const proof = Array.from({ length: wrapped.inclusion.length / hashBytes }, (_, i) =>
    wrapped.inclusion.subarray(i * hashBytes, (i + 1) * hashBytes),
  );
  const leaf = hasher.leaf(wrapped.entry);
  verifyInclusion6962(hasher, position, checkpoint.size, leaf, proof, checkpoint.root);
  return [...operators].sort();
}
