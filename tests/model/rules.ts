/**
 * The decisions of the replication protocol that keep a group from forking, each as a switch, and the
 * deliberate bugs that the model has to find. `sound` is the protocol as docs/protocol/group-log.md has it.
 */

import type { EarlySign } from './invariants.ts';

/** How the hub of a takeover compares the logs of its quorum. */
type Choice = 'adopted, then length' | 'length' | 'term of the last entry, then length';

export interface Rules {
  readonly choice: Choice;
  /** A promise is on disk before it is answered. */
  readonly syncsPromises: boolean;
  /** A replicate of the adopted term is refused when its log is shorter. */
  readonly refusesShorter: boolean;
  /** After a takeover nothing is accepted before a majority has the log under the new term. */
  readonly replicatesFirst: boolean;
  /** Hubs whose promises a takeover needs, its own among them. */
  readonly promises: number;
  /** Hubs that must have a log on disk before the leader accepts it. */
  readonly majority: number;
  /** A restarted leader goes on only if promised = adopted = its term. */
  readonly checksOnRestart: boolean;
  /** Entries that were not yet accepted are taken over too. */
  readonly takesPrepared: boolean;
  /** A leader that promises or adopts a higher term leads no longer. */
  readonly stepsDown: boolean;
  /** A hub that promised a term refuses replicates of lower ones. */
  readonly fencesTerms: boolean;
}

export const sound: Rules = {
  choice: 'adopted, then length',
  syncsPromises: true,
  refusesShorter: true,
  replicatesFirst: true,
  promises: 2,
  majority: 2,
  checksOnRestart: true,
  takesPrepared: true,
  stepsDown: true,
  fencesTerms: true,
};

/**
 * What was once refused or outlived stays so: promises never fall, a log of one term only grows, no hub
 * leads a term again that it left. Then messages without any future effect may be forgotten.
 */
export function isMonotone(rules: Rules): boolean {
  return (
    rules.syncsPromises &&
    rules.refusesShorter &&
    rules.checksOnRestart &&
    rules.stepsDown &&
    rules.fencesTerms
  );
}

export interface Mutant {
  readonly name: string;
  readonly rules: Rules;
  /** Breaks these invariants at once, and has to show a loss or a fork as well. */
  readonly blindTo?: readonly EarlySign[];
}

export const mutants: readonly Mutant[] = [
  { name: 'chooses by length alone', rules: { ...sound, choice: 'length' } },
  {
    name: 'chooses by the term of the last entry',
    rules: { ...sound, choice: 'term of the last entry, then length' },
  },
  { name: 'promise not synced', rules: { ...sound, syncsPromises: false } },
  { name: 'adopts a shorter log of the same term', rules: { ...sound, refusesShorter: false } },
  {
    name: 'accepts before replicating',
    rules: { ...sound, replicatesFirst: false },
    blindTo: ['uncertified'],
  },
  { name: 'a minority is enough', rules: { ...sound, majority: 1 }, blindTo: ['uncertified'] },
  {
    name: 'restarted leader goes on unchecked',
    rules: { ...sound, checksOnRestart: false },
    blindTo: ['deposed'],
  },
  { name: 'takeover without a majority', rules: { ...sound, promises: 1 } },
  { name: 'PREPARED entries dropped', rules: { ...sound, takesPrepared: false } },
  {
    name: 'old leader does not step down',
    rules: { ...sound, stepsDown: false },
    blindTo: ['deposed'],
  },
  { name: 'replicates of lower terms adopted', rules: { ...sound, fencesTerms: false } },
];
