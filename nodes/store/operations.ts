/**
 * The store's methods as synchronous operations, derived from the async interface, and what an
 * area of queries gets to work with. Every operation runs inside a transaction of the core.
 */
import type { Random } from '@quicprochat/proto';
import type { SqlDatabase } from './sqlite.ts';
import type { NodeStore, StoreLimits } from './store.ts';

/** A method of the store that reaches the disk. */
export type OperationName = Exclude<
  keyof NodeStore,
  'storeId' | 'failed' | 'onRows' | typeof Symbol.asyncDispose
>;

export type OperationArgs<N extends OperationName> = Parameters<NodeStore[N]>;
export type OperationResult<N extends OperationName> = Awaited<ReturnType<NodeStore[N]>>;

/**
 * The synchronous form: time comes first. An operation that throws a QpcError has written nothing;
 * whatever else it throws rolls its transaction back.
 */
export type Operations = {
  readonly [N in OperationName]: (nowMs: number, ...args: OperationArgs<N>) => OperationResult<N>;
};

/** One call, by name. */
export type OperationRequest = {
  readonly [N in OperationName]: { readonly name: N; readonly args: OperationArgs<N> };
}[OperationName];

/** What an area of queries is made of. Statements are prepared once, when the area is made. */
export interface QueryContext {
  readonly db: SqlDatabase;
  readonly limits: StoreLimits;
  readonly random: Random;
  /** Throws UnavailableError STORE_FULL when nothing new is taken; called before the first write. */
  readonly needRoom: () => void;
  /** Notes that the inbox of this device got rows; forgotten when the transaction rolls back. */
  wake(rid: Uint8Array): void;
}
