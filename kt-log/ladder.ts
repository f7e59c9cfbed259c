/**
 * Integer arithmetic of the search tree and of the ladders: the implicit binary search tree over
 * log entries (protocol section 4.1, Appendix A), view updates (4.2), binary ladders (5, 6.2, 8.1,
 * Appendix B). Positions reach 2^52, so no 32-bit operators on them. No hashes, no timestamps.
 */
import { InvalidArgumentError } from '@quicprochat/proto/status';
import { maxTreeSize } from './codec.ts';

/** Versions are uint32; lookups beyond the greatest are skipped (section 5). */
export const maxVersion = 2 ** 32 - 1;

/** Largest power of two that is at most `n`, for n from 1 to 2^53. */
export function powerOfTwoAtMost(n: number): number {
  let power = 1;
  while (power * 2 <= n) power *= 2;
  return power;
}

/** Throws InvalidArgumentError BAD_FIELD unless `size` is a tree size from 1 to 2^52 - 1. */
function checkSize(size: number): void {
  if (!Number.isSafeInteger(size) || size < 1 || size > maxTreeSize) {
    throw new InvalidArgumentError('BAD_FIELD', `tree size: not an integer from 1 to 2^52 - 1`);
  }
}

/** 2^level(x): the number of trailing ones of a position, as a power of two. */
function levelWeight(position: number): number {
  let rest = position;
  let weight = 1;
  while (rest % 2 === 1) {
    rest = (rest - 1) / 2;
    weight *= 2;
  }
  return weight;
}

/** Root entry of the search tree over `size` entries: `2^floor(log2 size) - 1`. */
export function searchRoot(size: number): number {
  checkSize(size);
  return powerOfTwoAtMost(size) - 1;
}

/** Left child, or undefined for a leaf. It does not depend on the tree's size. */
export function leftChild(position: number): number | undefined {
  const weight = levelWeight(position);
  return weight === 1 ? undefined : position - weight / 2;
}

/** Right child in the tree of `size` entries, or undefined for a leaf and for the last entry. */
export function rightChild(position: number, size: number): number | undefined {
  const weight = levelWeight(position);
  if (weight === 1 || position >= size - 1) return undefined;
  let child: number | undefined = position + weight / 2;
  while (child !== undefined && child >= size) child = leftChild(child);
  return child;
}

/** Root, right child, right child's right child, ... to the last entry. */
export function frontier(size: number): number[] {
  return [...rightSpine(searchRoot(size), size)];
}

function* rightSpine(start: number, size: number): Generator<number, void, void> {
  for (let at: number | undefined = start; at !== undefined; at = rightChild(at, size)) yield at;
}

/** Entries from the root down to the parent of `position`, the root first. */
export function directPath(position: number, size: number): number[] {
  const path: number[] = [];
  let at: number | undefined = searchRoot(size);
  while (at !== undefined && at !== position) {
    path.push(at);
    at = position < at ? leftChild(at) : rightChild(at, size);
  }
  if (at === undefined) {
    throw new InvalidArgumentError('BAD_FIELD', 'position: not below the tree size');
  }
  return path;
}

/**
 * Section 4.2: the entries whose timestamps a user needs to go from a tree of `last` entries
 * (absent: none seen) to one of `size`, in the order in which they are checked. `restart` false
 * leaves out the rule that the text of August 2026 added, for the case that no entry of the direct
 * path is new; only comparisons with implementations of the older text use it.
 */
export function viewUpdate(size: number, last: number | undefined, restart = true): number[] {
  if (last === undefined) return frontier(size);
  checkSize(last);
  if (last >= size) return [];
  // The direct path runs from the entry up to the root; entries to the right of it get larger.
  const path = directPath(last - 1, size)
    .filter((position) => position >= last)
    .reverse();
  const onFrontier = path.at(-1) ?? (restart ? last - 1 : undefined);
  if (onFrontier === undefined) return path;
  const [, ...rest] = rightSpine(onFrontier, size);
  return [...path, ...rest];
}

/** How the greatest version that an entry holds compares with a target version. */
export type Comparison = -1 | 0 | 1;

/** Appendix B, base_binary_ladder: the lookups that show `greatest` to be the greatest version. */
export function baseLadder(greatest: number): number[] {
  const versions: number[] = [];
  let lower = 0;
  let upper = 0;
  // 0, 1, 3, 7, ... until one is greater.
  for (let value = 0; ; value = 2 * value + 1) {
    if (value <= maxVersion) versions.push(value);
    upper = value;
    if (value > greatest) break;
    lower = value;
  }
  while (lower + 1 < upper) {
    const middle = Math.floor((lower + upper) / 2);
    if (middle <= maxVersion) versions.push(middle);
    if (middle <= greatest && middle <= maxVersion) lower = middle;
    else upper = middle;
  }
  return versions;
}

/**
 * Section 6.2: what one lookup decides. 1: a greater version is there, so the ladder ends;
 * -1: the target or a lesser one is not, so it ends; undefined: it goes on.
 */
export function decidedBy(
  version: number,
  isIncluded: boolean,
  target: number,
): -1 | 1 | undefined {
  if (isIncluded && version > target) return 1;
  if (!isIncluded && version <= target) return -1;
  return undefined;
}

/**
 * Lookups that a response need not repeat (section 6.2): inclusion of a version shown in an entry
 * to the left, non-inclusion of it shown in one to the right.
 */
export class LadderHistory {
  /** Version -> leftmost entry that was shown to include it. */
  readonly #included = new Map<number, number>();
  /** Version -> rightmost entry that was shown not to include it. */
  readonly #missing = new Map<number, number>();

  /** The known outcome of looking up `version` in entry `position`; undefined: it is looked up. */
  known(version: number, position: number): boolean | undefined {
    const included = this.#included.get(version);
    if (included !== undefined && included < position) return true;
    const missing = this.#missing.get(version);
    if (missing !== undefined && missing > position) return false;
    return undefined;
  }

  note(version: number, position: number, isIncluded: boolean): void {
    const seen = isIncluded ? this.#included : this.#missing;
    const before = seen.get(version);
    const isFurther = before === undefined || (isIncluded ? position < before : position > before);
    if (isFurther) seen.set(version, position);
  }
}

/** One run down a search ladder: the lookups to prove, and what the ladder says. */
export interface LadderRun {
  readonly lookups: readonly number[];
  /** Outcomes of `lookups`, in order. */
  readonly included: readonly boolean[];
  readonly comparison: Comparison;
}

/**
 * Appendix B, search_binary_ladder, for prover and verifier alike: the base ladder of the target,
 * cut after the lookup that decides. Up to there it equals the base ladder of the greatest version,
 * because each step depends only on outcomes that agree. `outcome` tells what a lookup shows: the
 * prover from its own data, the verifier from `known` (omitted lookups) or the proof's next result.
 */
export function runSearchLadder(
  target: number,
  position: number,
  history: LadderHistory | undefined,
  outcome: (version: number, known: boolean | undefined) => boolean,
): LadderRun {
  const lookups: number[] = [];
  const included: boolean[] = [];
  for (const version of baseLadder(target)) {
    const known = history?.known(version, position);
    const isIncluded = outcome(version, known);
    if (known === undefined) {
      lookups.push(version);
      included.push(isIncluded);
      history?.note(version, position, isIncluded);
    }
    const comparison = decidedBy(version, isIncluded, target);
    if (comparison !== undefined) return { lookups, included, comparison };
  }
  return { lookups, included, comparison: 0 };
}

/** Appendix B, monitoring_binary_ladder: all of these are included in an honest log. */
export function monitoringLadder(target: number): number[] {
  return baseLadder(target).filter((version) => version <= target);
}
