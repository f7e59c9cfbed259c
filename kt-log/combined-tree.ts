/**
 * The combined tree's algorithms over one data provider (protocol sections 4.2, 6, 7, 10.1,
 * Appendix C): view update, distinguished entries, searches. A prover runs them over a recorder and
 * a verifier over a replayer, so both ask for the same things in the same order. Monitoring and
 * updating are in monitoring.ts and updating.ts. No hashes and no I/O here.
 */
import type { Comparison, LadderHistory } from './ladder.ts';
import { leftChild, rightChild, searchRoot, viewUpdate } from './ladder.ts';
import { LadderHistory as History } from './ladder.ts';
import { verify, VerificationError } from './verification-error.ts';

/** What an algorithm asks of its side. Each ladder counts as one PrefixProof of that entry. */
export interface Provider {
  /** False while the entry has to be fetched first; only a prover ever answers false. */
  isAtHand(position: number): boolean;
  /** The entry's timestamp; the first request of each one is recorded or consumed. */
  timestamp(position: number): number;
  /** A search ladder (section 6.2); with a history, lookups that it makes redundant are omitted. */
  searchLadder(position: number, target: number, history?: LadderHistory): Comparison;
  /** A monitoring ladder (section 8.1). Throws unless every lookup is an inclusion. */
  monitoringLadder(position: number, target: number): void;
  /** Plain lookups; whether each version is included. */
  lookUp(position: number, versions: readonly number[]): boolean[];
  /** Section 8.3, step 4 of the second algorithm: whether the response ends before this entry. */
  stopsBefore(position: number): boolean;
}

/**
 * An algorithm in progress. It yields the position of an entry that is not at hand and goes on when
 * it is; a verifier's never yields.
 */
export type Steps<T> = Generator<number, T, void>;

/** Runs an algorithm whose provider has everything. */
export function runNow<T>(steps: Steps<T>): T {
  const { done, value } = steps.next();
  if (done === true) return value;
  throw new TypeError(`entry ${value} is not at hand`);
}

/** Runs an algorithm, fetching entries as it asks for them. */
export async function runWith<T>(
  steps: Steps<T>,
  fetch: (position: number) => Promise<void>,
): Promise<T> {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
    await fetch(step.value);
  }
}

/** A tree of `size` entries under one configuration, seen through a provider. */
export interface Tree {
  readonly provider: Provider;
  readonly size: number;
  /** Reasonable Monitoring Window, milliseconds. */
  readonly windowMs: number;
  readonly lifetimeMs: number | undefined;
}

export function* timestampOf({ provider }: Tree, position: number): Steps<number> {
  if (!provider.isAtHand(position)) yield position;
  return provider.timestamp(position);
}

/** Section 4.2: asks for the timestamps that take a user from `last` entries to all of them. */
export function* updateView(tree: Tree, last: number | undefined, restart = true): Steps<void> {
  for (const position of viewUpdate(tree.size, last, restart)) yield* timestampOf(tree, position);
}

/** An entry on a path with the timestamps that bound it (section 6.1). */
interface Bounded {
  readonly position: number;
  readonly leftMs: number;
  readonly rightMs: number;
}

/** Section 6.1, step 2: whether an entry with a distinguished parent (or the root) is one itself. */
export function isWide({ windowMs }: Tree, bounded: Omit<Bounded, 'position'>): boolean {
  return bounded.rightMs - bounded.leftMs >= windowMs;
}

/** The root with its bounds; asks for the rightmost timestamp. */
export function* boundedRoot(tree: Tree): Steps<Bounded> {
  const rightMs = yield* timestampOf(tree, tree.size - 1);
  return { position: searchRoot(tree.size), leftMs: 0, rightMs };
}

/** The child of an entry on the side of `toward`, whose own timestamp `ms` now bounds it. */
export function childToward(
  tree: Tree,
  parent: Bounded,
  ms: number,
  toward: number,
): Bounded | undefined {
  const isLeft = toward < parent.position;
  const position = isLeft ? leftChild(parent.position) : rightChild(parent.position, tree.size);
  if (position === undefined) return undefined;
  return isLeft ? { ...parent, position, rightMs: ms } : { ...parent, position, leftMs: ms };
}

/** Section 6.1: the rightmost distinguished entry, or undefined if there is none. */
export function* rightmostDistinguished(tree: Tree): Steps<number | undefined> {
  let found: number | undefined;
  let at: Bounded | undefined = yield* boundedRoot(tree);
  while (at !== undefined && isWide(tree, at)) {
    found = at.position;
    if (rightChild(at.position, tree.size) === undefined) break;
    at = childToward(tree, at, yield* timestampOf(tree, at.position), tree.size);
  }
  return found;
}

/** The path from the root to an entry, as far as section 12.3 has timestamps for it. */
export interface Path {
  /** Entries above the target that are distinguished, the root first. */
  readonly distinguishedAbove: readonly number[];
  readonly isDistinguished: boolean;
}

/**
 * Asks for the timestamps from the root to the target's parent, up to the first entry that turns
 * out not to be distinguished (section 12.3, contact monitoring and updates). That one's own is not
 * asked for: the entries above it bound it, and a proof has the least that is needed.
 */
export function* pathTo(tree: Tree, target: number): Steps<Path> {
  const distinguishedAbove: number[] = [];
  let at: Bounded | undefined = yield* boundedRoot(tree);
  while (at !== undefined && at.position !== target) {
    if (!isWide(tree, at)) return { distinguishedAbove, isDistinguished: false };
    const ms: number = yield* timestampOf(tree, at.position);
    distinguishedAbove.push(at.position);
    at = childToward(tree, at, ms, target);
  }
  return { distinguishedAbove, isDistinguished: at !== undefined && isWide(tree, at) };
}

/** Section 7.1: whether an entry of this age has passed the maximum lifetime. */
export function* isExpired(tree: Tree, timestampMs: number): Steps<boolean> {
  if (tree.lifetimeMs === undefined) return false;
  const newest = yield* timestampOf(tree, tree.size - 1);
  return newest - timestampMs >= tree.lifetimeMs;
}

/** Result of a search: the terminal entry, and whether the user has to monitor the label. */
export interface Found {
  readonly terminal: number;
  /** True when the terminal entry is right of the rightmost distinguished one (sections 6.3, 7.2). */
  readonly mustMonitor: boolean;
}

/** Section 6.3. Throws VerificationError LADDER when `version` is not the greatest one. */
export function* searchGreatest(tree: Tree, version: number): Steps<Found> {
  const distinguished = yield* rightmostDistinguished(tree);
  const history = new History();
  let terminal: number | undefined;
  let at: number | undefined = distinguished ?? searchRoot(tree.size);
  while (at !== undefined) {
    yield* timestampOf(tree, at);
    const comparison = tree.provider.searchLadder(at, version, history);
    verify(comparison <= 0, 'LADDER', 'greatest version', 'no version above the claimed one');
    if (comparison === 0) terminal ??= at;
    const next = rightChild(at, tree.size);
    if (next === undefined) {
      verify(comparison === 0, 'LADDER', 'greatest version', 'the claimed one in the newest entry');
    }
    at = next;
  }
  // The newest entry holds the version, so the loop has found one.
  const found = terminal ?? tree.size - 1;
  return { terminal: found, mustMonitor: found > (distinguished ?? -1) };
}

/**
 * Shows that a label has no version in the newest entry: the entries of a greatest-version search,
 * each of which lacks version zero. No part of the protocol's operations (section 13.1 permits a
 * documented one); it is what a search for an unknown label would look like.
 */
export function* searchAbsence(tree: Tree): Steps<void> {
  let at: number | undefined = (yield* rightmostDistinguished(tree)) ?? searchRoot(tree.size);
  const history = new History();
  for (; at !== undefined; at = rightChild(at, tree.size)) {
    yield* timestampOf(tree, at);
    const comparison = tree.provider.searchLadder(at, 0, history);
    verify(comparison < 0, 'LADDER', 'absence of a label', 'no version in any entry');
  }
}

/** An entry that a fixed-version search inspected. */
interface Inspected {
  readonly position: number;
  readonly isExpired: boolean;
  readonly isDistinguished: boolean;
}

/**
 * Section 7.2. Throws VerificationError NOT_FOUND when the proof shows that the version does not
 * exist, EXPIRED when nobody may vouch for it any more.
 */
export function* searchFixed(tree: Tree, version: number): Steps<Found> {
  const history = new History();
  const inspected: Inspected[] = [];
  let above: number | undefined;
  let terminal: number | undefined;
  let isAboveDistinguished = true;
  let at: Bounded | undefined = yield* boundedRoot(tree);
  while (at !== undefined) {
    const { position } = at;
    const ms: number = yield* timestampOf(tree, position);
    const expired: boolean = yield* isExpired(tree, ms);
    isAboveDistinguished &&= isWide(tree, at);
    inspected.push({ position, isExpired: expired, isDistinguished: isAboveDistinguished });
    const comparison: Comparison = expired
      ? -1
      : tree.provider.searchLadder(position, version, history);
    if (comparison === 0) {
      terminal = position;
      break;
    }
    if (comparison > 0) above = position;
    at = childToward(tree, at, ms, comparison > 0 ? -1 : tree.size);
  }
  const found = terminal ?? above;
  verify(found !== undefined, 'NOT_FOUND', 'fixed version', 'an entry that holds it');
  const needsWitness = inspected.some((entry) => entry.isExpired);
  // The terminal entry counts itself (step 5.2); the one where a greater version is does not (6.2).
  const isWitness = (entry: Inspected): boolean =>
    !entry.isExpired &&
    entry.isDistinguished &&
    (entry.position < found || entry.position === terminal);
  if (needsWitness && !inspected.some(isWitness)) {
    throw new VerificationError('EXPIRED', 'fixed version', 'an unexpired distinguished entry');
  }
  if (terminal === undefined) {
    const [isIncluded] = tree.provider.lookUp(found, [version]);
    verify(isIncluded === true, 'NOT_FOUND', 'fixed version', 'inclusion where a greater one is');
  }
  const distinguished = yield* rightmostDistinguished(tree);
  return { terminal: found, mustMonitor: found > (distinguished ?? -1) };
}

/** A distinguished entry with its timestamp. */
export interface DistinguishedEntry {
  readonly position: number;
  readonly timestampMs: number;
}

/**
 * Section 10.1: the recent distinguished entries, rightmost first. Recent means: issued less than
 * `recentMs` before the newest entry, and at most `countMax` of them.
 */
export function* walkDistinguished(
  tree: Tree,
  options: {
    readonly stop?: number | undefined;
    readonly recentMs: number;
    readonly countMax: number;
  },
): Steps<DistinguishedEntry[]> {
  const found: DistinguishedEntry[] = [];
  const newest = yield* timestampOf(tree, tree.size - 1);
  const visit = function* (at: Bounded | undefined): Steps<void> {
    if (at === undefined || !isWide(tree, at)) return;
    const { position } = at;
    const timestampMs = yield* timestampOf(tree, position);
    yield* visit(childToward(tree, at, timestampMs, tree.size));
    if (options.stop !== undefined && position <= options.stop) return;
    const isRecent = newest - timestampMs < options.recentMs && found.length < options.countMax;
    if (!isRecent || (yield* isExpired(tree, timestampMs))) return;
    found.push({ position, timestampMs });
    yield* visit(childToward(tree, at, timestampMs, -1));
  };
  yield* visit(yield* boundedRoot(tree));
  return found;
}
