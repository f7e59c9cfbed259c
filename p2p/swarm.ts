/** Door of the swarm itself, in this process; loads libp2p. */
export type { Host, HostConnection } from './host.ts';
export { createHost, relayServerDefaults } from './libp2p-host.ts';
export { startNodeSwarm } from './node-swarm.ts';
