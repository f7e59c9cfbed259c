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
  /** Who asks for promises, and promises something else meanwhile, asks anew. */
  readonly voidsQuestions: boolean;
  /** A hub takes no log that lacks what it accepted. */
  readonly keepsAccepted: boolean;
  /** A hub that lost its disk has no say before both others told it what they have. */
  readonly learns: boolean;
  /** Entry 0 counts when all three hubs have it. */
  readonly beginsWithAll: boolean;
  /** A beginning has a name, and who heard of it under another one refuses it. */
  readonly namesBeginnings: boolean;
  /** Nobody has a say before entry 0 counts at it. */
  readonly waitsForEntry0: boolean;
  /** Where two forgot, a hub that did has its say again with what all three have, and with no less. */
  readonly recoversWithAll: boolean;
  /** Who forgot asks once who else did, and only then for what counts: what others said before that may be old. */
  readonly asksTwice: boolean;
  /** The word of a hub that forgot counts for others that forgot, and for nobody who has a say. */
  readonly wordsAreForForgetful: boolean;
  /** A recovery takes a term above all that may have been asked for before. */
  readonly leapsTerms: boolean;
  /** A hub that forgot gives its word when members gave back what they have. */
  readonly holds: boolean;
  /** A recovery takes what is PREPARED anywhere, and not only what counted for sure. */
  readonly recoversPrepared: boolean;
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
  voidsQuestions: true,
  keepsAccepted: true,
  learns: true,
  beginsWithAll: true,
  namesBeginnings: true,
  waitsForEntry0: true,
  recoversWithAll: true,
  asksTwice: true,
  wordsAreForForgetful: true,
  leapsTerms: true,
  holds: true,
  recoversPrepared: true,
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
    rules.voidsQuestions &&
    rules.fencesTerms
  );
}

export interface Mutant {
  readonly name: string;
  readonly rules: Rules;
  /** Breaks these invariants at once, and has to show a loss or a fork as well. */
  readonly blindTo: readonly EarlySign[];
  /** How `npm test` finds it, where the other way takes long. */
  readonly by?: 'search' | 'schedules' | 'main.ts';
  /** Disks that have to be lost before it shows. */
  readonly losses?: number;
  /** It is a rule of how groups begin. */
  readonly begins?: boolean;
  /** It is a rule of how hubs recover where two forgot. */
  readonly recovers?: boolean;
}

/** A rule of recovery that is changed. */
function unrecovered(name: string, rule: Partial<Rules>, by: NonNullable<Mutant['by']>): Mutant {
  const rules = { ...sound, ...rule };
  return { name, rules, blindTo: ['unsaid'], losses: 2, recovers: true, by };
}

export const mutants: readonly Mutant[] = [
  { name: 'chooses by length alone', rules: { ...sound, choice: 'length' }, blindTo: ['unsaid'] },
  {
    name: 'chooses by the term of the last entry',
    rules: { ...sound, choice: 'term of the last entry, then length' },
    blindTo: ['unsaid'],
    by: 'schedules',
  },
  { name: 'promise not synced', rules: { ...sound, syncsPromises: false }, blindTo: ['unsaid'] },
  {
    name: 'adopts a shorter log of the same term',
    rules: { ...sound, refusesShorter: false },
    blindTo: ['unsaid'],
  },
  {
    name: 'accepts before replicating',
    rules: { ...sound, replicatesFirst: false },
    blindTo: ['unsaid', 'uncertified'],
  },
  {
    name: 'a minority is enough',
    rules: { ...sound, majority: 1 },
    blindTo: ['unsaid', 'uncertified'],
  },
  {
    name: 'restarted leader goes on unchecked',
    rules: { ...sound, checksOnRestart: false },
    blindTo: ['unsaid', 'deposed'],
  },
  { name: 'takeover without a majority', rules: { ...sound, promises: 1 }, blindTo: ['unsaid'] },
  {
    name: 'PREPARED entries dropped',
    rules: { ...sound, takesPrepared: false },
    blindTo: ['unsaid'],
  },
  {
    name: 'old leader does not step down',
    rules: { ...sound, stepsDown: false },
    blindTo: ['unsaid', 'deposed'],
  },
  {
    name: 'replicates of lower terms adopted',
    rules: { ...sound, fencesTerms: false },
    blindTo: ['unsaid'],
  },
  {
    name: 'late logs may lack accepted entries',
    rules: { ...sound, keepsAccepted: false },
    blindTo: ['unsaid'],
  },
  {
    name: 'a question outlives a promise to somebody else',
    rules: { ...sound, voidsQuestions: false },
    blindTo: ['unsaid', 'deposed'],
    losses: 1,
    by: 'search',
  },
  {
    name: 'a lost disk votes as if nothing was',
    rules: { ...sound, learns: false },
    blindTo: ['unsaid'],
    losses: 1,
  },
  {
    name: 'two hubs begin a group',
    rules: { ...sound, beginsWithAll: false },
    blindTo: ['unsaid'],
    by: 'search',
    losses: 1,
    begins: true,
  },
  {
    name: 'a beginning has no name',
    rules: { ...sound, namesBeginnings: false },
    blindTo: ['unsaid'],
    by: 'search',
    losses: 1,
    begins: true,
  },
  {
    name: 'a promise before entry 0 counts',
    rules: { ...sound, waitsForEntry0: false },
    blindTo: ['unsaid'],
    by: 'search',
    losses: 1,
    begins: true,
  },
  unrecovered('two that forgot recover without the third', { recoversWithAll: false }, 'schedules'),
  unrecovered('a recovery that asks once', { asksTwice: false }, 'main.ts'),
  unrecovered(
    'the word of one that forgot counts for all',
    { wordsAreForForgetful: false },
    'schedules',
  ),
  unrecovered('a recovery in the next term', { leapsTerms: false }, 'main.ts'),
  unrecovered('a recovery that waits for no member', { holds: false }, 'schedules'),
  unrecovered('a recovery without what is PREPARED', { recoversPrepared: false }, 'schedules'),
];
