/** What goes wrong in the run of a seed: calm ones get far, others are mostly duels and repairs. */
import { SimRandom } from '../sim/process.ts';
import type { HubMix } from './run.ts';

export function mixOf(seed: number): HubMix {
  const random = new SimRandom(seed, 'mix');
  return {
    lengthMs: random.between(30_000, 120_000),
    crashes: random.pick([0, 0.002, 0.02]),
    lost: random.pick([0, 0.02, 0.2]),
    twice: random.pick([0, 0.1]),
    restores: random.chance(0.3),
  };
}
