/**
 * Devices of the local network by multicast DNS, for who switched it on: this one's peer id and private
 * addresses are then told to everybody there. What is heard is where a peer id might be and no more:
 * a dial proves it, and Hello the device.
 */
import type { AddressManager } from '@libp2p/interface-internal';
import { mdns } from '@libp2p/mdns';
import { multiaddr } from '@multiformats/multiaddr';
import { QpcError, type Clock } from '@quicprochat/proto';
import type { PeerIdText } from './peer-id.ts';
import { parseSwarmAddress } from './swarm-address.ts';

export const lanLimits = {
  /** Peers that are remembered; the one that was heard of longest ago goes first. */
  peers: 256,
  addressesPerPeer: 8,
  /** Between two questions (ms), which everybody answers. */
  askMs: 10_000,
  /** Not heard of for that long, it is not there (ms). */
  forgetMs: 60_000,
} as const;

const serviceTag = '_qpc._udp.local';

interface Heard {
  readonly addresses: readonly string[];
  readonly atMs: number;
}

export class LanDiscovery {
  readonly #clock: Clock;
  readonly #peerId: PeerIdText;
  readonly #heard = new Map<PeerIdText, Heard>();

  constructor(clock: Clock, own: PeerIdText) {
    this.#clock = clock;
    this.#peerId = own;
  }

  /** `own`: this swarm's addresses, without "/p2p/"; asked at each answer. */
  factory(own: () => readonly string[]): ReturnType<typeof mdns> {
    const getAddresses = () =>
      own()
        .filter((text) => isNear(text))
        .map((text) => multiaddr(`${text}/p2p/${this.#peerId}`));
    // libp2p's own list is empty here on purpose; no more than this method of it is used.
    const addressManager = { getAddresses } as unknown as AddressManager;
    return ({ logger }) => {
      const discovery = mdns({ serviceTag, interval: lanLimits.askMs })({ logger, addressManager });
      // Straight from it: the peer store tells of a peer once, and keeps no addresses here.
      discovery.addEventListener('peer', ({ detail: { id, multiaddrs } }) =>
        this.#hear(id.toString(), multiaddrs.map(String)),
      );
      return discovery;
    };
  }

  /** What was heard of a peer, or claims to be it. */
  #hear(peerId: PeerIdText, addresses: readonly string[]): void {
    const near = addresses.filter((text) => isNear(text)).slice(0, lanLimits.addressesPerPeer);
    this.#heard.delete(peerId);
    this.#heard.set(peerId, { addresses: near, atMs: this.#clock.monotonic() });
    if (this.#heard.size <= lanLimits.peers) return;
    for (const oldest of this.#heard.keys()) {
      this.#heard.delete(oldest);
      break;
    }
  }

  addressesOf(peerId: PeerIdText): readonly string[] {
    const heard = this.#heard.get(peerId);
    if (heard === undefined) return [];
    const isOld = this.#clock.monotonic() - heard.atMs > lanLimits.forgetMs;
    return isOld ? [] : heard.addresses;
  }
}

function isNear(text: string): boolean {
  try {
    const { reach, peerId } = parseSwarmAddress(text);
    return (reach === 'private' || reach === 'link') && peerId === undefined;
  } catch (error) {
    // Of a version or transport that is not spoken here.
    if (error instanceof QpcError) return false;
    throw error;
  }
}
