/** Door of the checkers: a history, and what is judged about it. */
export * from './history.ts';
export { fifo } from './fifo.ts';
export { live } from './live.ts';
export { noDup } from './no-dup.ts';
export { noGap } from './no-gap.ts';
export { noLoss } from './no-loss.ts';
