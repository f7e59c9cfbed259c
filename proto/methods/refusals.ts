/** All that a call may be refused with: what its row names, and what the way to its handler adds. */
import { alwaysServed } from '../middleware/admission.ts';
import { classRefusal } from '../middleware/caller-class.ts';
import type { Reason } from '../status.ts';
import { callerClasses, type Method } from './row.ts';

/** Of the node as a whole, whatever is asked of it, when time or disk run out. */
export const nodeRefusals: readonly Reason[] = ['TIMEOUT', 'STORE_FULL'];

/** What the dispatch and the middleware refuse a call of this row with, before its handler runs. */
export function commonRefusals(row: Method): readonly Reason[] {
  const isRated = row.callers.some((caller) => caller !== 'admin');
  const ofClasses = callerClasses.map((caller) => classRefusal(row, caller));
  return [
    ...new Set(ofClasses.filter((reason) => reason !== undefined)),
    ...(alwaysServed.has(row.name) ? [] : (['DRAINING'] as const)),
    ...(row.maxAnonymousBytes < row.maxRequestBytes ? (['TOO_LARGE'] as const) : []),
    ...(isRated ? (['RATE_LIMITED'] as const) : []),
    'OVERLOADED',
    'BAD_FIELD',
  ];
}
