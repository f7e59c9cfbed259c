/**
 * Federation of one node, put together: a link and two lane senders per peer, the relay inbox, the
 * proxies, and the hello that both sides begin with. The node gives it a store and a transport,
 * hands it the peers' calls, and tells it when there are new rows.
 */
import {
  FailedPreconditionError,
  PermissionDeniedError,
  QpcError,
  type Runtime,
} from '@quicprochat/proto';
import type {
  FedHelloRequest,
  FedHelloRequestSchema,
  FedHelloResponse,
  FedHelloResponseSchema,
  FedRelayRequest,
  MessageInitShape,
  SignedNodeRecord,
} from '@quicprochat/proto/messages';
import {
  defaultLimits,
  type NodeIdentity,
  type Transport,
  type TransportLimits,
} from '@quicprochat/proto/transport';
import type { Ceilings } from './ceilings.ts';
import { inOrder, RelayInbox, type RelayReply } from './inbox.ts';
import { laneNames, streamToWire } from './lane.ts';
import { PeerLink, type LinkStatus } from './link.ts';
import type { LinkSession } from './link-session.ts';
import { LaneSender, type LaneStatus } from './outbox.ts';
import { PeerPolicy, type Peer, type PeersFile } from './policy.ts';
import { KtProxy } from './kt-proxy.ts';
import { PeerProxy } from './proxy.ts';
import { PeerRecords } from './records.ts';
import { Rewinds } from './rewinds.ts';
import type { WireMark } from './store-mark.ts';
import type { OutboxStore, PeerRecordStore, RelayInboxStore, RewindStore } from './store.ts';

/** Version of the node-to-node protocol that this code speaks. */
export const federationVersion = 1;

export const federationLimits = {
  /** Due deferred rows and rows past their age are looked for this often (ms). */
  sweepMs: 30_000,
  /** "I am back" hellos of a start: this many at once, all within this time (ms). */
  announceAtOnce: 16,
  announceSpreadMs: 10_000,
} as const;

export interface FederationOptions {
  readonly store: OutboxStore & RelayInboxStore & PeerRecordStore & RewindStore;
  readonly transport: Transport;
  readonly transportLimits?: TransportLimits;
  readonly identity: NodeIdentity;
  /** This node's own domain. */
  readonly domain: string;
  readonly peers: PeersFile;
  /** Key of what this node says of its store (32 bytes); the same in every copy of the store. */
  readonly markKey: Uint8Array;
  /** A peer remembers more than this store has: its id is new, and cursors of clients are void. */
  readonly onRewound?: () => void;
  readonly runtime: Runtime;
  /** Row kinds taken from peers; others are rejected for now. Default: envelopes. */
  readonly kinds?: ReadonlySet<number>;
  /** What one peer may cost this node. */
  readonly ceilings?: Partial<Ceilings>;
}

/** What runs over the links beside the rows. */
export interface LinkService {
  /** True while the peer is worth dialing for it. */
  hasWork(domain: string): boolean;
  /** Runs while the link is up and returns once the session's signal is aborted. Never throws. */
  serve(domain: string, session: LinkSession): Promise<void>;
}

export interface PeerStatus extends LinkStatus {
  readonly domain: string;
  readonly lanes: readonly LaneStatus[];
}

/** Fields of a hello, and of its answer, about both stores. */
type HelloWords = WireMark &
  Pick<FedHelloRequest, 'remembersStoreId' | 'remembersCounter' | 'remembersProof'>;

interface PeerParts {
  readonly peer: Peer;
  readonly link: PeerLink;
  readonly lanes: readonly LaneSender[];
  /** The peer was asked what it remembers, or could not be. */
  readonly asked: PromiseWithResolvers<void>;
}

/** Throws InvalidArgumentError BAD_FIELD when the peers contradict each other or this node. */
export function createFederation(options: FederationOptions): Federation {
  return new Federation(options);
}

export class Federation implements AsyncDisposable {
  readonly policy: PeerPolicy;
  /** Look-ups at peers. */
  readonly proxy: PeerProxy;
  /** Look-ups in the key logs of peers. */
  readonly kt: KtProxy;
  /** Proven NodeRecords of peers. */
  readonly records: PeerRecords;
  readonly #services: LinkService[] = [];
  readonly #options: FederationOptions;
  readonly #inbox: RelayInbox;
  readonly #rewinds: Rewinds;
  readonly #peers = new Map<string, PeerParts>();
  readonly #stop = new AbortController();
  #running: Promise<unknown> | undefined;

  constructor(options: FederationOptions) {
    const { domain, identity, peers, store, runtime, kinds, ceilings } = options;
    this.#options = options;
    this.policy = new PeerPolicy(peers, { domain, pin: identity.spkiSha256 });
    this.#inbox = new RelayInbox({
      store,
      runtime,
      ...(kinds === undefined ? {} : { kinds }),
      ...(ceilings === undefined ? {} : { ceilings }),
    });
    const { markKey, onRewound = () => {} } = options;
    this.#rewinds = new Rewinds({ store, markKey, runtime, onRewound });
    for (const peer of this.policy.peers) this.#peers.set(peer.domain, this.#makeParts(peer));
    this.proxy = new PeerProxy((name) => this.#require(name).link);
    this.kt = new KtProxy((name) => this.#require(name).link);
    this.records = new PeerRecords(store, runtime);
  }

  /** Before `start`: the service runs over every link from then on, once the record was asked for. */
  attach(service: LinkService): void {
    this.#services.push(service);
  }

  /**
   * Starts the links: every peer with rows, then every other one, gets an "I am back" hello at
   * once, so that a peer in back-off sends what it holds. Throws what the store throws.
   */
  async start(): Promise<void> {
    await this.records.load();
    const withRows = new Set(await this.#options.store.peersWithRows());
    const parts = [...this.#peers.values()];
    const inTurn = [
      ...parts.filter(({ peer }) => withRows.has(peer.domain)),
      ...parts.filter(({ peer }) => !withRows.has(peer.domain)),
    ];
    const { announceAtOnce, announceSpreadMs } = federationLimits;
    const groups = Math.ceil(inTurn.length / announceAtOnce);
    const runs = inTurn.map(({ peer, link, lanes }, index) => {
      if (withRows.has(peer.domain)) for (const lane of lanes) lane.notify();
      link.announce((Math.floor(index / announceAtOnce) * announceSpreadMs) / groups);
      return link.run(this.#stop.signal);
    });
    this.#running = Promise.all([...runs, this.#sweepUntilStopped()]);
  }

  /** Ends calls in flight, closes the links and waits for running transactions. Idempotent. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#running, this.#inbox.close()]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** True for a domain that this node federates with. */
  knows(domain: string): boolean {
    return this.#peers.has(domain);
  }

  /** The store added rows for the peer, or a service has work. Unknown domains are ignored. */
  notify(domain: string): void {
    const parts = this.#peers.get(domain);
    if (parts === undefined) return;
    for (const lane of parts.lanes) lane.notify();
    parts.link.notify();
  }

  /** The peer was heard (its pinned key on a connection) or the operator asks: dial it now. */
  wake(domain: string): void {
    this.#peers.get(domain)?.link.wake();
  }

  /**
   * Answers a FedHello that came over a connection with the key `spkiSha256`; the connection is
   * the peer's from then on. Throws PermissionDeniedError PEER_DENIED when the key is not pinned
   * for the claimed domain, FailedPreconditionError VERSION without a common version.
   */
  async acceptHello(
    spkiSha256: Uint8Array,
    request: FedHelloRequest,
  ): Promise<MessageInitShape<typeof FedHelloResponseSchema>> {
    const { log } = this.#options.runtime;
    const { domain } = request;
    if (!this.policy.isPinned(domain, spkiSha256)) {
      const pin = Buffer.from(spkiSha256).toString('base64url');
      log.warn('hello refused', { peer: domain, pin, reason: 'PEER_DENIED' });
      throw new PermissionDeniedError('PEER_DENIED', 'this node does not know you by that key');
    }
    const { versionMin, versionMax } = request;
    if (versionMin > federationVersion || versionMax < federationVersion) {
      log.warn('hello refused', { peer: domain, reason: 'VERSION', versionMin, versionMax });
      throw new FailedPreconditionError('VERSION', `this node speaks version ${federationVersion}`);
    }
    // First of all: what follows must be said by a store that knows what it is.
    await this.#hear(domain, request);
    const streams = inOrder(await this.#options.store.inboundStreams(domain));
    const words = await this.#words(domain);
    this.wake(domain);
    return {
      domain: this.#options.domain,
      version: federationVersion,
      streams: streams.map(streamToWire),
      ...words,
      ...this.#inbox.credit(domain, 'bulk'),
    };
  }

  /** Answers a FedRelay of an authenticated peer; errors are those of `RelayInbox.relay`. */
  async relay(domain: string, request: FedRelayRequest): Promise<RelayReply> {
    const { link } = this.#require(domain);
    if (link.status().state !== 'active') link.wake();
    const reply = await this.#inbox.relay(domain, request);
    return { ...reply, ...(await this.#rewinds.forReply(domain)) };
  }

  /**
   * Resolves when every peer was asked what it remembers of this node, or could not be reached, and
   * after `maxMs` in any case: until then the store may be an older copy that does not know it yet.
   */
  async asked(maxMs: number): Promise<void> {
    const enough = new AbortController();
    const all = Promise.all(Array.from(this.#peers.values(), ({ asked }) => asked.promise));
    const limit = this.#options.runtime.clock.sleep(maxMs, enough.signal).catch(() => undefined);
    await Promise.race([all, limit]);
    enough.abort();
  }

  /** The newest proven NodeRecord of a peer, as it was signed; undefined when none was seen yet. */
  record(domain: string): SignedNodeRecord | undefined {
    return this.records.get(domain)?.signed;
  }

  status(): readonly PeerStatus[] {
    return Array.from(this.#peers.values(), ({ peer, link, lanes }) => ({
      domain: peer.domain,
      ...link.status(),
      lanes: lanes.map((lane) => lane.status()),
    }));
  }

  #require(domain: string): PeerParts {
    const parts = this.#peers.get(domain);
    if (parts !== undefined) return parts;
    throw new PermissionDeniedError('PEER_DENIED', `this node does not federate with ${domain}`);
  }

  #makeParts(peer: Peer): PeerParts {
    const { store, runtime, transport, transportLimits, identity } = this.#options;
    const { domain } = peer;
    const asked = Promise.withResolvers<void>();
    const onMark = (mark: WireMark): Promise<void> => this.#rewinds.hearReply(domain, mark);
    const lanes = laneNames.map(
      (lane) => new LaneSender({ peer: domain, lane, store, runtime, onMark }),
    );
    const link = new PeerLink({
      peer,
      transport,
      transportLimits: transportLimits ?? defaultLimits,
      identity,
      runtime,
      loadState: () => store.peerState(domain),
      saveState: (state) => store.setPeerState(domain, state),
      makeHello: () => this.#makeHello(domain),
      checkHello: (hello) => checkHello(hello, domain),
      onUndialed: () => asked.resolve(),
      hasWork: () =>
        lanes.some((lane) => !lane.isIdle) ||
        this.#services.some((service) => service.hasWork(domain)),
      serve: async (session) => {
        await this.#hear(domain, session.hello).catch((error: unknown) => session.end(error));
        asked.resolve();
        await Promise.all([serveLanes(lanes, session), this.#serveRest(peer, session)]);
      },
    });
    return { peer, link, lanes, asked };
  }

  async #serveRest(peer: Peer, session: LinkSession): Promise<void> {
    await this.records.refresh(peer, session);
    await Promise.all(this.#services.map((service) => service.serve(peer.domain, session)));
  }

  async #makeHello(peer: string): Promise<MessageInitShape<typeof FedHelloRequestSchema>> {
    const streams = inOrder(await this.#options.store.inboundStreams(peer));
    return {
      domain: this.#options.domain,
      versionMin: federationVersion,
      versionMax: federationVersion,
      streams: streams.map(streamToWire),
      ...(await this.#words(peer)),
    };
  }

  /** Throws what the store throws. */
  #hear(peer: string, hello: FedHelloRequest | FedHelloResponse): Promise<void> {
    return this.#rewinds.hear(peer, {
      own: hello,
      remembers: {
        storeId: hello.remembersStoreId,
        counter: hello.remembersCounter,
        proof: hello.remembersProof,
      },
    });
  }

  async #words(peer: string): Promise<HelloWords> {
    const { own, remembers } = await this.#rewinds.words(peer);
    return {
      ...own,
      remembersStoreId: remembers.storeId,
      remembersCounter: remembers.counter,
      remembersProof: remembers.proof,
    };
  }

  async #sweepUntilStopped(): Promise<void> {
    const { store, runtime } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        const { requeuedPeers, deadRows } = await store.requeueDue();
        for (const peer of requeuedPeers) this.notify(peer);
        if (deadRows > 0) runtime.log.warn('outbox rows expired', { rows: deadRows });
      } catch (error) {
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        runtime.log.error('outbox sweep failed', { reason, error: String(error) });
      }
      // The only rejection is our own stop.
      await runtime.clock.sleep(federationLimits.sweepMs, signal).catch(() => undefined);
    }
  }
}

/** Both lanes until the session ends; the error of one ends it for both. */
async function serveLanes(lanes: readonly LaneSender[], session: LinkSession): Promise<void> {
  await Promise.all(
    lanes.map((lane) => lane.run(session).catch((error: unknown) => session.end(error))),
  );
}

function checkHello(hello: FedHelloResponse, domain: string): void {
  if (hello.domain !== domain) {
    throw new PermissionDeniedError(
      'PEER_DENIED',
      `the node there says it is ${hello.domain.slice(0, 64)}`,
    );
  }
  if (hello.version !== federationVersion) {
    throw new FailedPreconditionError('VERSION', `the peer speaks version ${hello.version}`);
  }
}
