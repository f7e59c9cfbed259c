/** All scenarios, in the order in which they run. */
import type { Scenario } from '../scenario.ts';
import { diskError } from './disk-error.ts';
import { killLoop } from './kill-loop.ts';
import { loss } from './loss.ts';
import { partition } from './partition.ts';
import { pause } from './pause.ts';
import { powerCut } from './power-cut.ts';

export const scenarios: readonly Scenario[] = [
  killLoop,
  partition,
  loss,
  powerCut,
  diskError,
  pause,
];
