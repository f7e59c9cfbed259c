/**
 * Places at relays of other nodes (docs/protocol/p2p.md, "Relays"): nodes that the own one peers with take
 * this device as a guest, so that contacts reach it over them while its own node is dead. Two at a time, each
 * by a connection that carries nothing else; they are in the store, so that a device that starts while
 * its node is away goes back to where its contacts look for it.
 */
import {
  call,
  FailedPreconditionError,
  hasReason,
  jitter,
  methods,
  QpcError,
  sameBytes,
  Status,
  TransportError,
  type Runtime,
  type Timer,
} from '@quicprochat/proto';
import type { NodeRecord, SignedEndpointRecord } from '@quicprochat/proto/messages';
import { makeIdentity, type Transport } from '@quicprochat/proto/transport';
import { knownRecordOf, nodeAddressIn } from '../kt/log-record.ts';
import { overConnection } from '../dial.ts';
import { inTime } from '../in-time.ts';
import type { Session } from '../session.ts';
import type { RelayPlaceRow } from '../store/endpoint-rows.ts';
import type { ClientStore } from '../store/store.ts';
import { inOwnOrder, nodeRecordOf } from './node-word.ts';
import { usableRelay, type RelayRules } from './usable-relay.ts';

export const guestPlaceLimits = {
  places: 2,
  /** Peers of the own node that are thought of. */
  candidates: 64,
  /** Between two looks whether all places stand (ms), and half as much at random. */
  lookMs: 20_000,
  /** A node that stands by is told again after this time, so that the place does not run out (ms). */
  againMs: 24 * 3_600_000,
  /** First and longest wait after a node did not give a place (ms). */
  retryMinMs: 2_000,
  retryMaxMs: 3_600_000,
  /** The same where this device has its place, which a node that starts again has forgotten (ms). */
  heldRetryMs: 40_000,
  /** A place that did not stand for so long is given up for another one (ms). */
  lostMs: 30 * 60_000,
  /** One question to a node, dial included (ms). */
  callMs: 15_000,
  /** So long after the start a device is looking for its first places (ms). */
  settleMs: 10_000,
} as const;

export interface GuestPlacesParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly transport: Transport;
  readonly ownDomain: string;
  /** This device (32 bytes): which of many nodes it takes. */
  readonly rid: Uint8Array;
  /** What addresses of relays may be, and which is none; undefined while the swarm does not run. */
  readonly rules: () => RelayRules | undefined;
  /** The own user's credential (KT), if the log made one. */
  readonly credential: () => Uint8Array | undefined;
  /** Gets a new one from the own node. It is made once a day, and a node may not have cosigned what the old one stands on. */
  readonly renewCredential: (signal: AbortSignal) => Promise<void>;
  /** The own record without direct addresses; undefined like the rules. */
  readonly record: () => SignedEndpointRecord | undefined;
  readonly isReserved: (relay: string) => boolean;
  /** There are other places. */
  readonly onChange: () => void;
}

interface Place extends RelayPlaceRow {
  /** It stood then, or was given then (monotonic ms). */
  stoodMs: number;
  /** The node was told in this run. */
  toldMs: number | undefined;
}

/** Of a node that gave no place. */
interface Rest {
  readonly failures: number;
  readonly untilMs: number;
}

/** Nobody is there, or the node has no time: that says nothing of whether it wants this device. */
function isForNow(error: QpcError): boolean {
  if (error instanceof TransportError) return true;
  switch (error.status) {
    case Status.ResourceExhausted:
      return !hasReason(error, 'QUOTA');
    case Status.Unavailable:
    case Status.DeadlineExceeded:
    case Status.Internal:
      return true;
    default:
      return false;
  }
}

export class GuestPlaces {
  readonly #parts: GuestPlacesParts;
  readonly #places = new Map<string, Place>();
  readonly #rests = new Map<string, Rest>();
  readonly #ended = new AbortController();
  /** Domains of the own node's peers, as it says. */
  #offered: readonly string[] = [];
  #session: Session | undefined;
  #timer: Timer | undefined;
  #running: Promise<void> | undefined;
  #hasNews = false;
  #settledMs = 0;
  #isSettled = false;

  constructor(parts: GuestPlacesParts) {
    this.#parts = parts;
  }

  /** The swarm runs. */
  start(): void {
    const { store, runtime } = this.#parts;
    const nowMs = runtime.clock.monotonic();
    this.#settledMs = nowMs + guestPlaceLimits.settleMs;
    for (const place of store.endpoints.places().slice(0, guestPlaceLimits.places)) {
      this.#places.set(place.domain, { ...place, stoodMs: nowMs, toldMs: undefined });
    }
    if (this.#places.size > 0) this.#parts.onChange();
    void this.look();
  }

  async stop(): Promise<void> {
    this.#ended.abort(new TransportError('closed', 'guest places: stopped'));
    this.#timer?.cancel();
    await this.#running;
  }

  /** Addresses of the relays that gave places, each with its peer id. */
  get relays(): readonly string[] {
    return [...this.#places.values()].map(({ relay }) => relay);
  }

  /** The first places are still looked for. */
  get isSettling(): boolean {
    return !this.#isSettled && this.#parts.runtime.clock.monotonic() < this.#settledMs;
  }

  /** The own node names its peers. */
  offered(domains: readonly string[], session: Session): void {
    this.#session = session;
    const { ownDomain, rid } = this.#parts;
    const { candidates: max } = guestPlaceLimits;
    this.#offered = inOwnOrder(domains, { rid, ownDomain, max });
    for (const domain of this.#rests.keys()) {
      if (!this.#offered.includes(domain) && !this.#places.has(domain)) this.#rests.delete(domain);
    }
    // A round that is under way has not heard of them, maybe.
    this.#hasNews = true;
    void this.look();
  }

  /** Something has changed: places are looked at now. Resolves when that is done; never fails. */
  async look(): Promise<void> {
    if (this.#ended.signal.aborted) return;
    if (this.#running !== undefined) return this.#running;
    this.#timer?.cancel();
    this.#hasNews = false;
    this.#running = this.#round()
      .catch((error: unknown) => {
        this.#parts.runtime.log.error('guest places', { error: String(error) });
      })
      .finally(() => {
        this.#running = undefined;
        if (this.#hasNews) void this.look();
        else this.#plan();
      });
    return this.#running;
  }

  #plan(): void {
    if (this.#ended.signal.aborted) return;
    const { clock, random } = this.#parts.runtime;
    const { lookMs } = guestPlaceLimits;
    const nowMs = clock.monotonic();
    const untilMs = [...this.#rests.values()]
      .map((rest) => rest.untilMs)
      .filter((at) => at > nowMs);
    const nextMs = Math.min(lookMs, ...untilMs.map((at) => at - nowMs));
    this.#timer = clock.timer(nextMs + jitter(random, nextMs / 2), () => void this.look());
  }

  async #round(): Promise<void> {
    const { runtime, record, isReserved } = this.#parts;
    const { clock } = runtime;
    if (record() === undefined) return;
    const { places, againMs } = guestPlaceLimits;
    for (const place of this.#places.values()) {
      if (this.#ended.signal.aborted) return;
      const nowMs = clock.monotonic();
      const stands = isReserved(place.relay);
      const { toldMs } = place;
      const isOld = toldMs === undefined || nowMs - toldMs >= againMs;
      if (stands) {
        place.stoodMs = nowMs;
        // A node that would not be asked again yet is not, though the place stands.
        if (!isOld) this.#rests.delete(place.domain);
      }
      const isDue = isOld || !stands;
      if (isDue && !this.#isResting(place.domain)) await this.#tell(place.domain, place.record);
    }
    this.#giveUp();
    for (const domain of this.#offered) {
      if (this.#ended.signal.aborted || this.#places.size >= places) break;
      if (this.#places.has(domain) || this.#isResting(domain)) continue;
      const node = await this.#recordOf(domain);
      if (node !== undefined) await this.#tell(domain, node);
    }
    const all = [...this.#places.values()];
    // Who gave none is asked again later, and nobody waits for that.
    const isThrough =
      all.length >= places ||
      this.#offered.every((domain) => this.#places.has(domain) || this.#isResting(domain));
    const isAsked = this.#session !== undefined || all.length > 0;
    this.#isSettled ||= isAsked && isThrough && all.every(({ relay }) => isReserved(relay));
  }

  #isResting(domain: string): boolean {
    const untilMs = this.#rests.get(domain)?.untilMs;
    return untilMs !== undefined && untilMs > this.#parts.runtime.clock.monotonic();
  }

  #rest(domain: string, atLeastMs = 0): void {
    const { clock, random } = this.#parts.runtime;
    const { retryMinMs, retryMaxMs, heldRetryMs } = guestPlaceLimits;
    const capMs = this.#places.has(domain) ? heldRetryMs : retryMaxMs;
    const failures = (this.#rests.get(domain)?.failures ?? 0) + 1;
    const boundMs = Math.min(capMs, retryMinMs * 2 ** Math.min(failures - 1, 16));
    // Whatever a node says: for no longer than where it gave none.
    const leastMs = Math.max(Math.min(atLeastMs, retryMaxMs), boundMs / 2);
    const waitMs = leastMs + jitter(random, boundMs / 2);
    this.#rests.set(domain, { failures, untilMs: clock.monotonic() + waitMs });
  }

  /** What did not stand for long makes room, if there is somebody else. */
  #giveUp(): void {
    const nowMs = this.#parts.runtime.clock.monotonic();
    for (const { domain, stoodMs } of this.#places.values()) {
      const isLost = nowMs - stoodMs >= guestPlaceLimits.lostMs;
      const hasOther = this.#offered.some((one) => !this.#places.has(one) && !this.#isResting(one));
      if (isLost && hasOther) this.#drop(domain);
    }
  }

  /** The own node's word on it will do: a liar would only learn what it knows already. */
  async #recordOf(domain: string): Promise<Uint8Array | undefined> {
    const { store, runtime } = this.#parts;
    const record = await nodeRecordOf(domain, this.#session, { store, clock: runtime.clock });
    if (record === undefined) this.#rest(domain);
    return record;
  }

  /** Asks a node for a place. Never fails for what the node does. */
  async #tell(domain: string, bytes: Uint8Array): Promise<void> {
    const { store, runtime } = this.#parts;
    const { clock, log } = runtime;
    const [endpoint, credential] = [this.#parts.record(), this.#parts.credential()];
    if (endpoint === undefined || credential === undefined) return this.#rest(domain);
    const { record: node } = knownRecordOf(bytes);
    try {
      const named = await this.#ask(node, endpoint, credential).catch(async (error: unknown) => {
        const renewed = hasReason(error, 'BLOCKED') ? await this.#renewed(credential) : undefined;
        if (renewed === undefined) throw error;
        return this.#ask(node, endpoint, renewed);
      });
      const relay = this.#relayOf(node, named);
      const isNews = this.#places.get(domain)?.relay !== relay;
      const nowMs = clock.monotonic();
      const stoodMs = this.#places.get(domain)?.stoodMs ?? nowMs;
      store.transaction(() => store.endpoints.putPlace({ domain, record: bytes, relay }));
      this.#places.set(domain, { domain, record: bytes, relay, stoodMs, toldMs: nowMs });
      // One that says yes and gives nothing is asked again at rest, and given up in the end.
      if (this.#parts.isReserved(relay)) this.#rests.delete(domain);
      else this.#rest(domain, guestPlaceLimits.lookMs);
      if (isNews) log.debug('guest at a relay', { domain });
      this.#parts.onChange();
    } catch (error) {
      if (!(error instanceof QpcError)) throw error;
      log.debug('no guest at a relay', { domain, reason: error.reason });
      if (!isForNow(error)) this.#drop(domain);
      this.#rest(domain, error.retryAfterMs);
    }
    return undefined;
  }

  /** Another credential than this one, which says nothing to a node; undefined where there is none now. Never fails. */
  async #renewed(credential: Uint8Array): Promise<Uint8Array | undefined> {
    const { runtime, renewCredential } = this.#parts;
    if (this.#session === undefined || this.#session.signal.aborted) return undefined;
    try {
      await inTime(runtime.clock, guestPlaceLimits.callMs, this.#ended.signal, renewCredential);
    } catch (error) {
      runtime.log.debug('no new credential', { error: String(error) });
    }
    const now = this.#parts.credential();
    return now === undefined || sameBytes(now, credential) ? undefined : now;
  }

  #relayOf({ swarm }: NodeRecord, named: readonly string[]): string {
    const rules = this.#parts.rules();
    const relay =
      rules === undefined || swarm === undefined
        ? undefined
        : usableRelay(named, { ...rules, swarmKey: swarm.swarmKey });
    if (relay !== undefined) return relay;
    throw new FailedPreconditionError('FEATURE_OFF', 'the node names no relay of its own');
  }

  /** Over a connection of its own: others of this device say nothing of who it is. */
  async #ask(
    node: NodeRecord,
    endpoint: SignedEndpointRecord,
    credential: Uint8Array,
  ): Promise<readonly string[]> {
    const { runtime, transport } = this.#parts;
    const nodeAddress = nodeAddressIn(node, runtime.clock.now());
    if (nodeAddress === undefined)
      throw new TransportError('unreachable', 'no address of the node');
    const request = { endpoint, credential };
    return inTime(runtime.clock, guestPlaceLimits.callMs, this.#ended.signal, async (signal) => {
      const identity = await makeIdentity(runtime.random);
      return overConnection(
        { runtime, transport, nodeAddress, identity },
        async (connection) => {
          const { relays } = await call(connection, methods.publishEndpoint, request, { signal });
          return relays;
        },
        signal,
      );
    });
  }

  #drop(domain: string): void {
    const { store, onChange } = this.#parts;
    if (!this.#places.delete(domain)) return;
    store.transaction(() => store.endpoints.deletePlace(domain));
    onChange();
  }
}
