/** Door of the node: start one in a process of your own (tests, simulation, embedding). */
export { loadConfig, parseConfig, type NodeConfig } from './config.ts';
export { initNode, type InitOptions, type InitResult } from './init.ts';
export { readKeyFile } from './key-file.ts';
export { finishRotation, prepareRotation } from './node-keys.ts';
export { startNode, type NodeOptions, type QpcNode } from './node.ts';
export { createSecrets, loadSecrets, type NodeSecrets } from './secrets.ts';
export { openForReading } from './store/database.ts';
export { createNodeStore, openNodeStore, openNodeStoreInThread } from './store/open.ts';
export type { Enqueued, Fetched, InboxRow, TargetOutcome } from './store/message-store.ts';
export type { NodeStore } from './store/store.ts';
