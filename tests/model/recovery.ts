/**
 * Where two or three hubs forgot, in the model (docs/reference/hub-model.md, "Where two forgot"): what members hold and
 * give back, backups, and what no disk and no member has any more.
 */
import type { Rules } from './rules.ts';
import { withHub, type Hub, type State } from './state.ts';
import type { Visit } from './steps.ts';

/**
 * The assumption: when the time of a hub that forgot is over, members have given back what was ever accepted. What was
 * certified and never accepted anywhere, no member has.
 */
export function isWhole({ told: known }: State, { accepted }: Hub, rules: Rules): boolean {
  return accepted >= known.length || !rules.holds;
}

/** Its time is over: it takes no more from members, and says what it has to others that forgot. */
export function giveWord(state: State, rules: Rules, index: number, hub: Hub, visit: Visit): void {
  if (!hub.isLearner || hub.said || !isWhole(state, hub, rules)) return;
  visit('give back', `hub ${index} says that it forgot`, withHub(state, index, { said: true }));
}

/** Bits of the other hubs that gave their word. */
export function heardWords({ hubs }: State, asker: number): number {
  return hubs.reduce((bits, { said }, at) => (said && at !== asker ? bits | (1 << at) : bits), 0);
}

/** Whether who asked for a term had heard before that this hub forgot. */
export function isHeard({ recoveries }: State, rules: Rules, term: number, index: number): boolean {
  if (!rules.wordsAreForForgetful || !rules.asksTwice) return true;
  return ((recoveries >> (3 * term)) & (1 << index)) !== 0;
}

/** A hub accepted this log, and members hear of it. */
export function told(state: State, log: string): State {
  return log.length > state.told.length ? { ...state, told: log } : state;
}

/**
 * After a disk was lost: what neither a member nor a disk has may be superseded, and its certificate proves that. A log of
 * an older term than the entry counted in does not have it, though a lonely leader may have written the same.
 */
export function restored(state: State): State {
  const { chain, chainTerms = [] } = state;
  let length = chain.length;
  const isHeld = (): boolean => {
    const certified = chain.slice(0, length);
    const isThere = ({ log, adopted, accepted }: Hub): boolean =>
      log.startsWith(certified) && (accepted >= length || adopted >= (chainTerms[length - 1] ?? 0));
    return state.told.startsWith(certified) || state.hubs.some(isThere);
  };
  while (length > 0 && !isHeld()) length--;
  if (length === chain.length) return state;
  return { ...state, chain: chain.slice(0, length), chainTerms: chainTerms.slice(0, length) };
}

/** A backup of a disk, which replaces the one before. */
export function backUp(state: State, index: number, hub: Hub, visit: Visit): void {
  const { promised, synced, adopted, log, accepted, signed, entryTerm, mid, isLearner } = hub;
  if (isLearner) return;
  const saved = { promised, synced, adopted, log, accepted, signed, entryTerm, mid };
  if (JSON.stringify(saved) === JSON.stringify(hub.saved)) return;
  visit('back up', `hub ${index} is backed up`, withHub(state, index, { saved }));
}
