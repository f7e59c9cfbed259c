/** A DeviceSwarm as a client is given one: what is chosen, to be started with the client's keys and duties. */
import { DeviceSwarm, type DeviceSwarmOptions } from './device-swarm.ts';
import type { Reach } from './swarm-address.ts';

export interface ClientSwarmOptions {
  /**
   * Addresses to bind; default: every interface, QUIC and TCP, on ports that the system chooses, which a
   * restart changes.
   */
  readonly listen?: readonly string[];
  /** Binds nothing and dials only relays: nobody but them learns the address. */
  readonly relayOnly?: boolean;
  /** Tells the local network where this device is, and finds others there. */
  readonly lan?: boolean;
  /** What addresses in records may be. Default: public and private ones. */
  readonly reach?: readonly Reach[];
  /** False: TCP alone. */
  readonly quic?: boolean;
}

const everyInterface = ['ip4/0.0.0.0', 'ip6/::'].flatMap((host) => [
  `/${host}/udp/0/quic-v1`,
  `/${host}/tcp/0`,
]);

type Duties = Omit<DeviceSwarmOptions, keyof ClientSwarmOptions>;

/** Starts nothing yet. */
export function deviceSwarm({
  listen = everyInterface,
  relayOnly = false,
  reach = ['public', 'private'],
  ...options
}: ClientSwarmOptions = {}): {
  readonly reach: readonly Reach[];
  start(duties: Duties): Promise<DeviceSwarm>;
} {
  return {
    reach,
    start: (duties) => DeviceSwarm.start({ ...options, ...duties, listen, relayOnly, reach }),
  };
}
