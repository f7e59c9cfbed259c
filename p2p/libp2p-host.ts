/**
 * The swarm over libp2p: QUIC first where its native code loads, TCP with noise and yamux second.
 * Everything of libp2p that the package uses is made here, with limits from the start; no names are
 * resolved, no addresses are told to whoever connects, and nothing redials by itself.
 */
import { networkInterfaces } from 'node:os';
import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import { privateKeyFromRaw } from '@libp2p/crypto/keys';
import { identify } from '@libp2p/identify';
import type { Connection, ConnectionGater, Libp2p, PeerId } from '@libp2p/interface';
import type { TransportManager } from '@libp2p/interface-internal';
import { peerIdFromString } from '@libp2p/peer-id';
import { tcp } from '@libp2p/tcp';
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr';
import {
  limitKey,
  TokenBuckets,
  TransportError,
  type Runtime,
  type Timer,
} from '@quicprochat/proto';
import { createLibp2p } from 'libp2p';
import type { Host, HostConnection, StreamHandler } from './host.ts';
import type { Gossip } from './libp2p-gossip.ts';
import { LanDiscovery } from './libp2p-mdns.ts';
import { byteStream, transportError } from './libp2p-stream.ts';
import { RelayClient } from './libp2p-relay.ts';
import { relayServerOf, type RelayServerOptions } from './libp2p-relay-server.ts';
import type { PeerIdText } from './peer-id.ts';
import { PeerMemory } from './peer-memory.ts';
import { formatSwarmAddress, parseSwarmAddress, type SwarmAddress } from './swarm-address.ts';
import type { SwarmKey } from './swarm-key.ts';

/** Bounds of a swarm. Bytes and counts are for one swarm unless they say otherwise. */
export interface HostLimits {
  readonly connections: number;
  readonly connectionsPerPeer: number;
  /** That an address (IPv6: a /64) made to this swarm; an office is one address. */
  readonly connectionsPerHost: number;
  /** New connections per second and address. */
  readonly connectionsPerHostPerSecond: number;
  readonly handshakes: number;
  /** Dials under way; more wait. */
  readonly dials: number;
  readonly dialsWaiting: number;
  /** Relayed connections that a client takes at a time, of one relay. */
  readonly relayedConnections: number;
  /** QUIC: native attempts outlive a cancelled dial until then (ms). */
  readonly handshakeMs: number;
  readonly idleMs: number;
  /** Of one connection, opened by the other side; without a protocol each is kept for some seconds. */
  readonly streams: number;
  /** A connection without streams ends after once to twice that (ms). */
  readonly unusedMs: number;
  /** After that a stop goes on without the engine (ms). */
  readonly stopMs: number;
}

export const hostLimits: HostLimits = {
  connections: 1_000,
  connectionsPerPeer: 8,
  connectionsPerHost: 256,
  connectionsPerHostPerSecond: 50,
  handshakes: 100,
  dials: 16,
  dialsWaiting: 1_024,
  relayedConnections: 64,
  handshakeMs: 5_000,
  idleMs: 10_000,
  streams: 128,
  unusedMs: 60_000,
  stopMs: 3_000,
};

export interface HostOptions {
  readonly key: SwarmKey;
  readonly runtime: Runtime;
  /** Addresses to listen at, in the form of swarm-address.ts but port 0 may be asked; empty: none. */
  readonly listen: readonly string[];
  readonly limits?: Partial<HostLimits>;
  /** Offers relaying; without it this swarm relays for nobody. */
  readonly relayServer?: RelayServerOptions;
  /** Tells the local network of this swarm, and listens for others. */
  readonly lan?: boolean;
  /** Gossip topics; without it this swarm speaks none. */
  readonly gossip?: Gossip;
  /** False: TCP alone, as where the native code does not load. */
  readonly quic?: boolean;
}

/** Makes and starts a swarm. Throws TransportError `unreachable` when an address cannot be bound. */
export async function createHost(options: HostOptions): Promise<Host> {
  const limits = { ...hostLimits, ...options.limits };
  const relays = new RelayClient();
  const { key, relayServer, runtime } = options;
  const seed = key.seed();
  const raw = Uint8Array.from([...seed, ...key.publicKey]);
  const quic = options.quic === false ? undefined : await loadQuic(runtime);
  const listen = options.listen.filter(
    (address) => quic !== undefined || address.includes('/tcp/'),
  );
  const parts: { transportManager?: TransportManager; libp2p?: Libp2p; host?: Libp2pHost } = {};
  const lan = options.lan === true ? new LanDiscovery(runtime.clock, key.peerId) : undefined;
  try {
    parts.libp2p = await createLibp2p({
      privateKey: privateKeyFromRaw(raw),
      nodeInfo: { userAgent: 'qpc' },
      // Addresses are location data: an endpoint record tells them, to those who may know.
      addresses: { listen, announceFilter: () => [] },
      transports: [
        ...(quic === undefined
          ? []
          : [
              quic({
                handshakeTimeout: limits.handshakeMs,
                maxIdleTimeout: limits.idleMs,
                keepAliveInterval: limits.idleMs / 2,
                maxConcurrentStreamLimit: 64,
                maxStreamData: 2 * 1024 * 1024,
                maxConnectionData: 8 * 1024 * 1024,
              }),
            ]),
        tcp({ maxConnections: limits.connections }),
        relays.factory(limits),
      ],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux({ maxInboundStreams: limits.streams })],
      connectionGater: gater(options, limits, relays, () => parts.libp2p),
      connectionManager: {
        maxConnections: limits.connections,
        inboundConnectionThreshold: limits.connectionsPerHostPerSecond,
        maxIncomingPendingConnections: limits.handshakes,
        maxDialQueueLength: limits.dialsWaiting,
        reconnectRetries: 0,
        resolvers: {},
      },
      services: {
        identify: identify({ runOnConnectionOpen: true }),
        // The one way to dial address by address: libp2p's own queue tries them one after another.
        dialer: (components: { transportManager: TransportManager }) => {
          parts.transportManager = components.transportManager;
          return {};
        },
        ...(options.gossip === undefined ? {} : { gossip: options.gossip.factory() }),
        // Not as peerDiscovery: libp2p would remember every peer id that anybody in the network names.
        ...(lan === undefined ? {} : { lan: lan.factory(() => parts.host?.addresses() ?? []) }),
        ...(relayServer === undefined ? {} : { relay: relayServerOf(relayServer) }),
      },
    });
  } catch (error) {
    throw transportError(error);
  } finally {
    seed.fill(0);
    raw.fill(0);
  }
  const { libp2p, transportManager } = parts;
  if (transportManager === undefined) throw new Error('libp2p gave no transport manager');
  options.gossip?.subscribe();
  parts.host = new Libp2pHost({ libp2p, transportManager, relays, listen, lan }, runtime, limits);
  return parts.host;
}

/** The QUIC transport; undefined on a platform without its native code. */
async function loadQuic({ log }: Runtime) {
  try {
    return (await import('@chainsafe/libp2p-quic')).quic;
  } catch (error) {
    log.warn('p2p has no quic', { error: String(error) });
    return undefined;
  }
}

/** Who may connect, reserve and be connected to. */
function gater(
  { relayServer, runtime }: HostOptions,
  limits: HostLimits,
  relays: RelayClient,
  libp2p: () => Libp2p | undefined,
): ConnectionGater {
  const buckets = new TokenBuckets(runtime.clock);
  const isTooMany = (peer: PeerId): boolean =>
    (libp2p()?.getConnections(peer).length ?? 0) >= limits.connectionsPerPeer;
  return {
    // Whoever has one address takes a share of the places, not all of them.
    denyInboundConnection: ({ remoteAddr }) => {
      const host = hostOf(remoteAddr);
      const made = (libp2p()?.getConnections() ?? []).filter(
        (one) => one.direction === 'inbound' && one.direct && hostOf(one.remoteAddr) === host,
      );
      return !isRelayed(remoteAddr) && made.length >= limits.connectionsPerHost;
    },
    denyInboundEncryptedConnection: isTooMany,
    denyInboundRelayedConnection: (relay) => !relays.isAsked(relay.toString()),
    denyInboundRelayReservation: async (peer) => {
      if (relayServer === undefined) return true;
      return !(await relayServer.mayReserve(peer.toString()));
    },
    denyOutboundRelayedConnection: (source) => {
      const perMinute = relayServer?.connectsPerPeerPerMinute ?? 0;
      const rate = { perSecond: perMinute / 60, burst: perMinute };
      return perMinute === 0 || buckets.take(source.toString(), rate) > 0;
    },
    // Nothing that strangers say of addresses is kept.
    filterMultiaddrForPeer: () => false,
  };
}

const isRelayed = (address: Multiaddr): boolean => address.toString().includes('/p2p-circuit');
/** `/ip4/192.0.2.1/...`: what counts as one host. */
const hostOf = (address: Multiaddr): string => limitKey(address.toString().split('/')[2] ?? '');

interface HostParts {
  readonly libp2p: Libp2p;
  readonly transportManager: TransportManager;
  readonly relays: RelayClient;
  readonly listen: readonly string[];
  readonly lan: LanDiscovery | undefined;
}

class Libp2pHost implements Host {
  readonly peerId: PeerIdText;
  readonly #libp2p: Libp2p;
  readonly #transportManager: TransportManager;
  readonly #relays: RelayClient;
  readonly #listen: readonly string[];
  readonly #lan: LanDiscovery | undefined;
  readonly #memory: PeerMemory;
  readonly #runtime: Runtime;
  readonly #limits: HostLimits;
  readonly #waiting: (() => void)[] = [];
  readonly #kept = new Set<PeerIdText>();
  #unused = new Set<string>();
  #sweep: Timer | undefined;
  #dialing = 0;
  #stopped: Promise<void> | undefined;

  constructor(parts: HostParts, runtime: Runtime, limits: HostLimits) {
    this.peerId = parts.libp2p.peerId.toString();
    this.#libp2p = parts.libp2p;
    this.#transportManager = parts.transportManager;
    this.#relays = parts.relays;
    this.#listen = parts.listen;
    this.#lan = parts.lan;
    this.#memory = new PeerMemory(parts.libp2p, runtime.log);
    this.#runtime = runtime;
    this.#limits = limits;
    this.#planSweep();
  }

  async dial(address: string, signal: AbortSignal): Promise<HostConnection> {
    if (this.#stopped !== undefined) throw new TransportError('closed', 'the swarm has stopped');
    await this.#slot(signal);
    // Its own: TCP would end the connection when the caller's signal is aborted long after.
    const cancel = new AbortController();
    const attempt = this.#transportManager.dial(multiaddr(address), { signal: cancel.signal });
    // QUIC's native attempt goes on after the signal; it keeps its slot, and comes to nothing.
    const freed = attempt.finally(() => this.#free());
    const ended = Promise.withResolvers<never>();
    const onAbort = (): void => {
      cancel.abort();
      ended.reject(new TransportError('timeout', 'dial took too long'));
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    try {
      return wrap(await Promise.race([freed, ended.promise]));
    } catch (error) {
      attempt.then(
        (connection) => connection.abort(new Error('dialed too late')),
        () => undefined,
      );
      throw isAnotherPeer(error)
        ? new TransportError('refusedIdentity', 'another peer answers there', { cause: error })
        : transportError(error, signal);
    } finally {
      signal.removeEventListener('abort', onAbort);
      // Handled above, or nobody waits for it any more.
      freed.catch(() => undefined);
      ended.promise.catch(() => undefined);
    }
  }

  /** Waits for a free dial. */
  async #slot(signal: AbortSignal): Promise<void> {
    if (this.#dialing < this.#limits.dials) {
      this.#dialing += 1;
      return;
    }
    if (this.#waiting.length >= this.#limits.dialsWaiting) {
      throw new TransportError('limit', `${this.#waiting.length} dials wait already`);
    }
    const turn = Promise.withResolvers<void>();
    this.#waiting.push(turn.resolve);
    const onAbort = (): void => {
      const at = this.#waiting.indexOf(turn.resolve);
      if (at >= 0) this.#waiting.splice(at, 1);
      turn.reject(new TransportError('timeout', 'other dials took too long'));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await turn.promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #free(): void {
    // The slot passes on to who waits, or becomes free.
    const next = this.#waiting.shift();
    if (next === undefined) this.#dialing -= 1;
    else next();
  }

  connections(peerId: PeerIdText): readonly HostConnection[] {
    return this.#libp2p
      .getConnections(peerIdFromString(peerId))
      .filter(({ status }) => status === 'open')
      .map(wrap)
      .sort((a, b) => Number(a.isRelayed) - Number(b.isRelayed));
  }

  async handle(protocol: string, maxStreams: number, handler: StreamHandler): Promise<void> {
    await this.#libp2p.handle(
      protocol,
      (stream, connection) => handler(byteStream(stream), wrap(connection)),
      {
        maxInboundStreams: maxStreams,
        maxOutboundStreams: maxStreams,
        runOnLimitedConnection: true,
      },
    );
  }

  addresses(): readonly string[] {
    const bound = this.#transportManager.getAddrs().map(String).flatMap(parsed);
    const all = bound.flatMap((address) => {
      const { family, transport } = address;
      const any = `/ip${family}/${family === 4 ? '0.0.0.0' : '::'}/`;
      const isAny = this.#listen.some(
        (text) => text.startsWith(any) && text.includes('/udp/') === (transport === 'quic'),
      );
      const hosts = isAny ? interfaceHosts(family) : [address.host];
      return hosts.map((host) => formatSwarmAddress({ ...address, host, peerId: undefined }));
    });
    return [...new Set(all)];
  }

  lanAddresses(peerId: PeerIdText): readonly string[] {
    return this.#lan?.addressesOf(peerId) ?? [];
  }

  keep(peerId: PeerIdText, isKept: boolean): void {
    if (isKept) this.#kept.add(peerId);
    else this.#kept.delete(peerId);
  }

  /** Ends connections that had no stream at this look nor at the one before. */
  #planSweep(): void {
    this.#sweep = this.#runtime.clock.timer(this.#limits.unusedMs, () => {
      const unused = this.#libp2p
        .getConnections()
        .filter(({ streams, remotePeer }) => streams.length === 0 && !this.#isHeld(remotePeer));
      for (const connection of unused) {
        if (this.#unused.has(connection.id)) void wrap(connection).close();
      }
      this.#unused = new Set(unused.map(({ id }) => id));
      void this.#memory.sweep();
      this.#planSweep();
    });
  }

  #isHeld(peer: PeerId): boolean {
    const peerId = peer.toString();
    return (
      this.#kept.has(peerId) ||
      this.#relays.isReserved(peerId) ||
      this.#memory.places?.has(peer) === true
    );
  }

  counts(): { readonly connections: number; readonly reservations: number } {
    const { length } = this.#libp2p.getConnections();
    return { connections: length, reservations: this.#memory.places?.size ?? 0 };
  }

  async reserve(relay: PeerIdText): Promise<void> {
    try {
      await this.#relays.reserve(relay);
    } catch (error) {
      throw transportError(error);
    }
  }

  async release(relay: PeerIdText): Promise<void> {
    this.#relays.forget(relay);
    await Promise.all(this.connections(relay).map((connection) => connection.close()));
  }

  isReserved(relay: PeerIdText): boolean {
    return this.#relays.isReserved(relay);
  }

  onConnect(listener: (peerId: PeerIdText) => void): void {
    this.#libp2p.addEventListener('connection:open', ({ detail }) =>
      listener(detail.remotePeer.toString()),
    );
  }

  onDisconnect(listener: (peerId: PeerIdText) => void): void {
    this.#libp2p.addEventListener('peer:disconnect', ({ detail }) => listener(detail.toString()));
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#sweep?.cancel();
    const { clock, log } = this.#runtime;
    const late = Promise.withResolvers<void>();
    const timer = clock.timer(this.#limits.stopMs, () => {
      log.warn('p2p engine does not stop', { afterMs: this.#limits.stopMs });
      late.resolve();
    });
    const stopped = async (): Promise<void> => {
      try {
        await this.#libp2p.stop();
      } catch (error) {
        log.warn('p2p engine stopped badly', { error: String(error) });
      }
    };
    await Promise.race([stopped(), late.promise]);
    timer.cancel();
  }
}

/** Nothing for an address that this version does not speak, such as one with an IPv6 zone. */
function parsed(text: string): SwarmAddress[] {
  try {
    return [parseSwarmAddress(text)];
  } catch {
    return [];
  }
}

/** Asked anew each time: libp2p-quic knows only those of its own start. */
function interfaceHosts(family: 4 | 6): string[] {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  return all.filter((one) => one.family === `IPv${family}`).map(({ address }) => address);
}

/** By their texts: both transports throw plain errors for it. */
const isAnotherPeer = (error: unknown): boolean =>
  error instanceof Error &&
  /^Dialed peer .* but connected to|^Payload identity key .* does not match/.test(error.message);

function wrap(connection: Connection): HostConnection {
  return {
    peerId: connection.remotePeer.toString(),
    isRelayed: !connection.direct,
    remoteAddress: connection.remoteAddr.toString(),
    get isOpen() {
      return connection.status === 'open';
    },
    async openStream(protocol, signal) {
      try {
        return byteStream(
          await connection.newStream(protocol, { signal, runOnLimitedConnection: true }),
        );
      } catch (error) {
        throw transportError(error, signal);
      }
    },
    async close() {
      try {
        await connection.close();
      } catch (error) {
        connection.abort(error instanceof Error ? error : new Error(String(error)));
      }
    },
  };
}
