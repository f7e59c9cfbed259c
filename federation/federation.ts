/**
 * Federation of one node, put together: a link and two lane senders per peer, the relay inbox, the
 * proxies, and the hello that both sides begin with. The node gives it a store and a transport,
 * hands it the peers' calls, and tells it when there are new rows.
 */
import { PermissionDeniedError, QpcError, type Runtime } from '@quicprochat/proto';
import type {
  FedHelloRequest,
  FedHelloResponseSchema,
  FedRelayRequest,
  MessageInitShape,
  SignedNodeRecord,
} from '@quicprochat/proto/messages';
import type { NodeIdentity, Transport, TransportLimits } from '@quicprochat/proto/transport';
import type { Ceilings } from './ceilings.ts';
import type { EphemeralItemIn } from './ephemeral.ts';
import { checkVersions, Hellos } from './hellos.ts';
import { RelayInbox, type RelayReply } from './inbox.ts';
import type { LinkStatus } from './link.ts';
import type { LaneStatus } from './outbox.ts';
import { PeerPolicy, type FederationMode, type PeersFile } from './policy.ts';
import { HubProxy } from './hub-proxy.ts';
import { KtProxy } from './kt-proxy.ts';
import { PeerNotes } from './peer-notes.ts';
import {
  makePeerParts,
  showsLoss,
  standingOf,
  type LinkService,
  type PeerParts,
  type PeerPartsOptions,
} from './peer-parts.ts';
import { PeerProxy } from './proxy.ts';
import { PeerRecords } from './records.ts';
import { Requeue } from './requeue.ts';
import { Rewinds } from './rewinds.ts';
import type {
  OutboxStore,
  PeerNoteStore,
  PeerRecordStore,
  RelayInboxStore,
  RewindStore,
  LaneName,
} from './store.ts';
import { PeerTrust, trustLimits, type RecordSite } from './trust.ts';

export const federationLimits = {
  /** New keys of peers, and domains that never proved one, are looked after this often (ms). */
  sweepMs: 30_000,
  /** "I am back" hellos of a start: this many at once, all within this time (ms). */
  announceAtOnce: 16,
  announceSpreadMs: 10_000,
  /** ...to peers with rows, and those that were heard within this time (ms) or never. */
  announceHeardMs: 30 * 24 * 3_600_000,
  /** Peers that are not in the peers file, at most. */
  foundPeers: trustLimits.foundMax,
  /** Of them those that have not shown a record yet: anybody can make up domains. */
  unprovenPeers: 1_000,
  lostKeyMs: 72 * 3_600_000,
} as const;

export interface FederationOptions {
  readonly store: OutboxStore & RelayInboxStore & PeerRecordStore & PeerNoteStore & RewindStore;
  readonly transport: Transport;
  readonly transportLimits?: TransportLimits;
  readonly identity: NodeIdentity;
  /** This node's own domain. */
  readonly domain: string;
  readonly peers: PeersFile;
  /** Default: `closed`. */
  readonly mode?: FederationMode;
  /** Asked for records that no known key has signed; undefined: such records are not found. */
  readonly site?: RecordSite;
  /** How long that site must show other keys before they replace lost ones (ms). Default: 72 h. */
  readonly lostKeyMs?: number;
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

export interface PeerStatus extends LinkStatus {
  readonly domain: string;
  readonly lanes: readonly LaneStatus[];
}

/** Of a connection that says hello. */
export interface HelloContext {
  /** It did before, as the same domain. */
  readonly isRepeated?: boolean;
  /** Where it comes from, as far as addresses are told apart (an IPv4 address, an IPv6 /64). */
  readonly address?: string;
}

/** What a new peers file changed. */
export interface ReloadReport {
  readonly added: readonly string[];
  readonly removed: readonly string[];
  /** Rows that were given up because their peer is denied. */
  readonly bouncedRows: number;
}

/** Throws InvalidArgumentError BAD_FIELD when the peers contradict each other or this node. */
export function createFederation(options: FederationOptions): Federation {
  return new Federation(options);
}

export class Federation implements AsyncDisposable {
  /** Look-ups at peers. */
  readonly proxy: PeerProxy;
  /** Look-ups in the key logs of peers. */
  readonly kt: KtProxy;
  /** Hubs of groups at peers. */
  readonly hubs: HubProxy;
  /** Proven NodeRecords of peers. */
  readonly records: PeerRecords;
  readonly #services: LinkService[] = [];
  readonly #options: FederationOptions;
  readonly #inbox: RelayInbox;
  readonly #requeue: Requeue;
  readonly #rewinds: Rewinds;
  readonly #hellos: Hellos;
  readonly #trust: PeerTrust;
  readonly #peers = new Map<string, PeerParts>();
  readonly #stop = new AbortController();
  readonly #notes: PeerNotes;
  #policy: PeerPolicy;
  #isStarted = false;
  #sweeping: Promise<unknown> | undefined;

  constructor(options: FederationOptions) {
    const { store, runtime, kinds, ceilings, site } = options;
    this.#options = options;
    this.#policy = this.#makePolicy(options.peers);
    this.#inbox = new RelayInbox({
      store,
      runtime,
      ...(kinds === undefined ? {} : { kinds }),
      ...(ceilings === undefined ? {} : { ceilings }),
    });
    this.#requeue = new Requeue({ store, runtime, notify: (peer) => this.notify(peer) });
    const { markKey, onRewound = () => {} } = options;
    this.#rewinds = new Rewinds({ store, markKey, runtime, onRewound });
    this.#hellos = new Hellos({ domain: options.domain, store, rewinds: this.#rewinds });
    this.#notes = new PeerNotes(store, runtime, this.#stop.signal);
    this.records = new PeerRecords(store, runtime);
    const policy = (): PeerPolicy => this.#policy;
    const { lostKeyMs = federationLimits.lostKeyMs } = options;
    const heardMs = (domain: string): number => this.#notes.seenMs(domain);
    const { records } = this;
    this.#trust = new PeerTrust({ policy, records, site, lostKeyMs, heardMs, runtime });
    this.records.onRecord((domain) => this.#peers.get(domain)?.link.keysChanged());
    for (const { domain } of this.#policy.peers) this.#ensure(domain);
    this.proxy = new PeerProxy((name) => this.#require(name).link);
    this.kt = new KtProxy((name) => this.#require(name).link);
    this.hubs = new HubProxy((name) => this.#require(name).link);
  }

  /** The peers file and the mode, as of now. */
  get policy(): PeerPolicy {
    return this.#policy;
  }

  /** Before `start`: the service runs over every link from then on, once the record was asked for. */
  attach(service: LinkService): void {
    this.#services.push(service);
  }

  /**
   * Starts the links: every peer with rows, then every other one that was heard within 30 days or
   * never, gets an "I am back" hello at once, so that a peer in back-off sends what it holds. Rows
   * for denied domains are given up. Throws what the store throws.
   */
  async start(): Promise<void> {
    const { store, runtime } = this.#options;
    await this.records.load();
    await this.#bounceDenied();
    const withRows = new Set(await store.peersWithRows());
    for (const domain of [...this.records.found, ...withRows]) this.#ensure(domain);
    await this.#notes.load();
    const parts = [...this.#peers.values()];
    const { announceAtOnce, announceSpreadMs, announceHeardMs } = federationLimits;
    const sinceMs = runtime.clock.now() - announceHeardMs;
    const inTurn = [
      ...parts.filter(({ domain }) => withRows.has(domain)),
      ...parts.filter(({ domain }) => {
        const seenMs = this.#notes.seenMs(domain);
        return !withRows.has(domain) && (seenMs === 0 || seenMs >= sinceMs);
      }),
    ];
    const groups = Math.ceil(inTurn.length / announceAtOnce);
    for (const [index, { domain, link, lanes }] of inTurn.entries()) {
      if (withRows.has(domain)) for (const lane of lanes) lane.notify();
      link.announce((Math.floor(index / announceAtOnce) * announceSpreadMs) / groups);
    }
    this.#isStarted = true;
    for (const one of parts) {
      if (!inTurn.includes(one)) one.asked.resolve();
      this.#run(one);
    }
    this.#sweeping = Promise.all([this.#sweepUntilStopped(), this.#requeue.run(this.#stop.signal)]);
  }

  /** Ends calls in flight, closes the links and waits for running transactions. Idempotent. */
  async stop(): Promise<void> {
    this.#stop.abort();
    const links = Array.from(this.#peers.values(), ({ running }) => running);
    await Promise.all([...links, this.#sweeping, this.#inbox.close()]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /**
   * Takes a new peers file: new peers are greeted, links of those that are gone end, as those with a
   * key that is not listed any more, and rows for denied domains are given up at once. Throws
   * InvalidArgumentError BAD_FIELD when the file contradicts itself (nothing has changed then), and
   * what the store throws.
   */
  async reload(file: PeersFile): Promise<ReloadReport> {
    this.#policy = this.#makePolicy(file);
    const removed: string[] = [];
    for (const { domain, link } of this.#peers.values()) {
      if (this.#policy.allows(domain)) link.keysChanged();
      else removed.push(domain);
    }
    for (const domain of removed) await this.#drop(domain);
    const added: string[] = [];
    for (const { domain } of this.#policy.peers) {
      if (this.#peers.has(domain)) continue;
      added.push(domain);
      this.#ensure(domain)?.link.announce(0);
      this.notify(domain);
    }
    const bouncedRows = await this.#bounceDenied();
    this.#options.runtime.log.info('peers file', {
      peers: this.#policy.peers.length,
      added: added.join(' '),
      removed: removed.join(' '),
      bouncedRows,
    });
    return { added, removed, bouncedRows };
  }

  /** True for a domain that this node federates with. */
  knows(domain: string): boolean {
    if (!this.#policy.allows(domain)) return false;
    return this.#peers.has(domain) || this.#hasRoom;
  }

  /** True when the key of a connection may speak for the domain now. */
  isPinned(domain: string, spkiSha256: Uint8Array): boolean {
    return this.#trust.isPinned(domain, spkiSha256);
  }

  /**
   * The store added rows for the peer, in this lane or nobody knows in which, or a service has work.
   * Unknown domains are ignored.
   */
  notify(domain: string, rowsIn?: LaneName): void {
    const parts = this.#ensure(domain);
    if (parts === undefined) return;
    for (const lane of parts.lanes) {
      if (rowsIn === undefined || lane.name === rowsIn) lane.notify();
    }
    parts.link.notify();
  }

  /** The peer said hello, or the operator asks: dial it now, or see whether its link is alive. */
  wake(domain: string): void {
    this.#ensure(domain)?.link.wake();
  }

  /** Any authenticated call of the peer: it is there, so back-off ends. */
  heard(domain: string): void {
    const parts = this.#peers.get(domain);
    if (parts === undefined) return;
    this.#notes.seen(domain, standingOf(parts));
    this.#trust.spoke(domain).catch((error: unknown) => {
      this.#options.runtime.log.error('peer keys unsaved', { peer: domain, error: String(error) });
    });
    const { state } = parts.link.status();
    if (state === 'backoff' || state === 'suspended') parts.link.wake();
  }

  /**
   * Typing for devices of a peer: sent with others in a quarter of a second, over a link that is up.
   * Never throws; false when it was dropped at once.
   */
  sendEphemeral(domain: string, item: EphemeralItemIn): boolean {
    return this.#peers.get(domain)?.ephemeral.offer(item) ?? false;
  }

  /** Dials every peer that is waited for, now. */
  wakeAll(): void {
    for (const { link } of this.#peers.values()) {
      const { state } = link.status();
      if (state === 'backoff' || state === 'suspended') link.wake();
    }
  }

  /**
   * Answers a FedHello that came over a connection with the key `spkiSha256`; the connection is
   * the peer's from then on; `isRepeated`: it was before. A key that is not known for the claimed domain is looked for in the
   * record that the domain's own site shows. Throws PermissionDeniedError PEER_DENIED when it is not
   * there, UnavailableError PEER_UNREACHABLE when the site was not reached, FailedPreconditionError
   * VERSION without a common version.
   */
  async acceptHello(
    spkiSha256: Uint8Array,
    request: FedHelloRequest,
    { isRepeated = false, address = '' }: HelloContext = {},
  ): Promise<MessageInitShape<typeof FedHelloResponseSchema>> {
    const { log } = this.#options.runtime;
    const { domain } = request;
    await this.#learn(domain, spkiSha256, address);
    if (!this.isPinned(domain, spkiSha256)) {
      const pin = Buffer.from(spkiSha256).toString('base64url');
      log.warn('hello refused', { peer: domain, pin, reason: 'PEER_DENIED' });
      throw new PermissionDeniedError('PEER_DENIED', 'this node does not know you by that key');
    }
    await this.#trust.spoke(domain);
    try {
      checkVersions(request);
    } catch (error) {
      const { versionMin, versionMax } = request;
      log.warn('hello refused', { peer: domain, reason: 'VERSION', versionMin, versionMax });
      throw error;
    }
    // First of all: what follows must be said by a store that knows what it is.
    await this.#hellos.hear(domain, request);
    const answer = await this.#hellos.answer(domain, this.#inbox.credit(domain, 'bulk'));
    // A hello over a known connection is the peer's own look whether we are there: looking back would
    // make it look again, for ever.
    if (!isRepeated) this.wake(domain);
    const parts = this.#ensure(domain);
    if (parts !== undefined) {
      this.#notes.seen(domain, standingOf(parts));
      if (!isRepeated && (await showsLoss(parts, request))) parts.link.announce(0);
    }
    return answer;
  }

  /** Answers a FedRelay of an authenticated peer; errors are those of `RelayInbox.relay`. */
  async relay(domain: string, request: FedRelayRequest): Promise<RelayReply> {
    this.#require(domain);
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
    return Array.from(this.#peers.values(), ({ domain, link, lanes }) => ({
      domain,
      ...link.status(),
      lanes: lanes.map((lane) => lane.status()),
    }));
  }

  #require(domain: string): PeerParts {
    const parts = this.#ensure(domain);
    if (parts !== undefined) return parts;
    throw new PermissionDeniedError('PEER_DENIED', `this node does not federate with ${domain}`);
  }

  #makePolicy(file: PeersFile): PeerPolicy {
    const { domain, identity, mode } = this.#options;
    return new PeerPolicy(file, { domain, pin: identity.spkiSha256 }, mode);
  }

  /** For one more peer that is not in the peers file. */
  get #hasRoom(): boolean {
    const { foundPeers, unprovenPeers } = federationLimits;
    const found = [...this.#peers.keys()].filter((domain) => !this.#isListed(domain));
    const unproven = found.filter((domain) => this.records.get(domain) === undefined);
    return found.length < foundPeers && unproven.length < unprovenPeers;
  }

  #isListed(domain: string): boolean {
    return this.#policy.peer(domain) !== undefined;
  }

  /** Domains that never showed a record, and for which nothing waits. */
  async #forgetUnproven(): Promise<void> {
    for (const { domain, lanes } of this.#peers.values()) {
      const isKnown = this.#isListed(domain) || this.records.get(domain) !== undefined;
      if (!isKnown && lanes.every((lane) => lane.isIdle)) await this.#drop(domain);
    }
  }

  /** The parts of a peer, made when it may be one; undefined when it may not. */
  #ensure(domain: string): PeerParts | undefined {
    const found = this.#peers.get(domain);
    if (found !== undefined) return found;
    if (!this.#policy.allows(domain)) return undefined;
    if (!this.#isListed(domain) && !this.#hasRoom) return undefined;
    const parts = makePeerParts(domain, this.#partsOptions());
    this.#peers.set(domain, parts);
    if (this.#isStarted) this.#run(parts);
    return parts;
  }

  #partsOptions(): PeerPartsOptions {
    return {
      ...this.#options,
      trust: this.#trust,
      rewinds: this.#rewinds,
      hellos: this.#hellos,
      notes: this.#notes,
      services: this.#services,
      wake: (domain) => this.wake(domain),
      noteDeferred: () => this.#requeue.noteDeferred(),
    };
  }

  #run(parts: PeerParts): void {
    parts.running = parts.link.run(AbortSignal.any([this.#stop.signal, parts.stop.signal]));
  }

  async #drop(domain: string): Promise<void> {
    const parts = this.#peers.get(domain);
    this.#peers.delete(domain);
    parts?.stop.abort();
    parts?.asked.resolve();
    await parts?.running;
  }

  /** Rows for denied domains can never be sent. Returns how many there were. */
  async #bounceDenied(): Promise<number> {
    const { store } = this.#options;
    let rows = 0;
    for (const { domain } of await store.peerNotes()) {
      if (this.#policy.judge(domain) !== 'denied') continue;
      for (let some = -1; some !== 0;) {
        some = await store.bouncePeer(domain);
        rows += some;
      }
    }
    return rows;
  }

  /** An unknown key claims a domain: does the domain's own site know it? */
  async #learn(domain: string, spkiSha256: Uint8Array, address: string): Promise<void> {
    const { site } = this.#options;
    if (site === undefined || this.isPinned(domain, spkiSha256)) return;
    if (!this.#policy.allows(domain) || this.#policy.isDeniedKey(spkiSha256)) return;
    const isKnown = this.#trust.peer(domain).pins.length > 0;
    try {
      await this.#trust.discover(domain, address);
    } catch (error) {
      // Of a domain with known keys this one is refused for good, not for now.
      if (!isKnown) throw error;
    }
  }

  async #sweepUntilStopped(): Promise<void> {
    const { runtime } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        await this.#trust.watchCandidates();
        await this.#forgetUnproven();
      } catch (error) {
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        runtime.log.error('peer sweep failed', { reason, error: String(error) });
      }
      // The only rejection is our own stop.
      await runtime.clock.sleep(federationLimits.sweepMs, signal).catch(() => undefined);
    }
  }
}
