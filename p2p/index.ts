/**
 * Door of p2p without libp2p: keys, addresses and records as pure functions, and a node's swarm in
 * its own process. What loads libp2p has doors of its own.
 */
export {
  endpointLimits,
  signEndpointRecord,
  verifyEndpointRecord,
  type EndpointFacts,
  type EndpointRecord,
  type EndpointRules,
} from './endpoint-record.ts';
export { peerIdOf, swarmKeyOf, type PeerIdText } from './peer-id.ts';
export { loadSwarmKey, makeSwarmKey, SwarmKey } from './swarm-key.ts';
export { formatSwarmAddress, parseSwarmAddress, type Reach } from './swarm-address.ts';
export {
  gossipTopics,
  type GossipTopic,
  type NodeSwarm,
  type NodeSwarmEvents,
  type NodeSwarmOptions,
  type SwarmPeer,
  type SwarmStats,
} from './swarm-of-node.ts';
export { SupervisedSwarm } from './supervised-swarm.ts';
export { KtGossip, ktGossipLimits, type KtGossipNode } from './kt-gossip.ts';
export type { Verdict } from './libp2p-gossip.ts';
