/**
 * What the model of a hub of three knows in one moment: three disks and memories, all messages that were
 * ever sent, and what an observer of all signatures knows. Values are immutable; `keyOf` names a state.
 */
export type Phase = 'idle' | 'beginning' | 'collecting' | 'replicating' | 'leading';

export interface Hub {
  /** On disk. `log` has one letter for each commit; the first `accepted` of them have had their effects. */
  readonly promised: number;
  readonly adopted: number;
  readonly log: string;
  readonly accepted: number;
  /** So many of the first entries it signed as a follower: production never takes them back. */
  readonly signed: number;
  /** Its disk was lost: it may not remember promises and signatures, and has no say. */
  readonly isLearner: boolean;
  /** It forgot, and gave another one that forgot its word (recovery.ts). */
  readonly said: boolean;
  /** What a backup of the disk holds; undefined: there is none. */
  readonly saved: Saved | undefined;
  /** The promise that survives a crash: `promised`, unless a mutant does not sync. */
  readonly synced: number;
  /** Term in which the last entry was first written: 0 unless a mutant looks at it. */
  readonly entryTerm: number;
  /** Where the beginning of the group is searched too (beginning.ts): under which name it began here; 0: the hub knows of none. */
  readonly mid: number;
  /** In memory: what the hub does as the owner of `term`. */
  readonly phase: Phase;
  readonly term: number;
}

/** The part of a disk that a backup brings back. */
export type Saved = Pick<
  Hub,
  'promised' | 'synced' | 'adopted' | 'log' | 'accepted' | 'signed' | 'entryTerm' | 'mid'
>;

/** Sent to both other hubs; one that never gets it is a loss. */
export interface Replicate {
  readonly key: string;
  readonly term: number;
  readonly log: string;
  readonly accepted: number;
  readonly entryTerm: number;
}
/** Answer to a promise request: the disk of `from` as it was. */
export interface Promised {
  readonly key: string;
  readonly term: number;
  readonly from: number;
  /** It had no say when it answered. */
  readonly forgot: boolean;
  readonly adopted: number;
  readonly log: string;
  readonly accepted: number;
  readonly entryTerm: number;
}
/** Answer to a replicate, and the signature of `from` under every entry of `log` for `term`. */
export interface Vote {
  readonly key: string;
  readonly term: number;
  readonly from: number;
  readonly log: string;
  /** Of entry 0: name of the beginning that it answers; else 0. */
  readonly mid: number;
}

export interface State {
  readonly hubs: readonly [Hub, Hub, Hub];
  /** For each commit that a hub ever wrote: the letter of its parent, `.` for entry 0. */
  readonly parents: string;
  /** Bit t: promises were requested for term t. */
  readonly asked: number;
  /** Three bits for each term: hubs that forgot and had said so before a third one asked for it, which forgot as well. */
  readonly recoveries: number;
  readonly replicates: readonly Replicate[];
  readonly promises: readonly Promised[];
  readonly votes: readonly Vote[];
  /** Observer: the longest certified log, and the term that certified its last entry first. */
  readonly chain: string;
  readonly chainTerm: number;
  /** Where two disks may be lost at once: the term that certified each entry of it first. */
  readonly chainTerms: readonly number[] | undefined;
  /** Disks that were lost. */
  readonly losses: number;
  /** Where two disks may be lost at once: the longest log that a hub ever accepted, for members hold it. */
  readonly told: string;
  /** So often a creator had the first hub begin the group. */
  readonly begun: number;
  /** Observer: a hub took back what it had signed as a follower. */
  readonly unsaid: string;
  /** Observer: two children of one parent got certificates, or a hub lost what it had accepted. */
  readonly fault: string;
}

export const ownerOf = (term: number): number => term % 3;
/** The letter of commit `index`. */
export const letter = (index: number): string => String.fromCodePoint(97 + index);

export const freshHub: Hub = {
  promised: 0,
  adopted: 0,
  log: '',
  accepted: 0,
  signed: 0,
  isLearner: false,
  said: false,
  saved: undefined,
  synced: 0,
  entryTerm: 0,
  mid: 0,
  phase: 'idle',
  term: 0,
};

/** A group that has only entry 0, which all hubs signed in term 0; hub 0 leads. */
export const initial: State = {
  hubs: [{ ...freshHub, phase: 'leading' }, freshHub, freshHub],
  parents: '',
  asked: 0,
  recoveries: 0,
  replicates: [],
  promises: [],
  votes: [0, 1, 2].map((from) => ({ key: `0${from}`, term: 0, from, log: '', mid: 0 })),
  chain: '',
  chainTerm: 0,
  chainTerms: undefined,
  losses: 0,
  told: '',
  begun: 0,
  unsaid: '',
  fault: '',
};

/** Three hubs that never heard of the group. */
export const unbegun: State = { ...initial, hubs: [freshHub, freshHub, freshHub], votes: [] };

/** `items` with `item`, ordered by key, or `items` itself when it is there already. */
export function including<T extends { readonly key: string }>(
  items: readonly T[],
  item: T,
): readonly T[] {
  let at = 0;
  for (; at < items.length; at++) {
    const key = items[at]?.key ?? '';
    if (key === item.key) return items;
    if (key > item.key) break;
  }
  return [...items.slice(0, at), item, ...items.slice(at)];
}

export function withHub(state: State, index: number, change: Partial<Hub>): State {
  const [a, b, c] = state.hubs;
  const hubs: State['hubs'] =
    index === 0
      ? [{ ...a, ...change }, b, c]
      : index === 1
        ? [a, { ...b, ...change }, c]
        : [a, b, { ...c, ...change }];
  return { ...state, hubs };
}

/** The group has begun, and disks may be lost two at once. */
export const recovering: State = { ...initial, chainTerms: [] };

/** The same text for the same state, another for every other one. */
export function keyOf(state: State): string {
  const { parents, asked, recoveries, chain, chainTerm, losses, told, begun, unsaid, fault } =
    state;
  const terms = state.chainTerms === undefined ? '' : `c${state.chainTerms.join('.')}`;
  let key = `${terms}${parents};${asked},${recoveries};${told};${chain}${chainTerm}${losses}b${begun}${unsaid}${fault}`;
  for (const h of state.hubs) {
    const phase = h.phase === 'idle' ? '-' : `${h.phase[0]}${h.term}`;
    const learner = `${h.isLearner ? 'l' : ''}${h.said ? 'w' : ''}${h.saved === undefined ? '' : JSON.stringify(h.saved)}`;
    key += `|${learner}${h.signed},${h.promised}${h.synced}${h.adopted}${h.log}${h.accepted}${h.entryTerm}${phase}m${h.mid}`;
  }
  for (const message of state.replicates) key += `R${message.key}`;
  for (const message of state.promises) key += `P${message.key}`;
  for (const message of state.votes) key += `V${message.key}`;
  return key;
}
