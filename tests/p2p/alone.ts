/** A device's swarm in which nobody is: where what a test asks for goes by nodes alone, libp2p would only take time. */
import { TransportError } from '@quicprochat/proto';
import { DeviceSwarm, type Host } from '@quicprochat/p2p/simulation';
import type { OpenOptions } from '@quicprochat/client-lib';

const unreached = (): Promise<never> =>
  Promise.reject(new TransportError('unreachable', 'nobody is in this swarm'));
const nothing = (): Promise<void> => Promise.resolve();

const hostOf = (peerId: string): Host => ({
  ...{
    peerId,
    dial: unreached,
    reserve: unreached,
    handle: nothing,
    release: nothing,
    stop: nothing,
  },
  ...{
    connections: () => [],
    addresses: () => [],
    lanAddresses: () => [],
    isReserved: () => false,
  },
  ...{ keep: () => undefined, onConnect: () => undefined, onDisconnect: () => undefined },
  counts: () => ({ connections: 0, reservations: 0 }),
});

/** What a device is opened with: all that its swarm has to say are its mailboxes. */
export const aloneFallback = (): Pick<OpenOptions, 'fallback'> => ({
  fallback: {
    peers: {
      reach: [],
      start: (duties) =>
        DeviceSwarm.on(hostOf(duties.key.peerId), {
          ...duties,
          ...{ listen: [], relayOnly: true, reach: [] },
        }),
    },
    guestPlaces: false,
  },
});
