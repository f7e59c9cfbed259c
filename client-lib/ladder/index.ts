/** Door `@quicprochat/client-lib/ladder`: the ladder and what it works on, for tests on a clock of their own. */
export { EventBus } from '../events.ts';
export { Outbox } from '../sending/outbox.ts';
export type { OutboxEntry } from '../store/outbox-copies.ts';
export { Ladder, ladderLimits } from './ladder.ts';
export { ownNodeLimits } from './own-node.ts';
