/** Door of the swarm itself, in this process; loads libp2p. */
export type { Host, HostConnection } from './host.ts';
export { createHost } from './libp2p-host.ts';
export { relayServerDefaults } from './libp2p-relay-server.ts';
export { startNodeSwarm } from './node-swarm.ts';
