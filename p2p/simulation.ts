/** Door for simulations: a device's swarm on any Host, and what a Host is. Loads nothing of libp2p. */
export type { ByteStream } from './byte-stream.ts';
export { DeviceSwarm } from './device-swarm.ts';
export type { Host, HostConnection, StreamHandler } from './host.ts';
