/**
 * The sending side of `/qpc/deliver/1`: one long stream for each connection, dialed by the order of
 * docs/protocol/p2p.md, and the first that answers Hello wins. That a dial succeeds means nothing;
 * only the answered Enqueue does.
 */
import {
  call,
  methods,
  QpcError,
  TransportError,
  UnauthenticatedError,
  type Clock,
  type Runtime,
} from '@quicprochat/proto';
import {
  Outcome,
  type MessageInitShape,
  type SignedEndpointRecord,
} from '@quicprochat/proto/messages';
import type { EnqueueRequestSchema } from '@quicprochat/proto/messages';
import { deliverProtocol, deliverVersion, pathOf, type DeliveryPath } from './deliver-server.ts';
import { verifyEndpointRecord, type EndpointRecord } from './endpoint-record.ts';
import { FrameCaller } from './frame-call.ts';
import type { Host, HostConnection } from './host.ts';
import { parseSwarmAddress, type Reach } from './swarm-address.ts';

export const deliverClientLimits = {
  /** All of finding a way to a device (ms). */
  budgetMs: 10_000,
  /** What a slower kind of way waits for the faster one (ms). */
  dialAfterMs: 500,
  tcpAfterMs: 250,
  relayAfterMs: 1_000,
  /** Relays of one device tried at once. */
  relaysAtOnce: 2,
  /** One answer (ms); the receiver commits before it. */
  answerMs: 30_000,
  /** The same over a relay, which may drop what it is given; then another way is looked for. */
  relayedAnswerMs: 4_000,
  /** A link without calls ends (ms). */
  idleMs: 5 * 60_000,
  /** A link over a relay tries for a direct one at most this often (ms). */
  upgradeMs: 60_000,
  links: 512,
} as const;

/** Whom to reach: a checked record of the device; other addresses known of it go first. */
export interface Destination {
  readonly record: EndpointRecord;
  /** Of the local network, in the form of swarm-address.ts. */
  readonly lan?: readonly string[];
}

/** What came of a delivery. */
export interface Delivered {
  readonly via: DeliveryPath;
  /** True when the receiver had the message already. */
  readonly isDuplicate: boolean;
  /** The receiver's newest record, for the cache; of the same device, checked. */
  readonly record: EndpointRecord;
}

export interface DeliverClientOptions {
  readonly runtime: Runtime;
  /** This device's own record: what it proves in Hello. */
  readonly record: () => SignedEndpointRecord;
  readonly reach: readonly Reach[];
  /** Never dials devices directly: their side would learn where this one is. */
  readonly relayOnly: boolean;
}

/** An answered Hello. */
interface Link {
  readonly connection: HostConnection;
  readonly caller: FrameCaller;
  readonly record: EndpointRecord;
  usedMs: number;
  triedDirectMs: number;
}

export class DeliverClient {
  readonly #host: Host;
  readonly #options: DeliverClientOptions;
  readonly #links = new Map<string, Link>();
  readonly #opening = new Map<string, Promise<Link>>();
  readonly #ended = new AbortController();
  #sweep: { cancel(): void } | undefined;

  constructor(host: Host, options: DeliverClientOptions) {
    this.#host = host;
    this.#options = options;
    this.#planSweep();
  }

  /**
   * Hands one message to a device. Throws the receiver's typed refusal, or TransportError
   * (`unreachable`, `timeout`, `closed`, `limit`): then nobody knows whether it arrived, and the same
   * bytes may be sent again by any way.
   */
  async deliver(
    to: Destination,
    request: MessageInitShape<typeof EnqueueRequestSchema>,
    options: { readonly signal?: AbortSignal; readonly budgetMs?: number } = {},
  ): Promise<Delivered> {
    const budgetMs = options.budgetMs ?? deliverClientLimits.budgetMs;
    const link = await this.#link(to, budgetMs);
    const { answerMs, relayedAnswerMs } = deliverClientLimits;
    try {
      const deadlineMs = link.connection.isRelayed ? relayedAnswerMs : answerMs;
      return await this.#send(link, request, deadlineMs, options.signal);
    } catch (error) {
      const isSilent = error instanceof TransportError && error.failure === 'timeout';
      if (!isSilent || !link.connection.isRelayed) throw error;
    }
    // A relay may drop what it is given: the same bytes by another way, in what is left of the time.
    const next = await this.#link(to, budgetMs);
    return this.#send(next, request, answerMs - relayedAnswerMs, options.signal);
  }

  /** Whoever does not answer is asked over a new connection next time. */
  async #send(
    link: Link,
    request: MessageInitShape<typeof EnqueueRequestSchema>,
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Delivered> {
    signal?.throwIfAborted();
    link.usedMs = this.#clock.monotonic();
    try {
      const answer = await call(link.caller, methods.enqueue, request, {
        deadlineMs,
        ...(signal === undefined ? {} : { signal }),
      });
      const isDuplicate = answer.outcome === Outcome.DUPLICATE;
      return { via: pathOf(link.connection), isDuplicate, record: link.record };
    } catch (error) {
      if (error instanceof TransportError && error.failure === 'timeout') {
        this.#drop(link);
        void link.connection.close();
      }
      throw error;
    }
  }

  /** Links that are open, and over what; for people. */
  get links(): readonly { readonly peerId: string; readonly via: DeliveryPath }[] {
    const open = [...this.#links.values()].filter(({ caller }) => caller.isOpen);
    return open.map(({ connection }) => ({
      peerId: connection.peerId,
      via: pathOf(connection),
    }));
  }

  close(): void {
    this.#ended.abort(new TransportError('closed', 'the swarm has stopped'));
    this.#sweep?.cancel();
    for (const link of this.#links.values()) link.caller.close();
    this.#links.clear();
  }

  get #clock(): Clock {
    return this.#options.runtime.clock;
  }

  /** The link to a device, opened once for all who want it. */
  async #link(to: Destination, budgetMs: number): Promise<Link> {
    const key = keyOf(to.record);
    const known = this.#links.get(key);
    if (known?.caller.isOpen === true && known.connection.isOpen) {
      if (known.connection.isRelayed) this.#upgrade(to, known, budgetMs);
      return known;
    }
    let opening = this.#opening.get(key);
    if (opening === undefined) {
      opening = this.#open(to, budgetMs).finally(() => this.#opening.delete(key));
      this.#opening.set(key, opening);
    }
    return opening;
  }

  /** Looks for a direct way beside a relayed one; what is found is used from the next message on. */
  #upgrade(to: Destination, relayed: Link, budgetMs: number): void {
    const key = keyOf(to.record);
    const nowMs = this.#clock.monotonic();
    const isEarly = nowMs - relayed.triedDirectMs < deliverClientLimits.upgradeMs;
    const direct = this.#directWays(to);
    if (isEarly || direct.length === 0 || this.#opening.has(key)) return;
    relayed.triedDirectMs = nowMs;
    void this.#race(to, direct, budgetMs).then(
      (link) => this.#keep(key, link),
      () => undefined,
    );
  }

  async #open(to: Destination, budgetMs: number): Promise<Link> {
    const { record } = to;
    const direct = this.#directWays(to);
    const existing = this.#host
      .connections(record.peerId)
      .filter(({ isRelayed }) => !isRelayed || direct.length === 0)
      .map((connection): Way => ({ afterMs: 0, connect: () => Promise.resolve(connection) }));
    const dialed = [...direct, ...this.#relayWays(record)];
    const headStartMs = existing.length > 0 ? deliverClientLimits.dialAfterMs : 0;
    const ways = [
      ...existing,
      ...dialed.map((way) => ({ ...way, afterMs: way.afterMs + headStartMs })),
    ];
    if (ways.length === 0) throw new TransportError('unreachable', 'no address of the device');
    return this.#keep(keyOf(record), await this.#race(to, ways, budgetMs));
  }

  #keep(key: string, link: Link): Link {
    const old = this.#links.get(key);
    this.#links.delete(key);
    this.#links.set(key, link);
    // Its calls come to their end; the sweep closes it.
    if (old !== undefined && old !== link && old.caller.isIdle) this.#drop(old, false);
    if (this.#links.size > deliverClientLimits.links) {
      for (const oldest of this.#links.values()) {
        this.#drop(oldest);
        break;
      }
    }
    return link;
  }

  #directWays({ record, lan = [] }: Destination): Way[] {
    if (this.#options.relayOnly) return [];
    const way = (text: string, afterMs: number): Way => {
      const { peerId } = parseSwarmAddress(text);
      const address = peerId === undefined ? `${text}/p2p/${record.peerId}` : text;
      return { afterMs, connect: (signal) => this.#host.dial(address, signal) };
    };
    const isTcp = (text: string): boolean => parseSwarmAddress(text).transport === 'tcp';
    const known = [...new Set([...lan, ...record.addresses])];
    const hasQuic = known.some((text) => !isTcp(text));
    return known.map((text) =>
      way(text, isTcp(text) && hasQuic ? deliverClientLimits.tcpAfterMs : 0),
    );
  }

  #relayWays(record: EndpointRecord): Way[] {
    const { relayAfterMs, relaysAtOnce } = deliverClientLimits;
    const isDirectTried = !this.#options.relayOnly && record.addresses.length > 0;
    return record.relays.map((relay, index) => ({
      // Two at once, the next pair later; none before direct ones had their time.
      afterMs: (isDirectTried ? relayAfterMs : 0) + Math.floor(index / relaysAtOnce) * relayAfterMs,
      connect: async (signal) => {
        const { peerId = '' } = parseSwarmAddress(relay);
        const isConnected = this.#host.connections(peerId).some(({ isRelayed }) => !isRelayed);
        if (!isConnected) await this.#host.dial(relay, signal);
        return this.#host.dial(`${relay}/p2p-circuit/p2p/${record.peerId}`, signal);
      },
    }));
  }

  /**
   * Tries the ways side by side, each from its time on or as soon as all before it failed; the first
   * answered Hello wins and ends the others. Throws the refusal of a device that answered, else why
   * the last way failed.
   */
  async #race(to: Destination, ways: readonly Way[], budgetMs: number): Promise<Link> {
    const race = new AbortController();
    const won = Promise.withResolvers<Link>();
    const timers = new Set<{ cancel(): void }>();
    const budget = this.#clock.timer(budgetMs, () => {
      won.reject(new TransportError('timeout', `no way in ${budgetMs} ms`));
    });
    const onEnd = (): void => won.reject(this.#ended.signal.reason as Error);
    this.#ended.signal.addEventListener('abort', onEnd, { once: true });
    if (this.#ended.signal.aborted) onEnd();
    const waiting = ways.toSorted((a, b) => a.afterMs - b.afterMs);
    let running = 0;
    let isWon = false;
    let failure: unknown;
    const attempt = async (way: Way): Promise<void> => {
      running += 1;
      try {
        const link = await this.#hello(to, await way.connect(race.signal), race.signal);
        if (isWon || race.signal.aborted) this.#drop(link, false);
        else {
          isWon = true;
          won.resolve(link);
        }
      } catch (error) {
        // A refusal says more than any failure to connect.
        const isTyped = error instanceof QpcError && !(error instanceof TransportError);
        if (failure === undefined || isTyped) failure = error;
        if (isTyped) won.reject(error);
      }
      running -= 1;
      if (running === 0) startNext();
    };
    const startNext = (): void => {
      const next = waiting.shift();
      if (next !== undefined) void attempt(next);
      else if (running === 0) won.reject(failure);
    };
    const firstMs = waiting[0]?.afterMs ?? 0;
    for (const way of [...waiting]) {
      const timer = this.#clock.timer(way.afterMs - firstMs, () => {
        timers.delete(timer);
        const at = waiting.indexOf(way);
        if (at < 0 || race.signal.aborted) return;
        waiting.splice(at, 1);
        void attempt(way);
      });
      timers.add(timer);
    }
    try {
      return await won.promise;
    } finally {
      budget.cancel();
      for (const timer of timers) timer.cancel();
      this.#ended.signal.removeEventListener('abort', onEnd);
      race.abort(new TransportError('cancelled', 'another way was faster'));
    }
  }

  /** Opens the stream and proves both sides. Connections without streams are the host's to end. */
  async #hello(to: Destination, connection: HostConnection, signal: AbortSignal): Promise<Link> {
    const { runtime, reach, record: own } = this.#options;
    const { device, peerId } = to.record;
    let caller: FrameCaller | undefined;
    try {
      const stream = await connection.openStream(deliverProtocol, signal);
      caller = new FrameCaller(stream, this.#clock);
      const answer = await call(
        caller,
        methods.hello,
        { versionMin: deliverVersion, versionMax: deliverVersion, endpoint: own() },
        { signal, deadlineMs: deliverClientLimits.budgetMs },
      );
      if (answer.version !== deliverVersion) {
        throw new TransportError('protocol', `version ${answer.version}`);
      }
      const nowMs = runtime.clock.now();
      const record = verifyEndpointRecord(answer.endpoint, { nowMs, device, peerId, reach });
      if (connection.peerId !== peerId) {
        throw new UnauthenticatedError('BAD_CREDENTIAL', 'another peer answered');
      }
      const usedMs = this.#clock.monotonic();
      return { connection, caller, record, usedMs, triedDirectMs: usedMs };
    } catch (error) {
      caller?.close();
      throw error;
    }
  }

  #drop(link: Link, forget = true): void {
    if (forget && this.#links.get(keyOf(link.record)) === link) {
      this.#links.delete(keyOf(link.record));
    }
    link.caller.close();
  }

  #planSweep(): void {
    const { idleMs } = deliverClientLimits;
    this.#sweep = this.#clock.timer(idleMs, () => {
      const nowMs = this.#clock.monotonic();
      for (const link of this.#links.values()) {
        const isOld = nowMs - link.usedMs >= idleMs && link.caller.isIdle;
        if (isOld || !link.caller.isOpen) this.#drop(link);
      }
      this.#planSweep();
    });
  }
}

interface Way {
  /** When it is tried at the latest, counted from the start (ms). */
  readonly afterMs: number;
  readonly connect: (signal: AbortSignal) => Promise<HostConnection>;
}

const keyOf = ({ device }: EndpointRecord): string => Buffer.from(device).toString('hex');
