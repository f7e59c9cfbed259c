/**
 * What a seed stands for: how many nodes, who has a way to whom, what carries gossip, the weather, what
 * fails when, and who lies and how.
 */
import { Dice } from '../cluster/dice.ts';
import type { Weather } from './network.ts';

/** How a log lies. */
export const lies = [
  /** Two histories, each shown to some nodes. */
  'two-faced',
  /** The same, and no heads between checkpoints are given out. */
  'withholds',
  /** One history to everybody, and from some moment on another one. */
  'turns',
  /** One history, but to one node an entry that does not fit its proof. */
  'bad-entry',
] as const;
export type Lie = (typeof lies)[number];

/** What reaches peers: a node without libp2p has links alone. */
export const carriers = ['both', 'swarm', 'links'] as const;
export type Carrier = (typeof carriers)[number];

export interface Plan {
  readonly seed: number;
  readonly honest: readonly string[];
  readonly liar:
    | { readonly domain: string; readonly lie: Lie; readonly isQuiet: boolean }
    | undefined;
  /** A node with an honest log whose gossip is junk. */
  readonly junk: string | undefined;
  readonly carrier: Carrier;
  readonly weather: Weather;
  /** Pairs of honest nodes that have no way to each other, by carrier. */
  readonly isPair: { readonly link: PairRule; readonly swarm: PairRule };
  /** How long things happen and fail before everything heals (ms). */
  readonly busyMs: number;
  readonly appends: number;
  readonly kills: number;
  readonly cuts: number;
  readonly partitions: number;
  readonly dice: Dice;
}
export type PairRule = (a: string, b: string) => boolean;

/** Honest nodes of a run: what three find, five find at thrice the cost. */
const sizes = [2, 2, 3, 3, 3, 3, 3, 4, 4, 5] as const;

/** What the seed stands for; `isHonest` leaves its liar out, and nothing else is another thing for it. */
export function planOf(seed: number, { isHonest = false } = {}): Plan {
  const dice = new Dice(seed);
  const carrier = carriers[dice.int(carriers.length)] ?? 'both';
  // Above twelve nobody keeps connections with everybody; logs of so many cost a run a second.
  const isCrowd = carrier === 'swarm' && dice.chance(0.005);
  const count = isCrowd ? 13 + dice.int(4) : (sizes[dice.int(sizes.length)] ?? 3);
  // Names of one length: what was said of one log can be put into the mouth of another.
  const honest = Array.from({ length: count }, (_, i) => `n${String.fromCharCode(97 + i)}.example`);
  const isLying = dice.chance(0.5);
  const lie = lies[dice.int(lies.length)] ?? 'two-faced';
  const drawn = isLying ? { domain: 'zz.example', lie, isQuiet: dice.chance(0.3) } : undefined;
  const liar = isHonest ? undefined : drawn;
  const junk = dice.chance(0.3) ? 'jj.example' : undefined;
  const isRough = dice.chance(0.5);
  const weather: Weather = {
    delayMaxMs: [5, 100, 1_500][dice.int(3)] ?? 100,
    loss: isRough ? dice.int(20) / 100 : 0,
    noticeMaxMs: 10_000,
    redialMaxMs: dice.chance(0.5) ? 2_000 : 30_000,
  };
  return {
    seed,
    honest,
    liar,
    junk,
    carrier,
    weather,
    isPair: { link: graph(honest, dice), swarm: graph(honest, dice) },
    busyMs: 30_000 + dice.int(3 * 60_000),
    appends: 2 + dice.int(2 * count),
    kills: isRough ? dice.int(4) : 0,
    cuts: dice.int(6),
    partitions: dice.int(3),
    dice,
  };
}

/** A random connected graph: a tree, and some of the other pairs. */
function graph(names: readonly string[], dice: Dice): PairRule {
  const pairs = new Set<string>();
  const share = dice.int(11) / 10;
  for (const [i, name] of names.entries()) {
    if (i === 0) continue;
    pairs.add(keyOf(name, names[dice.int(i)] ?? ''));
    for (const other of names.slice(0, i)) if (dice.chance(share)) pairs.add(keyOf(name, other));
  }
  return (a, b) => pairs.has(keyOf(a, b));
}

const keyOf = (a: string, b: string): string => (a < b ? `${a} ${b}` : `${b} ${a}`);
