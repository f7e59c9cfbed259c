/**
 * What must hold in every state of the model of a hub of three. Each breach has a name, and words for a
 * person; an empty text means that all hold.
 */
import type { State } from './state.ts';

/** Invariants whose breach is not yet a fork or a loss for a member; what follows from it is. */
export type EarlySign = 'uncertified' | 'deposed' | 'unsaid';

/** The first breach in `state`, other than those in `blindTo`. */
export function breach(state: State, blindTo: readonly EarlySign[] = []): string {
  const { hubs, chain, chainTerm, unsaid, fault } = state;
  if (fault !== '') return fault;
  if (!blindTo.includes('unsaid') && unsaid !== '') return unsaid;
  for (const [index, hub] of hubs.entries()) {
    const { log, accepted, phase, term, promised } = hub;
    const effects = log.slice(0, accepted);
    if (!blindTo.includes('uncertified') && !chain.startsWith(effects)) {
      return `uncertified: hub ${index} sent Welcomes of "${effects}", certified is "${chain}"`;
    }
    if (phase === 'idle') continue;
    if (!blindTo.includes('deposed') && term < promised) {
      return `deposed: hub ${index} acts in term ${term} and promised ${promised}`;
    }
    const leads = phase !== 'collecting' && phase !== 'beginning';
    if (leads && term >= chainTerm && !log.startsWith(chain)) {
      return `incomplete: leader ${index} of term ${term} has "${log}", certified is "${chain}"`;
    }
  }
  for (const [index, a] of hubs.entries()) {
    for (const b of hubs.slice(index + 1)) {
      const shared = Math.min(a.accepted, b.accepted);
      if (a.log.slice(0, shared) !== b.log.slice(0, shared)) {
        return `fork: two hubs accepted "${a.log}" and "${b.log}"`;
      }
      // What a hub that forgot got back came without the term's log.
      if (a.isLearner || b.isLearner) continue;
      if (a.adopted !== b.adopted || a.log.startsWith(b.log) || b.log.startsWith(a.log)) continue;
      return `split: two hubs adopted "${a.log}" and "${b.log}" in term ${a.adopted}`;
    }
  }
  return '';
}
