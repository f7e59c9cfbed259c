/** The memory store keeps the contract of TreeStore. */
import { treeStoreContract } from './store-contract.ts';
import { MemoryTreeStore } from './store.ts';

treeStoreContract('memory', () => Promise.resolve(new MemoryTreeStore()));
