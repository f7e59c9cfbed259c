/**
 * Door of the store for a simulator: the synchronous core, the channel that a NodeStore runs over and
 * what a channel of one's own is made of. A node in production opens its store through open.ts.
 */
export { StoreCore, type BatchOutcome, type OperationOutcome } from './core.ts';
export { openForReading } from './database.ts';
export { pack } from './messages.ts';
export {
  readOperations,
  type OperationArgs,
  type OperationName,
  type OperationRequest,
  type OperationResult,
} from './operations.ts';
export type { StoreReads } from './reads.ts';
export { RowListeners } from './row-listeners.ts';
export { StoreClient, type StoreChannel } from './store-client.ts';
