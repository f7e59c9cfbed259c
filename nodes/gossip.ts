/** Door of what judges gossip about key logs, for tests that put a node's parts together themselves. */
export { EvidenceRelay } from './peer-audits/evidence-relay.ts';
export { GossipNode } from './peer-audits/gossip-node.ts';
export { neighbours } from './swarm/neighbours.ts';
