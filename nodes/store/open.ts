/** Making and opening a node's store: the only ways to get a NodeStore. */
import type { Runtime } from '@quicprochat/proto';
import { needBytes, storeBounds } from './bounds.ts';
import { createDatabase } from './database.ts';
import { DirectChannel } from './direct-channel.ts';
import { StoreClient } from './store-client.ts';
import type { NodeStore } from './store.ts';
import type { StoreLimits } from './store-limits.ts';
import { WorkerChannel } from './worker-channel.ts';

export interface OpenOptions {
  /** The database file; two more files stand beside it while it is open. */
  readonly path: string;
  /** 32 bytes, used as they are. The caller may wipe them once the promise has settled. */
  readonly key: Uint8Array;
  readonly limits: StoreLimits;
  readonly runtime: Runtime;
}

/**
 * Makes the database file (mode 600), for `qpcd init`. It is complete and on disk when this
 * resolves, and not there at all when it rejects. StoreOpenError: STORE_EXISTS when there is a file
 * already, STORE_IO.
 */
export async function createNodeStore({
  path,
  key,
  runtime,
}: Pick<OpenOptions, 'path' | 'key' | 'runtime'>): Promise<void> {
  createDatabase(path, key, runtime.random);
}

/**
 * Opens an existing store in a thread of its own and brings its schema up to date. Rejects with
 * StoreOpenError: STORE_MISSING, STORE_KEY (wrong key), STORE_INVALID (no node's store),
 * STORE_LOCKED (another process has it), STORE_NEWER (made by a newer program), STORE_IO.
 */
export async function openNodeStore(options: OpenOptions): Promise<NodeStore> {
  needBytes(options.key, storeBounds.keyBytes, 'key');
  return new StoreClient(await WorkerChannel.open(options, options.runtime));
}

/** The same in this thread, which then waits for the disk: for simulations and tools. */
export function openNodeStoreInThread(options: OpenOptions): NodeStore {
  return new StoreClient(new DirectChannel(options));
}
