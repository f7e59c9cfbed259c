/**
 * The swarm of this device (docs/protocol/p2p.md): started and stopped with it, with a key of its own
 * from the store, told to the own node for its relay, and its deliveries handed to the receiver.
 */
import { loadSwarmKey, makeSwarmKey } from '@quicprochat/p2p';
import {
  hasReason,
  hex,
  methods,
  TransportError,
  UnavailableError,
  type Runtime,
  type SigningKey,
} from '@quicprochat/proto';
import type { Session } from '../session.ts';
import type { Mailboxes } from '../mailboxes/mailboxes.ts';
import type { Receiver } from '../receiving/receiver.ts';
import type { OutboxEntry } from '../store/outbox-copies.ts';
import type { PeerPath } from '../store/paths.ts';
import type { ClientStore } from '../store/store.ts';
import type { Acquaintances } from './acquaintances.ts';
import type { Endpoints } from './endpoints.ts';
import { GuestPlaces, type GuestPlacesParts } from './guest-places.ts';
import type { PeerDelivery, PeerSwarm } from './peer-swarm.ts';
import { usableRelay } from './usable-relay.ts';

export const peersLimits = {
  /** Wait before a swarm that did not start is tried again (ms). */
  startRetryMs: 60_000,
  /** How often it is looked whether the own record is too old or says something else now (ms). */
  recordMs: 15 * 60_000,
} as const;

export interface PeersParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly swarm: PeerSwarm;
  readonly identityKey: SigningKey;
  /** Takes a message in; see Receiver.receivePeer. */
  readonly receive: Receiver['receivePeer'];
  readonly endpoints: Endpoints;
  readonly acquaintances: Acquaintances;
  /** Absent: relays of the own node alone. */
  readonly guests?: Omit<GuestPlacesParts, keyof OfSwarm> | undefined;
  /** Absent: there are none. */
  readonly mailboxes?: Mailboxes | undefined;
}

/** What places of guests need of the running swarm. */
type OfSwarm = Pick<GuestPlacesParts, 'rules' | 'record' | 'isReserved' | 'onChange'>;

export class Peers {
  readonly #parts: PeersParts;
  readonly #places: GuestPlaces | undefined;
  /** The own node's. */
  #ownRelay: string | undefined;
  #running: PeerDelivery | undefined;
  #starting: Promise<void> = Promise.resolve();
  #session: Session | undefined;
  #timer: { cancel(): void } | undefined;
  #isStopped = false;
  #isStarted = false;

  constructor(parts: PeersParts) {
    this.#parts = parts;
    const { guests, swarm } = parts;
    this.#places =
      guests &&
      new GuestPlaces({
        ...guests,
        rules: () => this.#running && { reach: swarm.reach, ownPeerId: this.#running.peerId },
        record: () => this.#running?.hiddenRecord(),
        isReserved: (relay) =>
          this.#running?.relays.some((one) => one.address === relay && one.isReserved) === true,
        onChange: () => this.#setRelays(),
      });
  }

  /** It is still looked for first places at relays: what the own record says changes in a moment. */
  get isSettling(): boolean {
    return this.#places?.isSettling === true || this.#parts.mailboxes?.isSettling === true;
  }

  /** The own record says which there are. */
  mailboxesChanged(): void {
    const { mailboxes } = this.#parts;
    if (!this.#isStopped && mailboxes !== undefined) this.#running?.setMailboxes(mailboxes.domains);
  }

  /** No effect while it runs. */
  start(): void {
    if (this.#isStarted) return;
    this.#isStarted = true;
    this.#starting = this.#start();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.cancel();
    const { endpoints, acquaintances } = this.#parts;
    await this.#starting;
    await this.#places?.stop();
    await this.#parts.mailboxes?.stop();
    endpoints.gone();
    endpoints.stop();
    acquaintances.stop();
    await this.#running?.[Symbol.asyncDispose]();
    this.#running = undefined;
  }

  networkChanged(): void {
    this.#running?.networkChanged();
    void this.#places?.look();
    this.#parts.mailboxes?.networkChanged();
  }

  /** The own node is there: its relay takes this device once it knows its swarm. */
  follow(session: Session): void {
    this.#session = session;
    void this.#publish();
  }

  /**
   * Hands a copy to its device. Resolves when it is durable there. Throws its typed refusal, or
   * TransportError, `unreachable` when it is not known where the device is.
   */
  async deliver(entry: OutboxEntry, signal: AbortSignal): Promise<PeerPath> {
    const { rid, domain, mid, payload } = entry;
    const record = this.#parts.endpoints.of(hex(rid));
    if (this.#running === undefined || record === undefined) {
      throw new TransportError('unreachable', 'no endpoint record of the device');
    }
    const delivered = await this.#running.deliver(
      { record },
      { rid, domain, mid, payload, ttlS: 0 },
      { signal },
    );
    this.#parts.endpoints.learn(delivered.record);
    return delivered.via;
  }

  async #start(): Promise<void> {
    const { store, runtime, swarm, identityKey, endpoints, acquaintances } = this.#parts;
    if (this.#isStopped) return;
    try {
      const own = store.endpoints.own() ?? this.#makeKey();
      const key = loadSwarmKey(own.seed);
      own.seed.fill(0);
      const running = await swarm.start({
        runtime,
        key,
        device: identityKey,
        lastSeq: own.seq,
        admit: async (from) => {
          await acquaintances.admit(from.device);
          // It may have moved while no node was there to say so.
          endpoints.met(from);
        },
        onDelivery: async ({ from: { device }, request: { mid, payload }, via }) => {
          if (this.#isStopped) throw new UnavailableError('DRAINING', 'this device closes');
          // Somebody may have been blocked, or has left, since Hello.
          await acquaintances.admit(device);
          return this.#parts.receive({ mid, payload, via });
        },
        onRecord: (signed, seq) => {
          endpoints.changed(signed, seq);
          void this.#publish();
          // A relay gave its place, maybe.
          void this.#places?.look();
        },
      });
      this.#running = running;
      this.#refresh(running);
      this.#places?.start();
      this.#parts.mailboxes?.start();
      void this.#publish();
    } catch (error) {
      runtime.log.warn('the swarm does not start', { error: String(error) });
      if (this.#isStopped) return;
      this.#timer = runtime.clock.timer(peersLimits.startRetryMs, () => {
        this.#starting = this.#start();
      });
    }
  }

  /** Asked for, the swarm makes its record anew where that is due. */
  #refresh(running: PeerDelivery): void {
    if (this.#isStopped) return;
    this.#timer = this.#parts.runtime.clock.timer(peersLimits.recordMs, () => {
      running.record();
      this.#refresh(running);
    });
  }

  #makeKey(): { readonly seed: Uint8Array; readonly seq: number } {
    const { store, runtime } = this.#parts;
    const seed = makeSwarmKey(runtime.random).seed();
    store.transaction(() => store.endpoints.putOwn(seed));
    return { seed, seq: 0 };
  }

  /** Never fails: a node without relays has none. */
  async #publish(): Promise<void> {
    const [session, running] = [this.#session, this.#running];
    if (session === undefined || session.signal.aborted || running === undefined) return;
    try {
      // Who has a token of this device may be told its relays (801), and no address of its own.
      const { relays, peers } = await session.call(methods.publishEndpoint, {
        ...{ endpoint: running.hiddenRecord(), isShared: true },
      });
      if (this.#isStopped) return;
      const { reach } = this.#parts.swarm;
      this.#ownRelay = usableRelay(relays, { reach, ownPeerId: running.peerId });
      this.#setRelays();
      this.#offered(peers, session);
    } catch (error) {
      // A node without a swarm names no peers that have one.
      if (hasReason(error, 'FEATURE_OFF', 'UNIMPLEMENTED')) {
        if (!this.#isStopped) this.#offered([], session);
        return;
      }
      this.#parts.runtime.log.debug('endpoint not published', { error: String(error) });
    }
  }

  #offered(domains: readonly string[], session: Session): void {
    this.#places?.offered(domains, session);
    this.#parts.mailboxes?.offered(domains, session);
  }

  #setRelays(): void {
    const own = this.#ownRelay === undefined ? [] : [this.#ownRelay];
    if (this.#isStopped) return;
    this.#running?.setRelays([...own, ...(this.#places?.relays ?? [])]);
  }
}
