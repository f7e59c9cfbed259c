/** Door of federation: interfaces the node implements, and the parts it runs. */
export * from './store.ts';
export {
  createFederation,
  federationVersion,
  type Federation,
  type FederationOptions,
  type PeerStatus,
} from './federation.ts';
export { makePeer, parsePeersFile, PeerPolicy, type Peer, type PeersFile } from './policy.ts';
export type { LinkState, LinkStatus } from './link.ts';
export type { LaneStatus } from './outbox.ts';
export type { ProxyOptions } from './proxy.ts';
