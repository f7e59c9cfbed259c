/**
 * Test support: a small model of how members decide over a commit that not all can judge (docs/protocol/group-log.md): who can
 * apply it, who says what to whom, in which order. The rule itself is the client's.
 */
import type { decide } from './standing-rules.ts';
import { standingLimits } from './standing-rules.ts';

export interface Bounds {
  /** Honest members that stay, and whether each can apply the commit. */
  readonly canApply: readonly boolean[];
  /** Others that stay, and say what they like to whom they like. Its author has no vote. */
  readonly liars: number;
  readonly rule: typeof decide;
}

/** Where an honest member stands: before the commit, behind it, behind the one that rejects it, or out. */
type Place = 'parent' | 'applied' | 'beyond' | 'lost';

export interface State {
  readonly places: readonly Place[];
  /** By member, one bit for each vote that it heard: first "will not", then "applied", of each voter. */
  readonly heard: readonly number[];
  /** A second child of the parent that rejects the commit is in the log. */
  readonly hasSecond: boolean;
  /** Time enough went by. */
  readonly isOld: boolean;
}

export const start = ({ canApply }: Bounds): State => ({
  places: canApply.map(() => 'parent' as const),
  heard: canApply.map(() => 0),
  hasSecond: false,
  isOld: false,
});

const bit = (voter: number, isApplied: boolean): number => 1 << (2 * voter + (isApplied ? 1 : 0));

function decisionOf({ canApply, liars, rule }: Bounds, state: State, member: number) {
  const count = canApply.length + liars;
  const voters = Array.from({ length: count }, (_, index) => `user${index}`);
  const votes = voters.flatMap((userId, voter) =>
    [false, true].flatMap((isApplied) =>
      ((state.heard[member] ?? 0) & bit(voter, isApplied)) === 0 ? [] : [{ userId, isApplied }],
    ),
  );
  return rule({ voters, seenMs: 0 }, votes, state.isOld ? standingLimits.aloneMs : 0);
}

const put = <T>(all: readonly T[], at: number, value: T): T[] =>
  all.map((one, index) => (index === at ? value : one));

/** Everything that can happen next. `fair`: only what honest members do by themselves. */
export function* next(bounds: Bounds, state: State, isFair: boolean): Generator<State> {
  const { canApply, liars } = bounds;
  const { places, heard } = state;
  for (const [member, place] of places.entries()) {
    const decision = decisionOf(bounds, state, member);
    const knows = heard[member] ?? 0;
    if (place === 'parent') {
      // It reads the log: the first child that counts for it.
      if (canApply[member] === true && decision !== 'rejected') {
        const own = knows | bit(member, true);
        yield { ...state, places: put(places, member, 'applied'), heard: put(heard, member, own) };
      } else if (decision === 'rejected') {
        // It goes to the second child, or makes it.
        yield { ...state, places: put(places, member, 'beyond'), hasSecond: true };
      } else if (decision === 'taken') {
        yield { ...state, places: put(places, member, 'lost') };
      } else if ((knows & bit(member, false)) === 0) {
        yield { ...state, heard: put(heard, member, knows | bit(member, false)) };
      }
    } else if (place === 'applied' && decision === 'rejected' && state.hasSecond) {
      yield { ...state, places: put(places, member, 'lost') };
    }
    // It passes on what it knows.
    for (const other of canApply.keys()) {
      const all = (heard[other] ?? 0) | knows;
      if (other !== member && all !== heard[other])
        yield { ...state, heard: put(heard, other, all) };
    }
    if (isFair) continue;
    for (let liar = canApply.length; liar < canApply.length + liars; liar += 1) {
      for (const isApplied of [false, true]) {
        const all = knows | bit(liar, isApplied);
        if (all !== knows) yield { ...state, heard: put(heard, member, all) };
      }
    }
  }
  if (!state.isOld) yield { ...state, isOld: true };
}

/** What is wrong with a state; undefined: nothing. */
export function wrongWith(bounds: Bounds, state: State): string | undefined {
  const { canApply, liars } = bounds;
  const able = canApply.filter(Boolean).length;
  const isBeyond = state.places.includes('beyond');
  const count = canApply.length + liars;
  if (isBeyond && 2 * able >= count) return 'passed over what half of the members can apply';
  const isAtRest = next(bounds, state, true).next().done === true;
  if (!isAtRest) return undefined;
  if (isBeyond && state.places.includes('applied')) return 'two histories at rest';
  const isStuck = state.places.includes('parent');
  if (isStuck && 2 * canApply.length > count) return 'honest members are more, and wait';
  return undefined;
}

/** All states that can be reached. Throws what is wrong with the first bad one. */
export function explore(bounds: Bounds): number {
  const first = start(bounds);
  const seen = new Set([nameOf(first)]);
  const open = [first];
  for (let state = open.pop(); state !== undefined; state = open.pop()) {
    const wrong = wrongWith(bounds, state);
    if (wrong !== undefined) throw new Error(`${wrong}: ${JSON.stringify({ bounds, state })}`);
    for (const one of next(bounds, state, false)) {
      const name = nameOf(one);
      if (seen.has(name)) continue;
      seen.add(name);
      open.push(one);
    }
  }
  return seen.size;
}

const nameOf = ({ places, heard, hasSecond, isOld }: State): string =>
  `${places.join()} ${heard.join()} ${hasSecond} ${isOld}`;
