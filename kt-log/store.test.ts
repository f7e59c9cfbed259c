/** The memory store keeps the contract of TreeStore. */
import { ConflictError } from '@quicprochat/proto/status';
import { treeStoreContract } from './store-contract.ts';
import type { TreeStore } from './store.ts';
import { MemoryTreeStore } from './store.ts';

/** Effects that are names, each of which may be taken once. */
const takenBy = new WeakMap<TreeStore, Set<unknown>>();
function open(): Promise<TreeStore> {
  const taken = new Set<unknown>();
  const store = new MemoryTreeStore((effects) => {
    if (effects.some((name) => taken.has(name))) throw new ConflictError('NAME_TAKEN', 'taken');
    for (const name of effects) taken.add(name);
  });
  takenBy.set(store, taken);
  return Promise.resolve(store);
}

treeStoreContract('memory', open, {
  once: 'alice',
  isThere: (store) => Promise.resolve(takenBy.get(store)?.has('alice') === true),
});
