/** Door of the checkers: a history, and what is judged about it. */
export * from './history.ts';
export { allShown } from './all-shown.ts';
export { blockedHidden } from './blocked.ts';
export { bounded } from './bounded.ts';
export { fifo } from './fifo.ts';
export { intentsEnd } from './intents.ts';
export { live } from './live.ts';
export { membersOnly } from './membership.ts';
export { noDup } from './no-dup.ts';
export { noGap } from './no-gap.ts';
export { noLoss } from './no-loss.ts';
export { oneKey } from './one-key.ts';
export { oneLog } from './one-log.ts';
export { shownOnce } from './shown-once.ts';
