/** Door of a device's swarm; loads libp2p. */
export {
  DeviceSwarm,
  type DeviceSwarmOptions,
  type DeliverRequest,
  type RelayState,
} from './device-swarm.ts';
export type { Delivered, Destination } from './deliver-client.ts';
export type { Delivery, DeliveryPath } from './deliver-server.ts';
export { deviceSwarm, startDeviceSwarm } from './client-swarm.ts';
