/**
 * Monitoring over a provider (protocol section 8): the contact algorithm, and the owner's two. The
 * callers build or check everything around them; see combined-tree.ts.
 */
import type { Steps, Tree } from './combined-tree.ts';
import {
  boundedRoot,
  childToward,
  isExpired,
  isWide,
  pathTo,
  timestampOf,
} from './combined-tree.ts';
import { directPath, leftChild, rightChild } from './ladder.ts';
import type { MonitorMapEntry } from './operations.ts';
import { verify, VerificationError } from './verification-error.ts';

/** A map entry after one round of contact monitoring. */
export interface MonitoredEntry extends MonitorMapEntry {
  /** No longer to be monitored: it stands at a distinguished entry. */
  readonly isSettled: boolean;
  /** Settled as soon as the owner's own algorithm inspects this distinguished entry. */
  readonly settledBy: number | undefined;
}

/**
 * Section 8.2, from the rightmost map entry to the leftmost. `ownerStart` is the start position of
 * the owner monitoring that follows, if one does. Returns the entries that stay or were settled;
 * those overtaken by a greater version are gone. Throws VerificationError LADDER.
 */
export function* monitorContact(
  tree: Tree,
  map: readonly MonitorMapEntry[],
  ownerStart?: number,
): Steps<MonitoredEntry[]> {
  const after: MonitoredEntry[] = [];
  /** Entry -> target version of the monitoring ladder that it gave. */
  const given = new Map<number, number>();
  for (const entry of map.toReversed()) {
    const { version } = entry;
    const path = yield* pathTo(tree, entry.position);
    if (path.isDistinguished) {
      after.push({ ...entry, isSettled: true, settledBy: undefined });
      continue;
    }
    const distinguished = new Set(path.distinguishedAbove);
    let { position } = entry;
    let isSettled = false;
    let settledBy: number | undefined;
    let isOvertaken = false;
    for (const next of entriesToInspect(tree, entry.position, distinguished)) {
      const isLast = distinguished.has(next);
      if (isLast && ownerStart !== undefined && entry.position >= ownerStart) {
        settledBy = next;
        break;
      }
      const target = given.get(next);
      if (target !== undefined) {
        verify(target > version, 'LADDER', 'monitoring map', 'versions that ascend with positions');
        isOvertaken = true;
        break;
      }
      yield* timestampOf(tree, next);
      tree.provider.monitoringLadder(next, version);
      given.set(next, version);
      position = next;
      isSettled = isLast;
    }
    // An entry that was found there gives no ladder: a lesser version that comes up to it goes too.
    isOvertaken ||= after.some((other) => other.position === position && other.version > version);
    if (!isOvertaken) after.push({ position, version, isSettled, settledBy });
  }
  return after.toReversed();
}

/** Section 8.2, step 2: the direct path right of an entry, up to the first distinguished one. */
function entriesToInspect(
  tree: Tree,
  position: number,
  distinguished: ReadonlySet<number>,
): number[] {
  // The direct path comes root first; entries right of the position get smaller on the way down.
  const right = directPath(position, tree.size)
    .filter((above) => above > position)
    .toReversed();
  const end = right.findIndex((above) => distinguished.has(above));
  return end < 0 ? right : right.slice(0, end + 1);
}

/**
 * Section 8.3, first algorithm, step 1: the start position and the entries on its direct path to
 * its left, nearest first, ending before the first expired one. Throws VerificationError EXPIRED
 * unless the start position is distinguished and not expired.
 */
export function* ownerStartEntries(tree: Tree, start: number): Steps<number[]> {
  verify(start < tree.size, 'NOT_FOUND', 'starting position', 'an entry of the tree');
  let at = yield* boundedRoot(tree);
  const path = [...directPath(start, tree.size), start];
  for (const position of path) {
    const ms = yield* timestampOf(tree, position);
    if (!isWide(tree, at)) {
      throw new VerificationError('EXPIRED', 'starting position', 'a distinguished entry');
    }
    const next = childToward(tree, at, ms, start);
    if (next !== undefined && position !== start) at = next;
  }
  const entries: number[] = [];
  for (const position of path.toReversed()) {
    if (position > start) continue;
    if (yield* isExpired(tree, yield* timestampOf(tree, position))) break;
    entries.push(position);
  }
  verify(entries.length > 0, 'EXPIRED', 'starting position', 'an entry that is not expired');
  return entries;
}

/**
 * Section 8.3, first algorithm, step 5: each entry's greatest version is the given one; none where
 * none is given. Throws VerificationError LADDER.
 */
export function* checkOwnerStart(
  tree: Tree,
  entries: readonly number[],
  greatestVersions: readonly number[],
): Steps<void> {
  for (const [i, position] of entries.entries()) {
    const greatest = greatestVersions[i];
    yield* timestampOf(tree, position);
    checkGreatest(tree, position, greatest);
  }
}

/** A ladder without omissions that shows `greatest` (undefined: none) to be the greatest version. */
function checkGreatest(tree: Tree, position: number, greatest: number | undefined): void {
  const comparison = tree.provider.searchLadder(position, greatest ?? 0);
  const expected = greatest === undefined ? -1 : 0;
  verify(
    comparison === expected,
    'LADDER',
    'greatest version of an entry',
    'the one that is known',
  );
}

/**
 * Section 8.3, second algorithm: walks the distinguished entries right of `start` in order and
 * checks that `versionAt` tells the greatest version of each. Returns the entries inspected.
 */
export function* monitorOwner(
  tree: Tree,
  start: number,
  versionAt: (position: number) => number | undefined,
): Steps<number[]> {
  const inspected: number[] = [];
  let hasStopped = false;
  type Place = Parameters<typeof childToward>[1];
  const visit = function* (at: Place | undefined): Steps<void> {
    if (at === undefined || !isWide(tree, at)) return;
    const { position } = at;
    if (position <= start) {
      if (rightChild(position, tree.size) === undefined) return;
      const ms = yield* timestampOf(tree, position);
      yield* visit(childToward(tree, at, ms, tree.size));
      return;
    }
    if (leftChild(position) !== undefined) {
      const ms = yield* timestampOf(tree, position);
      yield* visit(childToward(tree, at, ms, -1));
    }
    hasStopped ||= tree.provider.stopsBefore(position);
    if (hasStopped) return;
    const ms = yield* timestampOf(tree, position);
    checkGreatest(tree, position, versionAt(position));
    inspected.push(position);
    yield* visit(childToward(tree, at, ms, tree.size));
  };
  yield* visit(yield* boundedRoot(tree));
  return inspected;
}
