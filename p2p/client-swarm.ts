/** A DeviceSwarm as a client is given one: what is chosen, to be started with the client's keys and duties. */
import { DeviceSwarm, type DeviceSwarmOptions } from './device-swarm.ts';
import { createHost } from './libp2p-host.ts';
import type { Reach } from './swarm-address.ts';

export interface ClientSwarmOptions {
  /** Addresses to bind. Default: every interface, QUIC and TCP, on `port`. */
  readonly listen?: readonly string[];
  /** 0, and unless told: the system chooses, and a restart has another one. */
  readonly port?: number;
  /** Binds nothing and dials only relays: nobody but them learns the address. */
  readonly relayOnly?: boolean;
  /** Tells the local network where this device is, and finds others there. */
  readonly lan?: boolean;
  /** What addresses in records may be. Default: public and private ones. */
  readonly reach?: readonly Reach[];
  /** False: TCP alone. */
  readonly quic?: boolean;
}

const everyInterface = (port: number): string[] =>
  ['ip4/0.0.0.0', 'ip6/::'].flatMap((host) => [
    `/${host}/udp/${port}/quic-v1`,
    `/${host}/tcp/${port}`,
  ]);

type Duties = Omit<DeviceSwarmOptions, keyof ClientSwarmOptions>;

/** A swarm on a host of libp2p. Throws TransportError `unreachable` when an address cannot be bound. */
export async function startDeviceSwarm(options: DeviceSwarmOptions): Promise<DeviceSwarm> {
  const { key, runtime, quic, hostLimits } = options;
  const host = await createHost({
    key,
    runtime,
    listen: options.relayOnly ? [] : options.listen,
    lan: options.lan === true && !options.relayOnly,
    ...(quic === undefined ? {} : { quic }),
    ...(hostLimits === undefined ? {} : { limits: hostLimits }),
  });
  return DeviceSwarm.on(host, options);
}

/** Starts nothing yet. */
export function deviceSwarm({
  port = 0,
  listen = everyInterface(port),
  relayOnly = false,
  reach = ['public', 'private'],
  ...options
}: ClientSwarmOptions = {}): {
  readonly reach: readonly Reach[];
  start(duties: Duties): Promise<DeviceSwarm>;
} {
  return {
    reach,
    start: (duties) => startDeviceSwarm({ ...options, ...duties, listen, relayOnly, reach }),
  };
}
