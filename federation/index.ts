/** Door of federation: interfaces the node implements, and the parts it runs. */
export * from './store.ts';
