/** Door of what judges gossip about key logs, for tests that put a node's parts together themselves. */
export { EvidenceRelay } from './peer-audits/evidence-relay.ts';
export { GossipNode } from './peer-audits/gossip-node.ts';
export { originOf } from './key-log.ts';
export { PeerAudits, type AuditLinks } from './peer-audits.ts';
export { fedKtHandlers } from './services/fed-kt.ts';
export { neighbours } from './swarm/neighbours.ts';
export { NodeInSwarm, type StartSwarm } from './swarm/node-swarm.ts';
