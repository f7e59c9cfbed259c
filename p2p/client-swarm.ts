/** A DeviceSwarm as a client is given one: what is chosen, to be started with the client's keys and duties. */
import { createHash } from 'node:crypto';
import { TransportError } from '@quicprochat/proto';
import { DeviceSwarm, type DeviceSwarmOptions } from './device-swarm.ts';
import { createHost } from './libp2p-host.ts';
import type { Reach } from './swarm-address.ts';
import type { SwarmKey } from './swarm-key.ts';

export interface ClientSwarmOptions {
  /** Addresses to bind. Default: every interface, QUIC and TCP, on `port`. */
  readonly listen?: readonly string[];
  /** Unless told: the device's own one, see portOf; where somebody else has that, any. 0: any. */
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

/**
 * The port of a device that was told none, at every start the same: what others know of it stays true, and they
 * hear of a changed address at most hourly. Nobody can tell it from the peer id. Of the dynamic range of RFC 6335
 * section 6.
 */
function portOf(key: SwarmKey): number {
  const seed = key.seed();
  const hash = createHash('sha256').update('qpc/swarm-port/1\0').update(seed).digest();
  seed.fill(0);
  return 49_152 + (hash.readUInt16BE() % 16_384);
}

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
  port,
  listen,
  relayOnly = false,
  reach = ['public', 'private'],
  ...options
}: ClientSwarmOptions = {}): {
  readonly reach: readonly Reach[];
  start(duties: Duties): Promise<DeviceSwarm>;
} {
  const start = (duties: Duties, at: readonly string[]): Promise<DeviceSwarm> =>
    startDeviceSwarm({ ...options, ...duties, listen: at, relayOnly, reach });
  return {
    reach,
    start: async (duties) => {
      if (listen !== undefined) return start(duties, listen);
      if (port !== undefined) return start(duties, everyInterface(port));
      try {
        return await start(duties, everyInterface(portOf(duties.key)));
      } catch (error) {
        if (!(error instanceof TransportError) || error.failure !== 'unreachable') throw error;
        return start(duties, everyInterface(0));
      }
    },
  };
}
