/**
 * The checkpoint that comes with an answer (kt-log/README.md): it has to name the root that the
 * client computed, and says who else has seen the head. What contradicts is kept as evidence.
 * Browser-safe.
 */
import type { TreeHead } from './codec.ts';
import { treeHead } from './codec.ts';
import { clientLimits } from './client-records.ts';
import type { Hash } from './hash.ts';
import { hashBytes, sameBytes } from './hash.ts';
import type { LogIdentity } from './note.ts';
import { formatNote, keytransRoot, openCheckpoint, parseNote, verifyNote } from './note.ts';
import type { Policy } from './policy.ts';
import { meetsQuorum } from './policy.ts';
import type { Structure } from './presentation.ts';
import { maxUint16, maxUint32, maxUint8 } from './presentation.ts';
import type { VerifierSuite } from './suite.ts';
import { verify, VerificationError } from './verification-error.ts';

/** Two statements of one log that cannot both be true; every one of them carries its signature. */
export interface ForkMaterial {
  readonly kind: 'note-vs-head' | 'same-size' | 'distinguished';
  readonly origin: string;
  /** With `note-vs-head`: the head whose signature is over `root`. */
  readonly head?: { readonly treeHead: TreeHead; readonly root: Hash } | undefined;
  /** Signed checkpoints. */
  readonly notes: readonly Uint8Array[];
}
const kinds = ['note-vs-head', 'same-size', 'distinguished'] as const;
export const forkMaterials: Structure<readonly ForkMaterial[]> = {
  name: 'ForkMaterials',
  write(w, list) {
    w.vector(list, maxUint8, 'forks', (one) => {
      w.u8(kinds.indexOf(one.kind) + 1, 'kind');
      w.opaque(new TextEncoder().encode(one.origin), maxUint16, 'origin');
      w.optional(one.head, (head) => {
        treeHead.write(w, head.treeHead);
        w.fixed(head.root, hashBytes, 'root');
      });
      w.vector(one.notes, maxUint8, 'notes', (note) => w.opaque(note, maxUint32, 'note'));
    });
  },
  read: (r) =>
    r.vector(maxUint8, 5, 'forks', () => {
      const kind = kinds[r.u8('kind') - 1];
      if (kind === undefined) throw r.malformed('kind', 'a kind from 1 to 3');
      return {
        kind,
        origin: new TextDecoder().decode(r.opaque(maxUint16, 'origin')),
        head: r.optional('head', () => ({
          treeHead: treeHead.read(r),
          root: r.fixed(hashBytes, 'root'),
        })),
        notes: r.vector(maxUint8, 4, 'notes', () =>
          r.opaque(maxUint32, 'note', clientLimits.noteBytesMax),
        ),
      };
    }),
};

/** VerificationError FORK with what proves it. */
export class ForkError extends VerificationError {
  readonly material: ForkMaterial;
  constructor(material: ForkMaterial, checked: string, expected: string) {
    super('FORK', checked, expected);
    this.material = material;
  }
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
  suite: VerifierSuite,
  identity: LogIdentity,
  policy: Policy | undefined,
  bytes: Uint8Array,
  shown: { readonly size: number; readonly root: Hash; readonly treeHead?: TreeHead | undefined },
): WitnessedNote {
  const { note, checkpoint } = openCheckpoint(suite, bytes, identity);
  const isOfTree = checkpoint.size === shown.size;
  verify(isOfTree, 'CHAIN', 'checkpoint size', `${shown.size}, that of the answer`);
  const root = keytransRoot(checkpoint);
  verify(root !== undefined, 'MALFORMED', 'checkpoint extension', 'the KEYTRANS root');
  const keys = [identity.key, ...(policy?.witnesses ?? [])];
  const known = note.signatures.filter(({ name, keyId }) =>
    keys.some((key) => key.name === name && key.keyId === keyId),
  );
  const kept = new TextEncoder().encode(formatNote({ text: note.text, signatures: known }));
  verify(
    kept.length <= clientLimits.noteBytesMax,
    'MALFORMED',
    'checkpoint',
    `at most ${clientLimits.noteBytesMax} bytes of known signatures`,
  );
  if (!sameBytes(root, shown.root)) {
    const head = shown.treeHead && { treeHead: shown.treeHead, root: shown.root };
    throw new ForkError(
      { kind: 'note-vs-head', origin: identity.origin, head, notes: [kept] },
      `checkpoint of size ${shown.size}`,
      'the KEYTRANS root of the answer',
    );
  }
  const { ok, by } =
    policy === undefined
      ? { ok: true, by: [] }
      : meetsQuorum(policy, verifyNote(suite, note, keys));
  const witnessed = policy?.quorum === undefined || policy.quorum.kind === 'none';
  return {
    witnessed: witnessed ? 'none-required' : ok ? 'quorum' : 'pending',
    byWitnesses: by,
    note: kept,
  };
}

/** Throws a ForkError unless both checkpoints, of one size, say the same. */
export function checkSameSize(
  origin: string,
  size: number,
  ours: Uint8Array,
  theirs: Uint8Array,
): void {
  if (parseNote(ours).text === parseNote(theirs).text) return;
  throw new ForkError(
    { kind: 'same-size', origin, notes: [ours, theirs] },
    `checkpoint of size ${size}`,
    'the one that was signed before',
  );
}
