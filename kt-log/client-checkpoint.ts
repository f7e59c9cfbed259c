/**
 * The checkpoint that comes with an answer (kt-log/README.md): it has to name the root that the
 * client computed, and says who else has seen the head. What contradicts is kept as evidence.
 * Browser-safe.
 */
import { clientLimits } from './client-records.ts';
import type { Configuration, TreeHead } from './codec.ts';
import { encodeEvidence } from './evidence.ts';
import type { EvidenceBody } from './evidence.ts';
import type { Hash } from './hash.ts';
import { sameBytes } from './hash.ts';
import type { LogIdentity, Note } from './note.ts';
import { formatNote, keytransRoot, openCheckpoint, verifyNote } from './note.ts';
import type { Policy } from './policy.ts';
import { meetsQuorum } from './policy.ts';
import type { VerifierSuite } from './suite.ts';
import { verify, VerificationError } from './verification-error.ts';

/** What a log's checkpoints and heads are checked with. */
export interface LogKeys {
  readonly identity: LogIdentity;
  readonly config: Configuration;
  readonly suite: VerifierSuite;
}

/** VerificationError FORK, with the evidence that convicts the log where its signatures give one. */
export class ForkError extends VerificationError {
  /** As evidence.ts encodes it; undefined: a contradiction that two signatures alone do not show. */
  readonly evidence: Uint8Array | undefined;

  constructor(evidence: Uint8Array | undefined, checked: string, expected: string) {
    super('FORK', checked, expected);
    this.evidence = evidence;
  }
}

function evidenceOf({ identity, config }: LogKeys, body: EvidenceBody): Uint8Array {
  return encodeEvidence({ origin: identity.origin, config, key: identity.key, body });
}

/** A note with the signatures of these keys only. */
function pruned(note: Note, keys: readonly LogIdentity['key'][]): Uint8Array {
  const signatures = note.signatures.filter(({ name, keyId }) =>
    keys.some((key) => key.name === name && key.keyId === keyId),
  );
  return new TextEncoder().encode(formatNote({ text: note.text, signatures }));
}

/** How far others vouch for a head. */
export type Witnessing = 'quorum' | 'pending' | 'none-required';

export interface WitnessedNote {
  readonly witnessed: Witnessing;
  /** Names of the policy's witnesses that cosigned. */
  readonly byWitnesses: readonly string[];
  /** The note with the signatures of known keys only. */
  readonly note: Uint8Array;
}

/**
 * Checks the signed checkpoint of a tree whose KEYTRANS root was computed. Throws VerificationError:
 * CHAIN for a checkpoint of another size or log, FORK (a ForkError) for another root.
 */
export function checkCheckpoint(
  log: LogKeys,
  policy: Policy | undefined,
  bytes: Uint8Array,
  shown: { readonly size: number; readonly root: Hash; readonly treeHead?: TreeHead | undefined },
): WitnessedNote {
  const { suite, identity } = log;
  const { note, checkpoint } = openCheckpoint(suite, bytes, identity);
  const isOfTree = checkpoint.size === shown.size;
  verify(isOfTree, 'CHAIN', 'checkpoint size', `${shown.size}, that of the answer`);
  const root = keytransRoot(checkpoint);
  verify(root !== undefined, 'MALFORMED', 'checkpoint extension', 'the KEYTRANS root');
  if (!sameBytes(root, shown.root)) {
    const { treeHead, size } = shown;
    const head = treeHead && { size, root: shown.root, signature: treeHead.signature };
    const own = pruned(note, [identity.key]);
    const evidence = head && evidenceOf(log, { kind: 'note-vs-head', note: own, head });
    const expected = 'the KEYTRANS root of the answer';
    throw new ForkError(evidence, `checkpoint of size ${size}`, expected);
  }
  const keys = [identity.key, ...(policy?.witnesses ?? [])];
  const kept = pruned(note, keys);
  const expected = `at most ${clientLimits.noteBytesMax} bytes of known signatures`;
  verify(kept.length <= clientLimits.noteBytesMax, 'MALFORMED', 'checkpoint', expected);
  if (policy === undefined || policy.quorum.kind === 'none') {
    return { witnessed: 'none-required', byWitnesses: [], note: kept };
  }
  const { ok, by } = meetsQuorum(policy, verifyNote(suite, note, keys));
  return { witnessed: ok ? 'quorum' : 'pending', byWitnesses: by, note: kept };
}

/** Throws a ForkError unless both signed checkpoints, of one size, have the same roots. */
export function checkSameSize(log: LogKeys, ours: Uint8Array, theirs: Uint8Array): void {
  const { suite, identity } = log;
  const [mine, other] = [ours, theirs].map((bytes) => openCheckpoint(suite, bytes, identity));
  if (mine === undefined || other === undefined) return;
  const { size, root } = mine.checkpoint;
  const keytrans = [mine, other].map((one) => keytransRoot(one.checkpoint) ?? new Uint8Array());
  const [a = root, b = root] = keytrans;
  if (sameBytes(root, other.checkpoint.root) && sameBytes(a, b)) return;
  const evidence = evidenceOf(log, {
    kind: 'same-size',
    statements: [
      { type: 'note', note: pruned(mine.note, [identity.key]) },
      { type: 'note', note: pruned(other.note, [identity.key]) },
    ],
  });
  throw new ForkError(evidence, `checkpoint of size ${size}`, 'the one that was signed before');
}
