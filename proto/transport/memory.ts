/**
 * The transport inside one process, for the simulator and for tests: the rules of the other
 * engines, with seeded delay, reordering between streams, lost connections and partitions. There is
 * no TLS in it: an identity is believed as it is given.
 */
import type { Runtime } from '../runtime.ts';
import { InvalidArgumentError, TransportError } from '../status.ts';
import { Admission } from './admission.ts';
import { FramedConnection } from './connection.ts';
import { MemorySession, type Lane, type Lanes } from './memory-session.ts';
import { lost, type StreamSession } from './session.ts';
import { CloseCode } from './transport.ts';
import type {
  Connection,
  DialOptions,
  Endpoint,
  Listener,
  ListenOptions,
  Transport,
} from './transport.ts';

export interface MemoryNetworkOptions {
  /**
   * Time that one message (a piece of a stream, an opening, a closing) takes from one host to
   * another (ms); asked once per message. Messages of one stream direction keep their order, a
   * seeded answer reorders streams against each other. Default: 0.
   */
  readonly delayMs?: (fromHost: string, toHost: string) => number;
  /** Largest piece that a write travels in (bytes). Default: as it was written. */
  readonly chunkBytes?: number;
}

/** The network that the engines of one simulation share. */
export interface MemoryNetwork {
  /**
   * The engine of one host. A loopback or wildcard address means this host itself; any other
   * address is the name of a host. Default name: `local`.
   */
  transport(host?: string): MemoryTransport;
  /**
   * Holds every message from one host to the other until `heal`, as a lossy path does with packets
   * that are sent again; whoever hears nothing for the idle time-out closes.
   */
  cut(fromHost: string, toHost: string): void;
  heal(fromHost: string, toHost: string): void;
  /** Ends every connection between the two hosts on both sides at once. Returns how many. */
  breakConnections(host: string, otherHost: string): number;
  /** The process of a host dies: its side ends at once, the other sides find out by idling out. */
  crash(host: string): void;
}

export interface MemoryTransport extends Transport {
  /** A dialed session without the frames on top: the raw peer of the contract suite. */
  dialSession(endpoint: Endpoint, options: DialOptions): Promise<StreamSession>;
}

const selfAddresses = new Set(['localhost', '127.0.0.1', '::1', '0.0.0.0', '::']);
const firstEphemeralPort = 49_152;

export function memoryNetwork(runtime: Runtime, options: MemoryNetworkOptions = {}): MemoryNetwork {
  return new Network(runtime, options);
}

interface OpenListener {
  readonly host: string;
  readonly options: ListenOptions;
  readonly admission: Admission;
  readonly sessions: Set<MemorySession>;
}

/** One direction between two hosts. */
class Path {
  isCut = false;
  /** What waits for the cut to heal. */
  held: (() => void)[] = [];
}

interface Member {
  readonly host: string;
  readonly peerHost: string;
  /** Cancels the idle time-out that runs when the peer is not heard. */
  cancelIdle: (() => void) | undefined;
}

class Network implements MemoryNetwork {
  readonly runtime: Runtime;
  readonly listeners = new Map<string, OpenListener>();
  readonly #options: MemoryNetworkOptions;
  readonly #paths = new Map<string, Path>();
  readonly #sessions = new Map<MemorySession, Member>();
  #nextPort = firstEphemeralPort;

  constructor(runtime: Runtime, options: MemoryNetworkOptions) {
    this.runtime = runtime;
    this.#options = options;
  }

  transport(host = 'local'): MemoryTransport {
    return new Engine(this, host);
  }

  freePort(): number {
    return this.#nextPort++;
  }

  lanes(from: string, to: string): Lanes {
    const chunkBytes = this.#options.chunkBytes ?? Number.POSITIVE_INFINITY;
    return {
      there: () => this.#lane(from, to),
      back: () => this.#lane(to, from),
      chunkBytes,
    };
  }

  #path(from: string, to: string): Path {
    const key = JSON.stringify([from, to]);
    let path = this.#paths.get(key);
    if (!path) this.#paths.set(key, (path = new Path()));
    return path;
  }

  #lane(from: string, to: string): Lane {
    const path = this.#path(from, to);
    const { clock } = this.runtime;
    const queue: { readonly dueMs: number; readonly action: () => void }[] = [];
    let lastDueMs = 0;
    const next = (): void => {
      const waitMs = (queue[0]?.dueMs ?? 0) - clock.monotonic();
      if (waitMs > 0) clock.timer(waitMs, deliver);
      else void Promise.resolve().then(deliver);
    };
    const deliver = (): void => {
      if (path.isCut) {
        path.held.push(deliver);
        return;
      }
      queue.shift()?.action();
      if (queue.length > 0) next();
    };
    return {
      send: (action) => {
        const delayMs = this.#options.delayMs?.(from, to) ?? 0;
        lastDueMs = Math.max(clock.monotonic() + delayMs, lastDueMs);
        queue.push({ dueMs: lastDueMs, action });
        if (queue.length === 1) next();
      },
    };
  }

  /** Makes one side of a session; `onEnd` runs when it ended. */
  session(
    host: string,
    peer: { readonly host: string; readonly port: number; readonly spkiSha256: Uint8Array },
    limits: ListenOptions['limits'],
    onEnd: (session: MemorySession) => void,
  ): MemorySession {
    const { spkiSha256 } = peer;
    const identity = { spkiSha256, address: `${peer.host}:${peer.port}`, host: peer.host };
    const lanes = this.lanes(host, peer.host);
    const session = new MemorySession(identity, limits, lanes, (ended) => {
      this.#sessions.get(ended)?.cancelIdle?.();
      this.#sessions.delete(ended);
      onEnd(ended);
    });
    this.#sessions.set(session, { host, peerHost: peer.host, cancelIdle: undefined });
    if (this.#path(peer.host, host).isCut) this.#startIdle(session);
    return session;
  }

  cut(fromHost: string, toHost: string): void {
    this.#path(fromHost, toHost).isCut = true;
    for (const [session, { host, peerHost }] of this.#sessions) {
      if (host === toHost && peerHost === fromHost) this.#startIdle(session);
    }
  }

  heal(fromHost: string, toHost: string): void {
    const path = this.#path(fromHost, toHost);
    path.isCut = false;
    for (const [session, member] of this.#sessions) {
      if (member.host !== toHost || member.peerHost !== fromHost) continue;
      // A peer that is gone stays silent, cut or not.
      if (session.other?.isClosed) continue;
      member.cancelIdle?.();
      member.cancelIdle = undefined;
    }
    for (const deliver of path.held.splice(0)) deliver();
  }

  #startIdle(session: MemorySession): void {
    const member = this.#sessions.get(session);
    if (!member || member.cancelIdle) return;
    const idleMs = Math.min(session.limits.idleMs, session.other?.limits.idleMs ?? Infinity);
    const timer = this.runtime.clock.timer(idleMs, () => this.#vanish(session, 'idle time-out'));
    member.cancelIdle = () => timer.cancel();
  }

  #vanish(session: MemorySession, reason: string): void {
    session.end(lost(reason));
    if (session.other) this.#startIdle(session.other);
  }

  breakConnections(host: string, otherHost: string): number {
    let ended = 0;
    for (const [session, member] of this.#sessions) {
      if (member.host !== host || member.peerHost !== otherHost) continue;
      const { other } = session;
      session.end(lost('path lost'));
      other?.end(lost('path lost'));
      ended += 1;
    }
    return ended;
  }

  crash(host: string): void {
    for (const [key, listener] of this.listeners) {
      if (listener.host === host) this.listeners.delete(key);
    }
    for (const [session, member] of this.#sessions) {
      if (member.host === host) this.#vanish(session, 'process ended');
    }
  }
}

class Engine implements MemoryTransport {
  readonly name = 'memory';
  readonly #network: Network;
  readonly #host: string;

  constructor(network: Network, host: string) {
    this.#network = network;
    this.#host = host;
  }

  async listen(options: ListenOptions): Promise<Listener> {
    const host = this.#hostOf(options.endpoint.host);
    const port = options.endpoint.port || this.#network.freePort();
    const key = `${host}:${port}`;
    if (this.#network.listeners.has(key)) {
      const cause = Object.assign(new Error(`address in use: ${key}`), { code: 'EADDRINUSE' });
      throw new TransportError('internal', `memory: cannot listen at ${key}`, { cause });
    }
    const { clock } = this.#network.runtime;
    const admission = new Admission(clock, options.limits);
    const open: OpenListener = { host, options, admission, sessions: new Set() };
    this.#network.listeners.set(key, open);
    return {
      endpoint: { host: options.endpoint.host, port },
      close: async (code, reason) => {
        if (this.#network.listeners.get(key) === open) this.#network.listeners.delete(key);
        for (const session of open.sessions) await session.close(code, reason);
      },
    };
  }

  async dial(endpoint: Endpoint, options: DialOptions): Promise<Connection> {
    const session = await this.dialSession(endpoint, options);
    const { runtime } = this.#network;
    return new FramedConnection(runtime, session, options.limits, options.maxRequestBytes);
  }

  dialSession(endpoint: Endpoint, options: DialOptions): Promise<StreamSession> {
    const { limits, signal, pins } = options;
    const dialed = Promise.withResolvers<StreamSession>();
    const { clock } = this.#network.runtime;
    let isOver = false;
    const settle = (settled: () => void): void => {
      if (isOver) return;
      isOver = true;
      timer.cancel();
      signal?.removeEventListener('abort', onAbort);
      settled();
    };
    const fail = (error: TransportError): void => settle(() => dialed.reject(error));
    const timer = clock.timer(limits.handshakeMs, () =>
      fail(new TransportError('timeout', `dial: no answer within ${limits.handshakeMs} ms`)),
    );
    const onAbort = (): void =>
      fail(new TransportError('cancelled', 'dial: cancelled', { cause: signal?.reason }));
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();

    const target = this.#hostOf(endpoint.host);
    const lanes = this.#network.lanes(this.#host, target);
    const [there, back] = [lanes.there(), lanes.back()];
    const port = this.#network.freePort();
    there.send(() => {
      const listener = this.#network.listeners.get(`${target}:${endpoint.port}`);
      if (!listener) {
        back.send(() => fail(new TransportError('unreachable', 'dial: nobody listens there')));
        return;
      }
      // Over the rate: no answer, as in the engines that work on packets.
      if (!listener.admission.handshake(this.#host)) return;
      const { spkiSha256 } = listener.options.identity;
      back.send(() => {
        const isPinned = pins?.some((pin) => Buffer.compare(pin, spkiSha256) === 0) ?? true;
        if (!isPinned) {
          fail(new TransportError('refusedIdentity', 'dial: not the pinned identity'));
          return;
        }
        settle(() => {
          const peer = { host: target, port: endpoint.port, spkiSha256 };
          const session = this.#network.session(this.#host, peer, limits, () => {});
          const farSession = this.#accept(listener, options, port, session);
          there.send(() => this.#admit(listener, farSession));
          dialed.resolve(session);
        });
      });
    });
    return dialed.promise;
  }

  /** The listener's side of a session; it hears of it when the handshake's last message arrives. */
  #accept(
    listener: OpenListener,
    options: DialOptions,
    port: number,
    session: MemorySession,
  ): MemorySession {
    const { spkiSha256 } = options.identity;
    const peer = { host: this.#host, port, spkiSha256 };
    const { limits } = listener.options;
    const farSession = this.#network.session(listener.host, peer, limits, (ended) => {
      if (listener.sessions.delete(ended)) listener.admission.leave(this.#host);
    });
    MemorySession.pair(session, farSession);
    return farSession;
  }

  #admit(listener: OpenListener, session: MemorySession): void {
    if (session.isClosed) return;
    const { limits, maxRequestBytes, onConnection } = listener.options;
    if (!listener.admission.enter(this.#host)) {
      void session.close(CloseCode.Limit, 'too many connections');
      return;
    }
    listener.sessions.add(session);
    const { runtime } = this.#network;
    onConnection(new FramedConnection(runtime, session, limits, maxRequestBytes));
  }

  #hostOf(host: string): string {
    if (host === '') throw new InvalidArgumentError('BAD_FIELD', 'host: empty');
    return selfAddresses.has(host) ? this.#host : host;
  }
}
