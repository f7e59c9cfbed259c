/** Door of federation: interfaces the node implements, and the parts it runs. */
export * from './store.ts';
export {
  createFederation,
  type Federation,
  type FederationOptions,
  type PeerStatus,
  type ReloadReport,
} from './federation.ts';
export {
  makePeer,
  parsePeersFile,
  PeerPolicy,
  type FederationMode,
  type Peer,
  type PeersFile,
} from './policy.ts';
export type { RecordSite } from './trust.ts';
export { federationVersion } from './hellos.ts';
export type { EphemeralItemIn } from './ephemeral.ts';
export { KtProxy } from './kt-proxy.ts';
export type { LinkState, LinkStatus } from './link.ts';
export type { LinkService } from './peer-parts.ts';
export type { LinkSession } from './link-session.ts';
export { defaultCeilings, type Ceilings } from './ceilings.ts';
export { RelayInbox } from './inbox.ts';
export { laneOfKind } from './lane.ts';
export { LaneSender, type LaneStatus } from './outbox.ts';
export type { ProxyOptions } from './proxy.ts';
export type { PeerRecord, PeerRecords } from './records.ts';
export { Wakeup } from './wakeup.ts';
