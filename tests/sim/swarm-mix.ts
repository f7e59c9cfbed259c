/** What a mix says of the swarm of devices: who can be dialed, whether there are relays, what goes wrong. */

/** Shares; of dials, of connections made, and of writes. */
export interface SwarmFaults {
  /** A dial gets no answer. */
  readonly dialLost: number;
  /** A connection that was made is closed at once. */
  readonly closedAtOnce: number;
  /** The connection breaks with a write, before or after it arrives. */
  readonly breaks: number;
  /** Nothing gets through any more, and neither side is told. */
  readonly silent: number;
  /** Of connections over relays: the relay drops what it is given, from the start. */
  readonly relayDrops: number;
}

/** What a mix says of the swarm. */
export interface SwarmMix {
  /** Share of devices that nobody can dial; they dial others. */
  readonly hidden: number;
  /** Whether nodes have relays. */
  readonly relays: boolean;
  readonly faults: SwarmFaults;
}

export const noSwarmFaults: SwarmFaults = {
  dialLost: 0,
  closedAtOnce: 0,
  breaks: 0,
  silent: 0,
  relayDrops: 0,
};
