/** Door of a hub of three for whoever runs one without a node: simulations and benches. */
export { hubLimits, type HubPeers } from './hub-parts.ts';
export { HubSet } from './hub-set.ts';
export { CommitOffers } from './offers.ts';
