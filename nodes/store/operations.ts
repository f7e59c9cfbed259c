/**
 * The store's methods as synchronous operations, derived from the async interface, and what an
 * area of queries gets to work with. Every operation runs inside a transaction of the core.
 */
import type { AuditStore, TreeStore } from '@quicprochat/kt-log';
import type { Random } from '@quicprochat/proto';
import type { SqlDatabase } from './sqlite.ts';
import type { NodeStore } from './store.ts';
import type { DiskState, StoreLimits } from './store-limits.ts';

/** Methods of the store that are one operation each. */
type NodeMethods = Omit<
  NodeStore,
  'storeId' | 'failed' | 'onRows' | 'keyLog' | 'audits' | typeof Symbol.asyncDispose
>;

/** The writes of `keyLog` and `audits`; their reads go another way (reads.ts). */
interface LogMethods
  extends
    Pick<TreeStore, 'addEvaluations' | 'addCosignatures'>,
    Pick<AuditStore, 'advance' | 'setStatus' | 'putHeads' | 'putEvidence'> {
  commitEntry: TreeStore['commit'];
  eraseLabel: TreeStore['erase'];
}

interface Methods extends NodeMethods, LogMethods {}

/** A method of the store that writes, or reads what only the thread that writes should read. */
export type OperationName = keyof Methods;

export type OperationArgs<N extends OperationName> = Parameters<Methods[N]>;
export type OperationResult<N extends OperationName> = Awaited<ReturnType<Methods[N]>>;

/**
 * The synchronous form: time comes first. An operation that throws a QpcError has written nothing;
 * whatever else it throws rolls its transaction back.
 */
export type Operations = {
  readonly [N in OperationName]: (nowMs: number, ...args: OperationArgs<N>) => OperationResult<N>;
};

/**
 * Operations that never write. A batch of these alone needs no transaction: the thread that runs it is
 * the only one that writes. The core checks that they keep to it.
 */
export const readOperations: ReadonlySet<OperationName> = new Set<OperationName>([
  'fetch',
  'peek',
  'fetchMailbox',
  'peekMailbox',
  'readOutbox',
  'outboxChainAt',
  'inboundStreams',
  'peersWithRows',
  'peerState',
  'peerMark',
  'peerNotes',
  'storeMark',
  'sessionByTransportKey',
  'account',
  'devices',
  'keyPackageCounts',
  'diskState',
  'welcomeSlips',
  'entryKey',
  'childEntries',
  'tokenRenewals',
]);

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
  /** The same for what goes on longer than new rows: keys and accounts. */
  readonly needLastRoom: () => void;
  readonly diskState: () => DiskState;
  /** Notes that the inbox of this device got rows; forgotten when the transaction rolls back. */
  wake(rid: Uint8Array): void;
}
