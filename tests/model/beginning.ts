/**
 * How a group of three begins in the model (docs/reference/hub-model.md, "How a group begins"): entry 0 is the letter `o`,
 * and a creator that lies has the first hub begin again whenever that knows nothing of the group any more.
 */
import type { Rules } from './rules.ts';
import { withHub, type Hub, type State } from './state.ts';
import type { Bounds, Visit } from './steps.ts';

export const entry0 = 'o';
/** The name of a group that others brought here. */
const brought = 9;

/** Whether a hub promises terms and takes logs of their owners. */
export function hasSay(hub: Hub, rules: Rules, { begins = false }: Bounds): boolean {
  if (!begins || hub.isLearner) return !hub.isLearner;
  if (hub.accepted > 0) return true;
  return !rules.waitsForEntry0 && hub.mid > 0 && hub.phase !== 'beginning' && hub.signed > 0;
}

/** The first hub, whose own beginning nobody else need have heard of. */
const isBeginning = ({ mid, accepted, promised, isLearner, signed }: Hub): boolean =>
  mid > 0 && mid !== brought && accepted === 0 && promised === 0 && signed === 0 && !isLearner;

/** Steps of the first hub before entry 0 counts there. */
export function begin(state: State, rules: Rules, bounds: Bounds, visit: Visit): void {
  const [hub] = state.hubs;
  const isNew = hub.mid === 0 && state.begun <= (bounds.losses ?? 0);
  if (hub.phase === 'idle' && (isNew || isBeginning(hub))) {
    const mid = isNew ? state.begun + 1 : hub.mid;
    const begun = Math.max(state.begun, mid);
    const change = { mid, log: entry0, phase: 'beginning', term: 0 } as const;
    visit('begin', `hub 0 begins the group, time ${mid}`, { ...withHub(state, 0, change), begun });
  }
  if (hub.phase !== 'beginning') return;
  const isRefused = state.hubs.some(
    ({ mid, accepted }, index) =>
      index > 0 && mid > 0 && ((rules.namesBeginnings && mid !== hub.mid) || accepted > 0),
  );
  if (isRefused) {
    const change = { phase: 'idle', term: 0, isLearner: true } as const;
    visit('begin', 'hub 0 hears that the group has begun', withHub(state, 0, change));
  }
}

/** Whether enough others have this beginning. */
export function hasBegun({ votes }: State, rules: Rules, hub: Hub): boolean {
  const others = votes.filter(
    ({ term, mid, log }) => term === 0 && log === entry0 && mid === hub.mid,
  );
  return new Set(others.map(({ from }) => from)).size >= (rules.beginsWithAll ? 2 : 1);
}

/**
 * What hearing of the beginning makes of another hub; undefined: it is not asked, or refuses. Unlike a log, which may come
 * late, the question is a call: it ends with the asker, and nobody gets it who lost its disk since.
 */
export function hears([asker]: State['hubs'], hub: Hub, rules: Rules): Partial<Hub> | undefined {
  if (asker.phase !== 'beginning') return undefined;
  if (hub.mid === 0) return { mid: asker.mid, log: entry0, signed: 1 };
  const isSame = !rules.namesBeginnings || hub.mid === asker.mid;
  const isOpen = hub.accepted === 0 && hub.promised === 0 && !hub.isLearner;
  return isSame && isOpen ? {} : undefined;
}

/** Whether a hub takes logs at all. */
export function mayAdopt(hub: Hub, rules: Rules, bounds: Bounds): boolean {
  return bounds.begins === true ? hub.mid > 0 && hasSay(hub, rules, bounds) : !hub.isLearner;
}

/**
 * What certified entries from another hub make of it: who knows nothing of the group, or began it, forgot something, and so
 * did who heard of the beginning and gets them from any other than the first hub, which leads in term 0.
 */
export function takes(hub: Hub, from: Hub, isFirst: boolean): Partial<Hub> {
  if (hub.accepted > 0 || hub.isLearner) return hub.mid === 0 ? { mid: brought } : {};
  if (hub.mid > 0 && !isBeginning(hub) && isFirst && from.phase === 'leading' && from.term === 0)
    return {};
  return { mid: hub.mid || brought, isLearner: true, phase: 'idle', term: 0 };
}
