/**
 * What delivers to devices without a node, as the client needs it. p2p's DeviceSwarm is one; it is
 * given by the application, so that a client without it loads nothing of libp2p.
 */
import type { Reach } from '@quicprochat/p2p';
// Types alone: that door loads libp2p.
import type { DeviceSwarm, DeviceSwarmOptions } from '@quicprochat/p2p/device';

/** A running swarm. */
export type PeerDelivery = Pick<
  DeviceSwarm,
  | 'peerId'
  | 'record'
  | 'hiddenRecord'
  | 'deliver'
  | 'setRelays'
  | 'setMailboxes'
  | 'relays'
  | 'networkChanged'
  | typeof Symbol.asyncDispose
>;

/** What a client gives to its swarm: the keys, and what becomes of what comes. */
export type PeerDuties = Pick<
  DeviceSwarmOptions,
  'runtime' | 'key' | 'device' | 'lastSeq' | 'admit' | 'onDelivery' | 'onRecord'
>;

/** A swarm that was chosen and does not run yet (`deviceSwarm` of p2p/device). */
export interface PeerSwarm {
  /** What addresses of others may be. */
  readonly reach: readonly Reach[];
  /** Throws TransportError `unreachable` when an address cannot be bound. */
  start(duties: PeerDuties): Promise<PeerDelivery>;
}

/** Ways past the own node. */
export interface FallbackOptions {
  /** Devices deliver to each other. Absent: only the nodes of recipients are tried. */
  readonly peers?: PeerSwarm;
  /**
   * False: no places at relays of other nodes than the own one, to which this device would show the credential
   * of its user.
   */
  readonly guestPlaces?: boolean;
  /** False: no mailboxes at other nodes than the own one, which learn the same. */
  readonly mailboxes?: boolean;
}
