/** What a scenario is, what it is given, and what it hands back. */
import type { Dice } from '../cluster/dice.ts';
import type { Judgement } from './judge.ts';

/** What the machine must have; a scenario, or a part of one, that lacks one is skipped, never passed. */
export type Capability =
  | 'root'
  | 'netns'
  | 'iptables'
  | 'mount'
  | 'loop'
  | 'strace'
  | 'faketime'
  | 'prlimit'
  | 'memory-cgroup';

/** Sizes of a run; each has a short default and a long form by option. */
export interface Sizes {
  /** Kills of each party: sender node, receiver node, clients. */
  readonly kills: number;
  readonly cuts: number;
  readonly partitionSeconds: number;
  readonly pauseSeconds: number;
  /** Of the group that everybody changes, and for how long they do. */
  readonly people: number;
  readonly stormSeconds: number;
}

export interface Stage {
  readonly sizes: Sizes;
  readonly dice: Dice;
  /** Own and empty; kept when the scenario fails. */
  readonly directory: string;
  /** Runs when the scenario ended, however it ended, newest first. */
  readonly cleanUp: (work: () => Promise<void> | void) => void;
  readonly say: (line: string) => void;
}

/** One judged run inside a scenario. */
export interface Part {
  readonly name: string;
  readonly judgement: Judgement;
  /** Findings that no checker knows of: a missing error, a node that died. */
  readonly findings: readonly string[];
  /** What else it measured, to be printed. */
  readonly notes: readonly string[];
}

/** One that was not run, for want of what the machine lacks: it shows nothing. */
export interface SkippedPart {
  readonly name: string;
  readonly skipped: readonly Capability[];
}

export interface Scenario {
  readonly name: string;
  /** What it shows, in one line. */
  readonly shows: string;
  readonly needs: readonly Capability[];
  run(stage: Stage): Promise<readonly (Part | SkippedPart)[]>;
}

export function isPassed({ judgement, findings }: Part): boolean {
  return judgement.violations.length === 0 && findings.length === 0;
}
