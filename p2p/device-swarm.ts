/**
 * A device in the swarm: its endpoint record, deliveries in and out, and its places at relays. What
 * client-lib uses of this package, with no type of libp2p in it.
 */
import { InvalidArgumentError, type Runtime, type SigningKey } from '@quicprochat/proto';
import type { SignedEndpointRecord } from '@quicprochat/proto/messages';
import { DeliverClient, type Delivered, type Destination } from './deliver-client.ts';
import {
  serveDeliveries,
  type Delivery,
  type DeliveryPath,
  type DeliverServerLimits,
} from './deliver-server.ts';
import { endpointLimits, signEndpointRecord, type EndpointRecord } from './endpoint-record.ts';
import type { Host } from './host.ts';
import { KeepUp } from './keep-up.ts';
import type { HostLimits } from './libp2p-host.ts';
import { parseSwarmAddress, type Reach } from './swarm-address.ts';
import type { SwarmKey } from './swarm-key.ts';

/** A record is made anew this long before it would expire, or when what it says has changed (ms). */
const renewBeforeMs = 4 * 24 * 3_600_000;

/** A message as Enqueue carries it. */
export interface DeliverRequest {
  /** The recipient device (32 bytes). */
  readonly rid: Uint8Array;
  readonly domain: string;
  readonly mid: Uint8Array;
  readonly payload: Uint8Array;
  readonly ttlS: number;
}

export interface DeviceSwarmOptions {
  readonly runtime: Runtime;
  readonly key: SwarmKey;
  /** The device's identity key: signs endpoint records and nothing else here. */
  readonly device: SigningKey;
  /** Addresses to bind, such as "/ip4/0.0.0.0/udp/0/quic-v1"; ignored with `relayOnly`. */
  readonly listen: readonly string[];
  /** Binds nothing and dials only relays, so that nobody but them learns the address. */
  readonly relayOnly: boolean;
  /** Tells the local network where this device is, and finds others there. */
  readonly lan?: boolean;
  /** What addresses in records may be; see EndpointRules. */
  readonly reach: readonly Reach[];
  /** The last seq that was ever signed, from the store; new ones are above it and above the time. */
  readonly lastSeq: number;
  readonly admit: (from: EndpointRecord) => Promise<void>;
  readonly onDelivery: (delivery: Delivery) => Promise<'stored' | 'duplicate'>;
  /** There is a new record, to be stored and told to contacts. Called at most once a turn. */
  readonly onRecord?: (record: SignedEndpointRecord, seq: number) => void;
  readonly hostLimits?: Partial<HostLimits>;
  readonly serverLimits?: Partial<DeliverServerLimits>;
  /** False: TCP alone. */
  readonly quic?: boolean;
}

export interface RelayState {
  readonly address: string;
  readonly isReserved: boolean;
}

export class DeviceSwarm implements AsyncDisposable {
  readonly #host: Host;
  readonly #options: DeviceSwarmOptions;
  readonly #client: DeliverClient;
  readonly #relays = new Map<string, KeepUp>();
  #record: {
    readonly signed: SignedEndpointRecord;
    readonly hidden: SignedEndpointRecord;
    readonly says: string;
    renewMs: number;
  };
  #seq: number;

  /** On a host, which the swarm ends. */
  static async on(host: Host, options: DeviceSwarmOptions): Promise<DeviceSwarm> {
    const swarm = new DeviceSwarm(host, options);
    const { runtime, device, reach, admit, onDelivery, serverLimits } = options;
    await serveDeliveries(host, {
      runtime,
      device: device.publicKey,
      record: () => swarm.record(),
      reach,
      admit,
      onDelivery,
      ...(serverLimits === undefined ? {} : { limits: serverLimits }),
    });
    return swarm;
  }

  private constructor(host: Host, options: DeviceSwarmOptions) {
    this.#host = host;
    this.#options = options;
    this.#seq = options.lastSeq;
    this.#record = this.#sign();
    options.onRecord?.(this.#record.signed, this.#seq);
    this.#client = new DeliverClient(host, {
      runtime: options.runtime,
      record: () => this.record(),
      reach: options.reach,
      relayOnly: options.relayOnly,
    });
    host.onDisconnect((peerId) => this.#relays.get(peerId)?.look());
  }

  get peerId(): string {
    return this.#host.peerId;
  }

  /** This device's record as it is now; made anew when it got old or says something else. */
  record(): SignedEndpointRecord {
    const { clock } = this.#options.runtime;
    if (clock.now() >= this.#record.renewMs || this.#facts().says !== this.#record.says) {
      this.#record = this.#sign();
      this.#options.onRecord?.(this.#record.signed, this.#seq);
    }
    return this.#record.signed;
  }

  /**
   * The same without direct addresses, for nodes, and for people to whom this device has not told where it
   * is: its relays alone. Older than `record()`, which takes its place.
   */
  hiddenRecord(): SignedEndpointRecord {
    this.record();
    return this.#record.hidden;
  }

  /**
   * Hands a message to a device. Resolves when it is durable there. Throws its typed refusal, or
   * TransportError: then the same bytes may be sent again, by any way.
   */
  deliver(
    to: Destination,
    { rid, domain, mid, payload, ttlS }: DeliverRequest,
    options: { readonly signal?: AbortSignal; readonly budgetMs?: number } = {},
  ): Promise<Delivered> {
    const lan = [...(to.lan ?? []), ...this.#host.lanAddresses(to.record.peerId)];
    return this.#client.deliver({ ...to, lan }, { rid, domain, mid, payload, ttlS }, options);
  }

  /**
   * The relays to hold a place at, at most three; each is asked again for ever. Throws
   * InvalidArgumentError BAD_FIELD for what is no relay's address.
   */
  setRelays(addresses: readonly string[]): void {
    if (addresses.length > endpointLimits.relays) {
      throw new InvalidArgumentError('BAD_FIELD', `relays: at most ${endpointLimits.relays}`);
    }
    const wanted = new Map<string, string>();
    for (const address of addresses) {
      const { peerId } = parseSwarmAddress(address);
      if (peerId === undefined) throw new InvalidArgumentError('BAD_FIELD', 'relay: no peer id');
      wanted.set(peerId, address);
    }
    for (const [peerId, keep] of this.#relays) {
      if (this.#relayAddresses.get(peerId) === wanted.get(peerId)) continue;
      keep.close();
      this.#relays.delete(peerId);
      if (wanted.has(peerId)) continue;
      this.#stood.delete(peerId);
      void this.#host.release(peerId);
    }
    this.#relayAddresses = wanted;
    for (const [peerId, address] of wanted) {
      const known = this.#relays.get(peerId);
      // Named again: it may take this device now.
      if (known !== undefined) known.wake();
      else this.#relays.set(peerId, this.#keepRelay(peerId, address));
    }
  }
  #mailboxes: readonly string[] = [];
  #relayAddresses: ReadonlyMap<string, string> = new Map();
  /** Relays that gave this device a place once; nobody is told of others. */
  readonly #stood = new Set<string>();

  get relays(): readonly RelayState[] {
    return [...this.#relayAddresses].map(([peerId, address]) => ({
      address,
      isReserved: this.#host.isReserved(peerId),
    }));
  }

  /** Domains of this device's mailboxes, at most two: the record says them. */
  setMailboxes(domains: readonly string[]): void {
    this.#mailboxes = domains.slice(0, endpointLimits.mailboxes);
    this.record();
  }

  /** Open links to devices, for people. */
  get links(): readonly { readonly peerId: string; readonly via: DeliveryPath }[] {
    return this.#client.links;
  }

  /** The network has changed: relays are asked at once, and the record says the new addresses. */
  networkChanged(): void {
    for (const relay of this.#relays.values()) {
      relay.look();
      relay.wake();
    }
    this.record();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const relay of this.#relays.values()) relay.close();
    this.#relays.clear();
    this.#client.close();
    await this.#host.stop();
  }

  #keepRelay(peerId: string, address: string): KeepUp {
    const { runtime, onRecord } = this.#options;
    return new KeepUp({
      runtime,
      isUp: () => this.#host.isReserved(peerId),
      connect: async (signal) => {
        const isConnected = this.#host.connections(peerId).some(({ isRelayed }) => !isRelayed);
        if (!isConnected) await this.#host.dial(address, signal);
        await this.#host.reserve(peerId);
      },
      onChange: (isUp, error) => {
        runtime.log.debug('p2p relay', { relay: peerId, isUp, error: errorText(error) });
        if (isUp) this.#stood.add(peerId);
        if (onRecord !== undefined && isUp) this.record();
      },
    });
  }

  #facts() {
    const { relayOnly, reach } = this.#options;
    const mailboxes = this.#mailboxes;
    const addresses = relayOnly
      ? []
      : this.#host
          .addresses()
          .filter((text) => reach.includes(parseSwarmAddress(text).reach))
          .slice(0, endpointLimits.addresses);
    // Those that gave a place once: one that is away may be back before the record is renewed.
    const relays = [...this.#relayAddresses]
      .filter(([peerId]) => this.#stood.has(peerId))
      .map(([, address]) => address);
    return { addresses, relays, mailboxes, says: JSON.stringify([addresses, relays, mailboxes]) };
  }

  #sign() {
    const { runtime, key, device } = this.#options;
    const nowMs = runtime.clock.now();
    const { says, ...facts } = this.#facts();
    // Two: that without addresses is the lower one.
    this.#seq = Math.max(this.#seq + 2, nowMs);
    const expiresMs = nowMs + endpointLimits.lifetimeMs;
    const about = { ...facts, swarmKey: key.publicKey, issuedMs: nowMs, expiresMs };
    const signed = signEndpointRecord({ ...about, seq: this.#seq }, device);
    const hidden = signEndpointRecord({ ...about, addresses: [], seq: this.#seq - 1 }, device);
    return { signed, hidden, says, renewMs: expiresMs - renewBeforeMs };
  }
}

const errorText = (error: unknown): string | undefined =>
  error === undefined ? undefined : error instanceof Error ? error.message : 'unknown';
