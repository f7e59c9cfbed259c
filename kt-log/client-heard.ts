/**
 * What others have heard of a log, for a client of it (kt-log/README.md): evidence, signed heads, and
 * cosignatures that came another way than the log's own answers. Nothing of it is believed that does not
 * prove itself. Browser-safe.
 */
import { checkSameSize, ForkError } from './client-checkpoint.ts';
import type { ClientCore } from './client-core.ts';
import { checkEvidence, isAgainst, type ValueRule } from './evidence-check.ts';
import { proven, proveSameSize } from './evidence-proofs.ts';
import type { SignedHead } from './evidence.ts';
import { openCheckpoint } from './note.ts';
import { verifyTreeHead } from './tree-head.ts';
import { verify } from './verification-error.ts';

export class ClientHeard {
  readonly #core: ClientCore;

  constructor(core: ClientCore) {
    this.#core = core;
  }

  /**
   * Takes evidence against the log. False: it is kept already, or there is enough of it. Throws
   * VerificationError when it proves nothing against this log's keys.
   */
  evidence(bytes: Uint8Array, valueRule?: ValueRule): boolean {
    const core = this.#core;
    const { identity, config, suite } = core.options;
    const before = core.evidence().length;
    const checked = checkEvidence(suite, bytes, valueRule);
    const keys = { origin: identity.origin, key: identity.key, config };
    verify(isAgainst(checked, keys), 'CHAIN', 'evidence', 'the keys of this log');
    core.keepEvidence(bytes);
    return core.evidence().length > before;
  }

  /**
   * Compares a signed head with the newest one that was verified here. True: they are of one size and
   * agree. Throws a ForkError, with its evidence kept, when they do not; VerificationError for a head
   * that the log did not sign.
   */
  head(head: SignedHead): boolean {
    const core = this.#core;
    const { identity, config, suite } = core.options;
    const { size, root, signature } = head;
    verifyTreeHead(suite, config, { treeSize: size, signature }, root);
    const record = core.record();
    if (record?.user.view.size !== size) return false;
    const keys = { origin: identity.origin, key: identity.key, config };
    const { note } = record;
    const made = proven(() =>
      proveSameSize(suite, keys, { type: 'note', note }, { type: 'head', head }),
    );
    if (made === undefined) return true;
    core.keepEvidence(made.bytes);
    throw new ForkError(made.bytes, `tree head of size ${size}`, 'the one that was shown here');
  }

  /**
   * Takes a checkpoint that somebody else holds. Of the size of the newest head here its cosignatures
   * count as if the log had brought them; a contradiction is a ForkError as in `head`. Returns the
   * size, and whether the head here has its quorum. Throws VerificationError for a note that the log
   * did not sign.
   */
  note(bytes: Uint8Array): { readonly size: number; readonly isWitnessed: boolean } {
    const core = this.#core;
    const { identity, suite } = core.options;
    const { size } = openCheckpoint(suite, bytes, identity).checkpoint;
    const record = core.record();
    if (record?.user.view.size !== size) {
      return { size, isWitnessed: (record?.witnessedSize ?? 0) >= (record?.user.view.size ?? 1) };
    }
    core.keepingEvidence(() => checkSameSize(core.options, record.note, bytes));
    return { size, isWitnessed: core.addCosignatures(bytes) };
  }
}
