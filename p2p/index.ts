/** Door of p2p: devices that deliver to each other, and what they tell of themselves. */
export {
  DeviceSwarm,
  type DeviceSwarmOptions,
  type DeliverRequest,
  type RelayState,
} from './device-swarm.ts';
export type { Delivered, Destination } from './deliver-client.ts';
export type { Delivery, DeliveryPath } from './deliver-server.ts';
export {
  endpointLimits,
  signEndpointRecord,
  verifyEndpointRecord,
  type EndpointFacts,
  type EndpointRecord,
  type EndpointRules,
} from './endpoint-record.ts';
export { loadSwarmKey, makeSwarmKey, SwarmKey } from './swarm-key.ts';
export { parseSwarmAddress, type Reach } from './swarm-address.ts';
export { createHost, relayServerDefaults } from './libp2p-host.ts';
export type { Host, HostConnection } from './host.ts';
export {
  gossipTopics,
  startNodeSwarm,
  type GossipTopic,
  type NodeSwarm,
  type NodeSwarmEvents,
  type NodeSwarmOptions,
  type SwarmPeer,
  type SwarmStats,
} from './node-swarm.ts';
export { SupervisedSwarm } from './supervised-swarm.ts';
export { KtGossip, ktGossipLimits, type KtGossipNode } from './kt-gossip.ts';
export type { Verdict } from './libp2p-gossip.ts';
