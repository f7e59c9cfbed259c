/** Devices with real swarms on loopback, and relays for them: what the tests of p2p share. */
import {
  silentLog,
  signingKeyFromSeed,
  systemClock,
  systemRandom,
  type SigningKey,
} from '@quicprochat/proto';
import {
  makeSwarmKey,
  verifyEndpointRecord,
  type EndpointRecord,
  type Reach,
  type SwarmKey,
} from '@quicprochat/p2p';
import {
  startDeviceSwarm,
  type DeviceSwarm,
  type Delivery,
  type Destination,
  type DeviceSwarmOptions,
} from '@quicprochat/p2p/device';
import { createHost, relayServerDefaults } from '@quicprochat/p2p/swarm';
import { freePort } from '../cluster/free-port.ts';

export const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
export const everywhere: readonly Reach[] = ['loopback', 'link', 'private', 'public'];
/** Loopback alone: nothing of this machine's own addresses. */
export const loopback: readonly Reach[] = ['loopback'];

export const makeDeviceKey = (): SigningKey => signingKeyFromSeed(systemRandom.bytes(32));

export interface Device extends AsyncDisposable {
  readonly key: SigningKey;
  readonly swarmKey: SwarmKey;
  readonly swarm: DeviceSwarm;
  /** What came, newest last. */
  readonly received: Delivery[];
  /** As others know it. */
  destination(): Destination;
}

export async function startDevice(options: Partial<DeviceSwarmOptions> = {}): Promise<Device> {
  const key = options.device ?? makeDeviceKey();
  const swarmKey = options.key ?? makeSwarmKey(systemRandom);
  const received: Delivery[] = [];
  const swarm = await startDeviceSwarm({
    runtime,
    key: swarmKey,
    device: key,
    listen: ['/ip4/127.0.0.1/udp/0/quic-v1', '/ip4/127.0.0.1/tcp/0'],
    relayOnly: false,
    reach: loopback,
    lastSeq: 0,
    admit: () => Promise.resolve(),
    onDelivery: (delivery) => {
      const { mid } = delivery.request;
      const isKnown = received.some(({ request }) => Buffer.compare(request.mid, mid) === 0);
      if (!isKnown) received.push(delivery);
      return Promise.resolve(isKnown ? 'duplicate' : 'stored');
    },
    ...options,
  });
  return {
    key,
    swarmKey,
    swarm,
    received,
    destination: () => ({ record: recordOf(swarm) }),
    [Symbol.asyncDispose]: () => swarm[Symbol.asyncDispose](),
  };
}

export const recordOf = (swarm: DeviceSwarm): EndpointRecord =>
  verifyEndpointRecord(swarm.record(), { nowMs: Date.now(), reach: everywhere });

/** A message for a device. */
export const message = (to: Device, payload: Uint8Array = systemRandom.bytes(100)) => ({
  rid: to.key.publicKey,
  domain: 'red.example',
  mid: systemRandom.bytes(16),
  payload,
  ttlS: 0,
});

/** With these direct addresses and relays instead of its own. */
export function at(
  { record }: Destination,
  parts: { readonly addresses?: readonly string[]; readonly relays?: readonly string[] },
): Destination {
  return { record: { ...record, ...parts } };
}

/** Addresses of one transport. */
export const over = (device: Device, transport: 'quic-v1' | 'tcp'): Destination => {
  const to = device.destination();
  return at(to, { addresses: to.record.addresses.filter((text) => text.includes(transport)) });
};

export interface Relay extends AsyncDisposable {
  readonly address: string;
  readonly key: SwarmKey;
  readonly port: number;
}

export async function startRelay(
  options: {
    readonly key?: SwarmKey;
    readonly port?: number;
    readonly mayReserve?: (peerId: string) => Promise<boolean>;
    readonly limits?: Partial<typeof relayServerDefaults>;
  } = {},
): Promise<Relay> {
  const key = options.key ?? makeSwarmKey(systemRandom);
  const port = options.port ?? (await freePort());
  const address = `/ip4/127.0.0.1/tcp/${port}`;
  const host = await createHost({
    key,
    runtime,
    listen: [address],
    relayServer: {
      ...relayServerDefaults,
      ...options.limits,
      mayReserve: options.mayReserve ?? (() => Promise.resolve(true)),
    },
  });
  return {
    key,
    port,
    address: `${address}/p2p/${key.peerId}`,
    [Symbol.asyncDispose]: () => host.stop(),
  };
}

/** Until it is true, looked at often; throws after `ms`. */
export async function until(what: () => boolean, ms = 30_000): Promise<void> {
  const deadline = performance.now() + ms;
  while (!what()) {
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms`);
    await systemClock.sleep(10);
  }
}
