/**
 * Verifying new versions of one's label over a provider (protocol section 9.1), and the versions
 * whose VRF proofs come with them.
 */
import type { Steps, Tree } from './combined-tree.ts';
import { pathTo, timestampOf } from './combined-tree.ts';
import { baseLadder, frontier, LadderHistory, runSearchLadder } from './ladder.ts';
import { verify } from './verification-error.ts';

/** What the owner of a label knows of it. */
export interface OwnerKnowledge {
  /** Greatest version before the update, if there is any. */
  readonly greatestVersion: number | undefined;
  /** Entry where that version was inserted, or the owner's starting position if it was before it. */
  readonly greatestPosition: number;
  /** Greatest version in an entry at or right of the starting position; undefined if none is known. */
  readonly versionAt: (position: number) => number | undefined;
}

/** New versions of a label in one entry: all from the first to the last, ascending. */
export interface NewVersions {
  readonly position: number;
  readonly first: number;
  readonly greatest: number;
}

export interface CheckedUpdate {
  /** Whether the entry is distinguished: then the contact map needs no entry for it. */
  readonly isDistinguished: boolean;
}

const range = (first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i);

/** Section 9.1: the versions whose VRF proofs an UpdateResponse carries, ascending. */
export function updateLadder(greatestBefore: number | undefined, added: NewVersions): number[] {
  const known = new Set(greatestBefore === undefined ? [0] : baseLadder(greatestBefore));
  // The text omits version zero for an owner without any version, who knows it from 8.3, step 3.
  const wanted = new Set([...baseLadder(added.greatest), ...range(added.first, added.greatest)]);
  return [...wanted].filter((version) => !known.has(version)).sort((a, b) => a - b);
}

/** New versions that no search ladder for the greatest of them looks up. */
function versionsBesideLadder(added: NewVersions): number[] {
  const inLadder = new Set(baseLadder(added.greatest));
  return range(added.first, added.greatest).filter((version) => !inLadder.has(version));
}

/** Section 9.1. Throws VerificationError LADDER, CHAIN. */
export function* checkUpdate(
  tree: Tree,
  owner: OwnerKnowledge,
  added: NewVersions,
): Steps<CheckedUpdate> {
  const { provider } = tree;
  const { position } = added;
  const before = owner.greatestVersion;
  verify(position < tree.size, 'CHAIN', 'update position', 'an entry of the tree');
  verify(position > owner.greatestPosition, 'CHAIN', 'update position', 'right of the last one');
  const history = new LadderHistory();
  if (position > 0) yield* searchPrevious(tree, owner, position, history);
  const { isDistinguished } = yield* pathTo(tree, position);
  if (!isDistinguished) {
    yield* timestampOf(tree, position);
    const comparison = provider.searchLadder(position, added.greatest, history);
    verify(comparison === 0, 'LADDER', 'new greatest version', 'the greatest in its entry');
  }
  const beside = versionsBesideLadder(added);
  if (beside.length > 0) {
    yield* timestampOf(tree, position);
    const included = provider.lookUp(position, beside);
    verify(included.every(Boolean), 'LADDER', 'new versions', 'inclusion of each of them');
  }
  verify(before === undefined || added.first > before, 'CHAIN', 'new versions', 'greater ones');
  return { isDistinguished };
}

/** Section 9.1, steps 1 and 2: a greatest-version search in the tree before the update's entry. */
function* searchPrevious(
  tree: Tree,
  owner: OwnerKnowledge,
  previousSize: number,
  history: LadderHistory,
): Steps<void> {
  const before = owner.greatestVersion;
  const target = before ?? 0;
  const rightmost = previousSize - 1;
  // The previous frontier lies on the path to its last entry, and what is distinguished comes first.
  const path = yield* pathTo(tree, rightmost);
  // Step 1 then passes over step 2: nothing was shown, and nothing of step 4 is redundant.
  if (path.isDistinguished) return;
  const distinguished = new Set(path.distinguishedAbove);
  const wasInspected = (position: number): boolean =>
    distinguished.has(position) || (before !== undefined && position <= owner.greatestPosition);
  for (const position of frontier(previousSize)) {
    if (wasInspected(position)) {
      // Not looked at again (steps 1 and 2.1), but a greatest-version search would have begun there,
      // so what it would have shown is omitted further right.
      const greatest = owner.versionAt(position) ?? -1;
      runSearchLadder(target, position, history, (version) => version <= greatest);
      continue;
    }
    yield* timestampOf(tree, position);
    const comparison = tree.provider.searchLadder(position, target, history);
    const expected = before === undefined ? -1 : 0;
    verify(comparison === expected, 'LADDER', 'previous greatest version', 'unchanged until then');
  }
}
