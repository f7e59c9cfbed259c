/** All scenarios, in the order in which they run. */
import type { Scenario } from '../scenario.ts';
import { clock } from './clock.ts';
import { diskError } from './disk-error.ts';
import { diskFull } from './disk-full.ts';
import { groupStorm } from './group-storm.ts';
import { killLoop } from './kill-loop.ts';
import { limits } from './limits.ts';
import { loss } from './loss.ts';
import { partition } from './partition.ts';
import { pause } from './pause.ts';
import { powerCut } from './power-cut.ts';
import { restore } from './restore.ts';

export const scenarios: readonly Scenario[] = [
  killLoop,
  groupStorm,
  partition,
  loss,
  powerCut,
  diskError,
  diskFull,
  pause,
  clock,
  restore,
  limits,
];
