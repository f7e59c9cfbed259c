/** Door of hubs for whoever runs them without a node: simulations, benches and tests. */
export { epochRate } from './epoch-quota.ts';
export { ForkAlarm } from './fork-alarm.ts';
export { hubLimits, type HubPeers } from './hub-parts.ts';
export { HubSet } from './hub-set.ts';
export { CommitOffers } from './offers.ts';
