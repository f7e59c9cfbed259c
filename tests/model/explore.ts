/**
 * Two ways through the model of a hub of three: every state within small bounds, breadth first, so that a
 * breach comes with a shortest history; and random schedules from a seed within larger bounds.
 */
import { breach } from './invariants.ts';
import type { Mutant } from './rules.ts';
import { initial, keyOf, recovering, unbegun } from './state.ts';
import type { State } from './state.ts';
import { steps } from './steps.ts';
import type { Bounds, Kind } from './steps.ts';

type Subject = Pick<Mutant, 'rules'> & Partial<Pick<Mutant, 'blindTo'>>;

/** How a state was reached. */
interface Past {
  readonly line: string;
  readonly before: Past | undefined;
}

export interface Exploration {
  /** Different states seen; steps tried between them; steps of the longest shortest history. */
  readonly states: number;
  readonly steps: number;
  readonly depth: number;
  /** False when `limit` ended the search. */
  readonly isComplete: boolean;
  /** Longest log that got a certificate: shows that the search went somewhere. */
  readonly certified: number;
  /** The first breach, and the steps that led to it. */
  readonly breach: string;
  readonly history: readonly string[];
}

/** Visits every state within `bounds`, at most `limit` of them, until one breaks an invariant. `onState` hears of each but the initial one. */
export function explore(
  subject: Subject,
  bounds: Bounds,
  limit = Infinity,
  onState?: (state: State) => void,
): Exploration {
  const start = startOf(bounds);
  const seen = new Set<string>([keyOf(start)]);
  let level: [State, Past | undefined][] = [[start, undefined]];
  let tried = 0;
  let depth = 0;
  let certified = 0;
  let found = '';
  let foundBy: Past | undefined;
  while (level.length > 0 && found === '' && seen.size < limit) {
    const deeper: typeof level = [];
    for (const [state, past] of level) {
      steps(state, subject.rules, bounds, (_kind, line, next) => {
        tried++;
        const before = seen.size;
        if (seen.add(keyOf(next)).size === before || found !== '') return;
        onState?.(next);
        const reached = { line, before: past };
        certified = Math.max(certified, next.chain.length);
        found = breach(next, subject.blindTo);
        if (found !== '') foundBy = reached;
        deeper.push([next, reached]);
      });
      if (found !== '' || seen.size >= limit) break;
    }
    if (deeper.length > 0) depth++;
    level = deeper;
  }
  const isComplete = level.length === 0;
  const history: string[] = [];
  for (let at = foundBy; at !== undefined; at = at.before) history.unshift(at.line);
  return { states: seen.size, steps: tried, depth, isComplete, certified, breach: found, history };
}

function startOf({ begins, recovers }: Bounds): State {
  if (begins === true) return unbegun;
  return recovers === true ? recovering : initial;
}

export interface Walk {
  /** Schedules until the first breach, or all. */
  readonly schedules: number;
  /** Seed of the last schedule. */
  readonly seed: number;
  readonly certified: number;
  readonly breach: string;
  readonly history: readonly string[];
}

/** How often a kind of step is taken when it is possible. Calm schedules get far, others have duels. */
const calm: Readonly<Record<Kind, number>> = {
  begin: 4,
  crash: 1,
  restart: 4,
  'take over': 1,
  promise: 6,
  choose: 6,
  submit: 6,
  adopt: 8,
  accept: 5,
  install: 1,
  'give back': 8,
  'back up': 1,
  lose: 1,
};
const duels: typeof calm = { ...calm, 'take over': 2, adopt: 1, submit: 12, choose: 12 };

/** Runs `schedules` random schedules of `length` steps with the seeds `seed`, `seed` + 1, ... */
export function walk(
  subject: Subject,
  bounds: Bounds,
  run: { readonly seed: number; readonly schedules: number; readonly length: number },
): Walk {
  let certified = 0;
  for (let count = 0; count < run.schedules; count++) {
    const seed = run.seed + count;
    const { state, history } = schedule(subject, bounds, seed, run.length);
    certified = Math.max(certified, state.chain.length);
    const words = breach(state, subject.blindTo);
    if (words === '') continue;
    return { schedules: count + 1, seed, certified, breach: words, history };
  }
  const seed = run.seed + run.schedules - 1;
  return { schedules: run.schedules, seed, certified, breach: '', history: [] };
}

/** One random schedule, up to `length` steps or its first breach. */
function schedule(
  subject: Subject,
  bounds: Bounds,
  seed: number,
  length: number,
): { state: State; history: string[] } {
  const random = randomOf(seed);
  const weights = seed % 2 === 0 ? calm : duels;
  const history: string[] = [];
  let state = startOf(bounds);
  while (history.length < length && breach(state, subject.blindTo) === '') {
    const byKind = new Map<Kind, [string, State][]>();
    steps(state, subject.rules, bounds, (kind, line, next) => {
      const known = byKind.get(kind);
      if (known === undefined) byKind.set(kind, [[line, next]]);
      else known.push([line, next]);
    });
    const kinds = [...byKind.keys()];
    let at = random() * kinds.reduce((sum, kind) => sum + weights[kind], 0);
    const kind = kinds.find((each) => (at -= weights[each]) < 0);
    const choices = kind === undefined ? [] : (byKind.get(kind) ?? []);
    const taken = choices[Math.floor(random() * choices.length)];
    if (taken === undefined) break;
    history.push(taken[0]);
    state = taken[1];
  }
  return { state, history };
}

/** Numbers in [0, 1) from a seed (a 32-bit counter, mixed). */
function randomOf(seed: number): () => number {
  let counter = Math.imul(seed + 1, 0x9e_37_79_b1);
  return () => {
    counter = (counter + 0x6d_2b_79_f5) | 0;
    let mixed = Math.imul(counter ^ (counter >>> 15), counter | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_00_00_00_00;
  };
}
