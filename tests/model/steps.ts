/**
 * All that can happen next: a hub of three takes a commit, adopts, promises, takes over, accepts, crashes.
 * A message stays in the network for good, so it may arrive late, twice, in any order or never; an answer
 * that exists may arrive at any moment. So each delivery is one step, and a loss is none.
 */
import { begin, hasBegun, hasSay, hears, mayAdopt, takes } from './beginning.ts';
import { backUp, giveWord, heardWords, isHeard, isWhole, restored, told } from './recovery.ts';
import type { Rules } from './rules.ts';
import { isMonotone } from './rules.ts';
import { freshHub, including, letter, ownerOf, withHub } from './state.ts';
import type { Hub, Promised, State } from './state.ts';

export interface Bounds {
  /** Terms 0 to `terms` - 1 exist. */
  readonly terms: number;
  /** Different commits that members submit, each with one parent. */
  readonly commits: number;
  /** Disks that get lost; 0 unless told. */
  readonly losses?: number;
  /** Hubs that forgot recover together, and members give back what was accepted. */
  readonly recovers?: boolean;
  /** Lost disks are replaced by backups, which are made at any time. */
  readonly backups?: boolean;
  /** From before entry 0, with a creator that lies; else the group has begun. */
  readonly begins?: boolean;
  /** Keeps messages that can have no effect any more: the same protocol, many more states. */
  readonly keepsAll?: boolean;
}

export type Kind =
  | 'begin'
  | 'crash'
  | 'restart'
  | 'take over'
  | 'promise'
  | 'choose'
  | 'submit'
  | 'adopt'
  | 'accept'
  | 'install'
  | 'give back'
  | 'back up'
  | 'lose';

/** Gets each possible step: its kind, a line for a person, the state after it. */
export type Visit = (kind: Kind, line: string, next: State) => void;

/** Calls `visit` for every step that is possible in `state`. */
export function steps(state: State, rules: Rules, bounds: Bounds, visit: Visit): void {
  const emit: Visit =
    isMonotone(rules) &&
    bounds.keepsAll !== true &&
    bounds.begins !== true &&
    bounds.recovers !== true &&
    (bounds.losses ?? 0) === 0
      ? (kind, line, next) => visit(kind, line, forget(next))
      : visit;
  if (bounds.begins === true) begin(state, rules, bounds, emit);
  for (const [index, hub] of state.hubs.entries()) {
    crash(state, index, hub, emit);
    restart(state, rules, bounds, index, hub, emit);
    takeOver(state, rules, bounds, index, hub, emit);
    promise(state, bounds, rules, index, hub, emit);
    if (hub.phase === 'collecting') choose(state, rules, bounds, index, hub, emit);
    if (hub.phase === 'leading') submit(state, rules, bounds, index, hub, emit);
    if (hub.phase !== 'idle') accept(state, rules, bounds, index, hub, emit);
    if (bounds.begins === true) hear(state, rules, index, hub, emit);
    adopt(state, rules, bounds, index, hub, emit);
    install(state, bounds, index, hub, emit);
    giveBack(state, index, hub, emit);
    if (bounds.recovers === true) giveWord(state, rules, index, hub, emit);
    if (bounds.backups === true) backUp(state, index, hub, emit);
    lose(state, bounds, rules, index, emit);
  }
}

/** Memory is lost. A leader that is told of a higher term steps down by the very same change. */
function crash(state: State, index: number, hub: Hub, visit: Visit): void {
  if (hub.phase === 'idle' && hub.promised === hub.synced) return;
  const change = { phase: 'idle', term: 0, promised: hub.synced } as const;
  visit('crash', `hub ${index} crashes`, withHub(unasked(state, hub), index, change));
}

function restart(
  state: State,
  rules: Rules,
  bounds: Bounds,
  index: number,
  hub: Hub,
  visit: Visit,
): void {
  if (hub.phase !== 'idle' || !hasSay(hub, rules, bounds)) return;
  let term = hub.promised;
  if (rules.checksOnRestart) {
    if (hub.adopted !== term || ownerOf(term) !== index) return;
  } else {
    while (term >= 0 && ownerOf(term) !== index) term--;
    if (term < 0) return;
  }
  const next = withHub(state, index, { phase: 'replicating', term });
  visit('restart', `hub ${index} goes on in term ${term}`, send(vote(next, index, term), index));
}

/** Whoever asks no more, or anew, has no use for the answers: they belong to that question. */
function unasked(state: State, { phase, term }: Hub): State {
  if (phase !== 'collecting') return state;
  return { ...state, promises: state.promises.filter((answer) => answer.term !== term) };
}

/** It asks first, and promises itself once the others have: see `choose`. */
function takeOver(
  state: State,
  rules: Rules,
  bounds: Bounds,
  index: number,
  hub: Hub,
  visit: Visit,
): void {
  if (bounds.begins === true && (hub.mid === 0 || hub.phase === 'beginning')) return;
  for (let term = hub.promised + 1; term < bounds.terms; term++) {
    const isAsked = (state.asked & (1 << term)) !== 0;
    if (ownerOf(term) !== index) continue;
    const next = withHub(unasked(state, hub), index, { phase: 'collecting', term });
    const line = `hub ${index} asks for term ${term}`;
    visit('take over', line, { ...next, asked: state.asked | (1 << term) });
    // A higher one is tried when others refuse this one: not before anybody was asked.
    if (!isAsked) break;
  }
  if (bounds.recovers === true && hub.isLearner) recover(state, rules, bounds, index, hub, visit);
}

/** It forgot, and asks for the word of others that did as well, in a term above all that it may have forgotten. */
function recover(
  state: State,
  rules: Rules,
  bounds: Bounds,
  index: number,
  hub: Hub,
  visit: Visit,
): void {
  for (let term = hub.promised + 1; term < bounds.terms; term++) {
    if (ownerOf(term) !== index || (rules.leapsTerms && state.asked >> term !== 0)) continue;
    const next = withHub(unasked(state, hub), index, { phase: 'collecting', term });
    const asked = state.asked | (1 << term);
    const words = heardWords(state, index);
    if (words === 0 && rules.asksTwice) return;
    const recoveries = state.recoveries | (words << (3 * term));
    const line = `hub ${index} asks for term ${term}, to recover`;
    visit('take over', line, { ...next, asked, recoveries });
    return;
  }
}

function promise(
  state: State,
  bounds: Bounds,
  rules: Rules,
  index: number,
  hub: Hub,
  visit: Visit,
): void {
  const forgot = !hasSay(hub, rules, bounds);
  if (forgot && !(bounds.recovers === true && hub.said)) return;
  for (let term = hub.promised + 1; term < bounds.terms; term++) {
    if ((state.asked & (1 << term)) === 0 || ownerOf(term) === index) continue;
    if (forgot && !isHeard(state, rules, term, index)) continue;
    const synced = rules.syncsPromises ? term : hub.synced;
    // Its own question is void too: what it says now must not be overtaken by a promise to itself.
    const end = gaveUp(hub, rules);
    const before = end.phase === 'idle' ? unasked(state, hub) : state;
    const next = withHub(before, index, { promised: term, synced, ...end });
    const { adopted, log, accepted, entryTerm } = hub;
    const mark = forgot ? 'f' : '';
    const key = `${term}${index}${adopted}${log}${accepted}${entryTerm}${mark}`;
    const answer: Promised = { key, term, from: index, forgot, adopted, log, accepted, entryTerm };
    const owner = state.hubs[ownerOf(term)];
    const isAwaited = owner?.phase === 'collecting' && owner.term === term;
    const promises = isAwaited ? including(next.promises, answer) : next.promises;
    visit('promise', `hub ${index} promises term ${term}`, { ...next, promises });
  }
}

const idle = { phase: 'idle', term: 0 } as const;

const steppedDown = (rules: Rules): Partial<Hub> => (rules.stepsDown ? idle : {});

/** A question ends when the hub promises something else, an old leadership if it steps down. */
const gaveUp = ({ phase }: Hub, rules: Rules): Partial<Hub> =>
  phase !== 'collecting' ? steppedDown(rules) : rules.voidsQuestions ? idle : {};

type Candidate = Pick<Hub, 'adopted' | 'log' | 'accepted' | 'entryTerm'>;

/** Positive if `a` is to be taken rather than `b`. */
function compare(rules: Rules, a: Candidate, b: Candidate): number {
  const byLength = a.log.length - b.log.length;
  switch (rules.choice) {
    case 'adopted, then length':
      return a.adopted - b.adopted || byLength;
    case 'length':
      return byLength;
    case 'term of the last entry, then length':
      return a.entryTerm - b.entryTerm || byLength;
  }
}

/** The owner of a term has the promises of a majority, or of all, and takes a log; ties go either way. */
function choose(
  state: State,
  rules: Rules,
  bounds: Bounds,
  index: number,
  hub: Hub,
  visit: Visit,
): void {
  if (hub.promised >= hub.term) return;
  const counts = hasSay(hub, rules, bounds);
  const answers = state.promises.filter(
    ({ term, forgot }) => term === hub.term && !(forgot && counts && rules.wordsAreForForgetful),
  );
  const quorums: Candidate[][] = counts ? answers.map((answer) => [hub, answer]) : [];
  for (const [at, a] of answers.entries()) {
    for (const b of answers.slice(at + 1)) {
      if (a.from === b.from) continue;
      const isRecovery = a.forgot || b.forgot;
      if (!counts && isRecovery && !isWhole(state, hub, rules)) continue;
      const all = counts || isRecovery ? [hub, a, b] : [a, b];
      quorums.push(all);
    }
  }
  if (!counts && !rules.recoversWithAll) {
    for (const a of answers) if (a.forgot && isWhole(state, hub, rules)) quorums.push([hub, a]);
  }
  if (rules.promises === 1) quorums.push([hub]);
  for (const quorum of quorums) {
    for (const best of quorum) {
      if (quorum.some((other) => compare(rules, other, best) > 0)) continue;
      const drops = !counts && !rules.recoversPrepared && quorum.length === 3;
      const taken = rules.takesPrepared && !drops ? best.log : best.log.slice(0, best.accepted);
      const base = rules.keepsAccepted ? longestAccepted([hub, ...quorum]) : '';
      const log = taken.startsWith(base) ? taken : base;
      const known = Math.max(hub.accepted, best.accepted, base.length);
      const accepted = rules.replicatesFirst ? known : log.length;
      const { entryTerm } = best;
      const phase = rules.replicatesFirst ? 'replicating' : 'leading';
      const isLearner = false;
      const synced = rules.syncsPromises ? hub.term : hub.synced;
      const promised = { promised: hub.term, synced, adopted: hub.term, said: false };
      const change = { ...promised, log, accepted, entryTerm, phase, isLearner } as const;
      const next = withLog(unasked(state, hub), index, change);
      const line = `hub ${index} takes "${log}" into term ${hub.term}`;
      visit('choose', line, send(vote(next, index, hub.term), index));
    }
  }
}

/** What somebody accepted is in the log that is taken, though it came without its term. */
function longestAccepted(candidates: readonly Candidate[]): string {
  const accepted = candidates.map(({ log, accepted: length }) => log.slice(0, length));
  return accepted.reduce((one, other) => (other.length > one.length ? other : one));
}

/** A commit with the leader's head as its parent becomes PREPARED; all others are conflicts. */
function submit(
  state: State,
  rules: Rules,
  bounds: Bounds,
  index: number,
  hub: Hub,
  visit: Visit,
): void {
  if (hub.accepted < hub.log.length) return;
  const head = hub.log.at(-1) ?? '.';
  for (let commit = 0; commit < bounds.commits; commit++) {
    const isNew = commit === state.parents.length;
    if (!isNew && state.parents[commit] !== head) continue;
    const name = letter(commit);
    if (hub.log.includes(name)) continue;
    const entryTerm = rules.choice.startsWith('term') ? hub.term : 0;
    const next = withHub(state, index, { log: hub.log + name, entryTerm });
    const parents = isNew ? state.parents + head : state.parents;
    visit(
      'submit',
      `hub ${index} writes ${name} behind ${head} in term ${hub.term}`,
      send(vote({ ...next, parents }, index, hub.term), index),
    );
    if (isNew) return;
  }
}

/** Enough signatures for the whole log in this term: it is accepted, with everything that follows. */
function accept(
  state: State,
  rules: Rules,
  bounds: Bounds,
  index: number,
  hub: Hub,
  visit: Visit,
): void {
  if (hub.phase === 'collecting') return;
  if (hub.phase === 'leading' && hub.accepted === hub.log.length) return;
  if (hub.phase === 'beginning') {
    if (!hasBegun(state, rules, hub)) return;
    const begun = withHub(state, index, { phase: 'leading', accepted: hub.log.length });
    visit('accept', `hub ${index} accepts entry 0`, send(vote(begun, index, 0), index));
    return;
  }
  const from = new Set<number>();
  for (const signed of state.votes) {
    if (signed.term === hub.term && signed.log.startsWith(hub.log)) from.add(signed.from);
  }
  if (from.size < rules.majority) return;
  const leading = withHub(state, index, { phase: 'leading', accepted: hub.log.length });
  const next = bounds.recovers === true ? told(leading, hub.log) : leading;
  visit('accept', `hub ${index} accepts "${hub.log}" in term ${hub.term}`, send(next, index));
}

/** What the first hub asks when it begins the group. */
function hear(state: State, rules: Rules, index: number, hub: Hub, visit: Visit): void {
  const change = index === 0 ? undefined : hears(state.hubs, hub, rules);
  if (change === undefined) return;
  const { mid } = state.hubs[0];
  const next = vote(withHub(state, index, change), index, 0, mid);
  visit('adopt', `hub ${index} hears of beginning ${mid}`, next);
}

function adopt(
  state: State,
  rules: Rules,
  bounds: Bounds,
  index: number,
  hub: Hub,
  visit: Visit,
): void {
  if (!mayAdopt(hub, rules, bounds)) return;
  for (const message of state.replicates) {
    const { term, log, entryTerm } = message;
    if (ownerOf(term) === index) continue;
    if (rules.fencesTerms ? term < hub.promised : term < hub.adopted) continue;
    const isShorter = term === hub.adopted && log.length < hub.log.length;
    if (term < hub.adopted || (isShorter && rules.refusesShorter)) continue;
    // Accepted ones may have come without the term's log: an older log of that term is no news then.
    if (rules.keepsAccepted && !log.startsWith(hub.log.slice(0, hub.accepted))) continue;
    const accepted = Math.max(hub.accepted, message.accepted);
    const promised = Math.max(hub.promised, term);
    const synced = Math.max(hub.synced, term);
    const isOpen = hub.phase === 'collecting' && (term === hub.promised || !rules.voidsQuestions);
    const stays = term <= hub.term && (hub.phase === 'collecting' ? isOpen : hub.phase !== 'idle');
    const signed = log.length;
    const change = { promised, synced, adopted: term, log, accepted, entryTerm, signed };
    const taken = stays
      ? change
      : { ...change, ...(hub.phase === 'collecting' ? idle : steppedDown(rules)) };
    const next = withLog(stays ? state : unasked(state, hub), index, taken);
    visit('adopt', `hub ${index} adopts "${log}" of term ${term}`, vote(next, index, term));
  }
}

/** Accepted entries prove themselves: a hub takes them from any other, whatever the term. */
function install(state: State, bounds: Bounds, index: number, hub: Hub, visit: Visit): void {
  for (const [from, other] of state.hubs.entries()) {
    const { accepted } = other;
    if (accepted <= hub.accepted) continue;
    const change = bounds.begins === true ? takes(hub, other, from === 0) : {};
    const log = other.log.slice(0, accepted);
    const line = `hub ${index} gets "${log}" from hub ${from}`;
    visit('install', line, withLog(state, index, { ...change, log, accepted }));
  }
}

/** Members hold what was accepted, and bring it to a hub that forgot until that has given its word. */
function giveBack(state: State, index: number, hub: Hub, visit: Visit): void {
  const log = state.told;
  if (!hub.isLearner || hub.said || log.length <= hub.accepted) return;
  const next = withLog(state, index, { log, accepted: log.length });
  visit('give back', `members bring hub ${index} "${log}"`, next);
}

/** The disk is gone; what the hub ever sent is not. */
function lose(state: State, bounds: Bounds, rules: Rules, index: number, visit: Visit): void {
  if (state.losses >= (bounds.losses ?? 0)) return;
  // Nothing tells it what it forgot, before others do.
  const hub = state.hubs[index] ?? freshHub;
  const isLearner = rules.learns && bounds.begins !== true;
  const fresh = { ...freshHub, ...hub.saved, saved: hub.saved, isLearner };
  const next = withHub(unasked(state, hub), index, fresh);
  const after = { ...next, losses: state.losses + 1 };
  visit('lose', `hub ${index} loses its disk`, bounds.recovers === true ? restored(after) : after);
}

/** Hub `index` replaces its log; the observer sees whether accepted or signed entries went. */
function withLog(before: State, index: number, change: Partial<Hub> & { log: string }): State {
  const { log = '', accepted = 0, signed = 0 } = before.hubs[index] ?? {};
  const kept = Math.min(change.signed ?? signed, change.log.length);
  const said = log.slice(0, signed);
  const unsaid = change.log.startsWith(said)
    ? before.unsaid
    : `unsaid: hub ${index} signed "${said}", has "${change.log}"`;
  const state = unsaid === before.unsaid ? before : { ...before, unsaid };
  const next = withHub(state, index, { ...change, signed: kept });
  if (change.log.startsWith(log.slice(0, accepted))) return next;
  return {
    ...next,
    fault: `lost: hub ${index} had accepted "${log.slice(0, accepted)}", has "${change.log}"`,
  };
}

/** Sends what the leader `index` has to both others. */
function send(state: State, index: number): State {
  const hub = state.hubs[index];
  if (hub === undefined) return state;
  const { term, log, accepted, entryTerm } = hub;
  const key = `${term}${log}${accepted}${entryTerm}`;
  return {
    ...state,
    replicates: including(state.replicates, { key, term, log, accepted, entryTerm }),
  };
}

/** Signs the log of hub `from` for `term`, and lets the observer see what is certified by that. */
function vote(state: State, from: number, term: number, mid = 0): State {
  const log = state.hubs[from]?.log ?? '';
  let { chain, chainTerm, chainTerms, fault } = state;
  for (const other of state.votes) {
    if (other.term !== term || other.from === from) continue;
    const certified = commonPrefix(other.log, log);
    if (certified.startsWith(chain)) {
      if (certified.length > chain.length) chainTerm = term;
      chainTerms &&= Array.from(certified, (_, at) => chainTerms?.[at] ?? term);
      chain = certified;
    } else if (!chain.startsWith(certified)) {
      fault = `fork: "${chain}" and "${certified}" both have certificates`;
    }
  }
  const isKnown = state.votes.some(
    (known) =>
      known.term === term && known.from === from && known.mid === mid && known.log.startsWith(log),
  );
  const others = state.votes.filter(
    (known) =>
      known.term !== term || known.from !== from || known.mid !== mid || !log.startsWith(known.log),
  );
  const votes = isKnown
    ? state.votes
    : including(others, { key: `${term}${from}${log}${mid}`, term, from, log, mid });
  return { ...state, votes, chain, chainTerm, chainTerms, fault };
}

function commonPrefix(a: string, b: string): string {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return a.slice(0, length);
}

/** Without messages that can change nothing any more, whatever happens. Only for monotone rules. */
export function forget(state: State): State {
  const { hubs, chain } = state;
  let { asked } = state;
  for (let term = 0; asked >> term !== 0; term++) {
    if (hubs.every(({ promised }) => promised >= term)) asked &= ~(1 << term);
  }
  const replicates = state.replicates.filter(({ term, log, accepted }) =>
    hubs.some((hub, index) => {
      if (index === ownerOf(term) || term < hub.promised) return false;
      if (hub.adopted < term || log.length > hub.log.length) return true;
      return log.length === hub.log.length && accepted > hub.accepted;
    }),
  );
  const promises = state.promises.filter(({ term }) => {
    const owner = hubs[ownerOf(term)];
    return owner?.phase === 'collecting' && owner.term === term && owner.promised < term;
  });
  const votes = state.votes.filter(({ term, log }) => {
    if (hubs[ownerOf(term)]?.promised === term) return true;
    return !chain.startsWith(log) && hubs.some(({ promised }) => promised <= term);
  });
  return { ...state, asked, replicates, promises, votes };
}
