/** All scenarios, in the order in which they run. */
import type { Scenario } from '../scenario.ts';
import { killLoop } from './kill-loop.ts';

export const scenarios: readonly Scenario[] = [killLoop];
