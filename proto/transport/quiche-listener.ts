/**
 * The QUIC listener on native quiche: routing by connection id, Retry with expiring tokens (RFC 9000
 * section 8.1), admission by address, a new socket when the old one is lost.
 */
import type { RemoteInfo } from 'node:dgram';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Runtime, Timer } from '../runtime.ts';
import { Admission, plainAddress } from './admission.ts';
import { FramedConnection } from './connection.ts';
import { peerSpki } from './quic-engine.ts';
import { addressOf } from './quic-listener.ts';
import { parseLongHeader, routeKey, routeOf, version1 } from './quiche-header.ts';
import type { LongHeader } from './quiche-header.ts';
import { Link, type LinkOwner } from './quiche-link.ts';
import { connectionIdBytes, minInitialBytes, nativeConfig } from './quiche-native.ts';
import { tlsAlert, transportCode, type NativeConfig, type Quiche } from './quiche-native.ts';
import { QuicheSession } from './quiche-session.ts';
import { openUdp, type UdpSocket } from './quiche-socket.ts';
import type { Turn } from './quiche-turn.ts';
import { RetryTokens } from './retry-token.ts';
import { lost } from './session.ts';
import { CloseCode, type CloseInfo, type Endpoint } from './transport.ts';
import type { Listener, ListenOptions } from './transport.ts';
import { UnreadAnswers } from './unread-answers.ts';

/** Handshakes that may be under way at a time, from all addresses. */
const handshakesAtOnce = 2000;
/** Bytes of a client's first destination id at least (RFC 9000 section 7.2). */
const minFirstIdBytes = 8;
/**
 * One of several listeners that share a port: the system spreads addresses over their sockets. The
 * ids that a listener gives out name it, so that packets of a peer whose address has changed find
 * their way (RFC 9000 section 5.2).
 */
export interface Shard {
  readonly index: number;
  /** How many there are: 2 to 256. */
  readonly count: number;
  /** Brings a datagram to the listener that it belongs to. */
  forward(index: number, data: Buffer, from: RemoteInfo): void;
}

/** Who lets handshakes in: this listener's own admission, or somebody who counts for several. */
export type HandshakeGate = (address: string) => boolean | Promise<boolean>;

export interface QuicheListenerParts {
  readonly shard?: Shard;
  readonly gate?: HandshakeGate;
}

const firstRetryMs = 50;
const lastRetryMs = 5000;

export class QuicheListener implements Listener {
  readonly #quiche: Quiche;
  readonly #runtime: Runtime;
  readonly #turn: Turn;
  readonly #options: ListenOptions;
  readonly #config: NativeConfig;
  readonly #admission: Admission;
  readonly #tokens: RetryTokens;
  readonly #unread: UnreadAnswers;
  readonly #shard: Shard | undefined;
  readonly #gate: HandshakeGate;
  /** Initial packets whose admission is being asked for elsewhere, by their connection id. */
  readonly #asking = new Set<string>();
  /** By connection id; ended ones stay while they answer late packets. */
  readonly #routes = new Map<string, ServerSide>();
  readonly #closing = new AbortController();
  #endpoint: Endpoint;
  #socket: UdpSocket | undefined;
  #handshakes = 0;
  #closed: Promise<void> | undefined;

  private constructor(
    quiche: Quiche,
    runtime: Runtime,
    turn: Turn,
    options: ListenOptions,
    { shard, gate }: QuicheListenerParts,
  ) {
    this.#quiche = quiche;
    this.#shard = shard;
    this.#gate = gate ?? ((address) => this.#admission.handshake(address));
    this.#runtime = runtime;
    this.#turn = turn;
    this.#options = options;
    this.#endpoint = options.endpoint;
    this.#config = nativeConfig(quiche, options.identity, options.limits, 'listen');
    this.#admission = new Admission(runtime.clock, options.limits);
    this.#tokens = new RetryTokens(runtime);
    this.#unread = new UnreadAnswers(options.limits.unreadAnswerBytes);
  }

  /** Throws TransportError `internal` when the port is taken (`cause.code` is `EADDRINUSE`). */
  static async open(
    quiche: Quiche,
    runtime: Runtime,
    turn: Turn,
    options: ListenOptions,
    parts: QuicheListenerParts = {},
  ): Promise<QuicheListener> {
    const listener = new QuicheListener(quiche, runtime, turn, options, parts);
    const socket = await listener.#bind(options.endpoint);
    listener.#socket = socket;
    listener.#endpoint = { ...socket.local };
    return listener;
  }

  get endpoint(): Endpoint {
    return this.#endpoint;
  }

  close(code: number, reason: string): Promise<void> {
    this.#closed ??= this.#close(code, reason);
    return this.#closed;
  }

  async #close(code: number, reason: string): Promise<void> {
    this.#closing.abort();
    for (const side of this.#routes.values()) side.close(code, reason);
    // The system has taken the last packets by then, and every `onClosed` has run its course.
    await nextTurn();
    for (const side of this.#routes.values()) side.link?.release();
    await this.#socket?.close();
  }

  #bind(endpoint: Endpoint): Promise<UdpSocket> {
    const handlers = {
      onDatagram: (data: Buffer, from: RemoteInfo) => this.receive(data, from, false),
      onLost: () => void this.#bindAgain(),
    };
    const isShared = this.#shard !== undefined;
    return openUdp(endpoint, this.#turn.slab, this.#runtime.log, handlers, isShared);
  }

  /** A datagram from the socket, or one that another listener of the port brought. */
  receive(data: Buffer, from: RemoteInfo, isForwarded: boolean): void {
    const route = routeOf(data);
    if (route === undefined) return;
    const side = this.#routes.get(route);
    if (side) return side.link?.receive(data, from);
    if (!isForwarded && this.#shard) {
      const owner = ownerOf(data, route, this.#shard.count);
      if (owner !== undefined && owner !== this.#shard.index) {
        return this.#shard.forward(owner, data, from);
      }
    }
    // Nothing shorter may open a connection, and nothing shorter gets an answer.
    if (data.length < minInitialBytes || this.#closing.signal.aborted) return;
    const header = parseLongHeader(data);
    if (!header) return;
    try {
      this.#welcome(header, data, from);
    } catch (error) {
      this.#runtime.log.warn('quic.welcome.fault', { error: String(error) });
    }
  }

  /** Answers the first packet of a client: versions, Retry, or a connection. */
  #welcome(header: LongHeader, data: Buffer, from: RemoteInfo): void {
    const socket = this.#socket;
    if (!socket) return;
    const { version, destinationId, sourceId, token } = header;
    const to = { host: from.address, port: from.port };
    if (version !== version1) {
      // A packet that lists versions itself (version 0) gets none.
      if (version === 0) return;
      socket.send(this.#quiche.negotiateVersion(sourceId, destinationId, socket.room()), to);
      return;
    }
    if (token === undefined || destinationId.length < minFirstIdBytes) return;
    if (token.length === 0) {
      const ownId = this.#newId();
      const minted = this.#tokens.mint(destinationId, bindingOf(from.address, ownId));
      const room = socket.room();
      const length = this.#quiche.retry(sourceId, destinationId, ownId, minted, version, room);
      return socket.send(length, to);
    }
    const originalId = this.#tokens.open(token, bindingOf(from.address, destinationId));
    if (originalId === undefined || destinationId.length !== connectionIdBytes) return;
    // Counted where the address is proven: nobody can spend another's rate. Over it: silence.
    if (this.#handshakes + this.#asking.size >= handshakesAtOnce) return;
    // A copy of one that is being asked for costs nobody anything.
    if (this.#asking.has(routeKey(destinationId))) return;
    const admitted = this.#gate(plainAddress(from.address));
    if (admitted === true) this.#begin(socket, originalId, destinationId, from).receive(data, from);
    if (typeof admitted !== 'boolean') void this.#beginIf(admitted, originalId, header, data, from);
  }

  #begin(socket: UdpSocket, originalId: Uint8Array, ownId: Uint8Array, from: RemoteInfo): Link {
    const remote = { host: from.address, port: from.port };
    const connection = this.#quiche.Connection.accept(
      ownId,
      originalId,
      socket.local,
      remote,
      this.#config,
    );
    const route = routeKey(ownId);
    const side = new ServerSide({
      runtime: this.#runtime,
      options: this.#options,
      admission: this.#admission,
      unread: this.#unread,
      from: remote,
      onSettled: () => (this.#handshakes -= 1),
      onGone: () => this.#routes.delete(route),
    });
    const link = new Link({
      quiche: this.#quiche,
      runtime: this.#runtime,
      turn: this.#turn,
      socket,
      connection,
      owner: side,
      role: 'listen',
    });
    side.link = link;
    this.#handshakes += 1;
    this.#routes.set(route, side);
    return link;
  }

  /** As `#welcome` goes on, once somebody else has counted the handshake. Copies come meanwhile. */
  async #beginIf(
    admitted: Promise<boolean>,
    originalId: Uint8Array,
    { destinationId }: LongHeader,
    data: Buffer,
    from: RemoteInfo,
  ): Promise<void> {
    const route = routeKey(destinationId);
    this.#asking.add(route);
    // The memory of a datagram is the socket's, and is used again.
    const [ownId, packet] = [Uint8Array.from(destinationId), Buffer.from(data)];
    const isAdmitted = await admitted.catch(() => false);
    this.#asking.delete(route);
    const socket = this.#socket;
    if (!isAdmitted || !socket || this.#routes.has(route) || this.#closing.signal.aborted) return;
    try {
      this.#begin(socket, originalId, ownId, from).receive(packet, from);
    } catch (error) {
      this.#runtime.log.warn('quic.welcome.fault', { error: String(error) });
    }
  }

  /** A connection id of our own, which names the shard where there are several. */
  #newId(): Uint8Array {
    const id = this.#runtime.random.bytes(connectionIdBytes);
    if (!this.#shard) return id;
    const { index, count } = this.#shard;
    const spread = (id[0] ?? 0) % Math.floor(256 / count);
    id[0] = spread * count + index;
    return id;
  }

  /** The socket is gone, and every connection with it: bind the same port until it works. */
  async #bindAgain(): Promise<void> {
    const { clock, log } = this.#runtime;
    const { signal } = this.#closing;
    this.#socket = undefined;
    log.error('quic.listener.lost', { port: this.#endpoint.port, connections: this.#routes.size });
    for (const side of this.#routes.values()) side.link?.abandon(lost('socket lost'));
    for (const side of this.#routes.values()) side.link?.release();
    for (let waitMs = firstRetryMs; !signal.aborted; waitMs = Math.min(2 * waitMs, lastRetryMs)) {
      try {
        const socket = await this.#bind(this.#endpoint);
        if (!signal.aborted) {
          this.#socket = socket;
          log.info('quic.listener.rebound', { port: this.#endpoint.port });
          return;
        }
        await socket.close();
      } catch (error) {
        log.error('quic.listener.rebind', { error: String(error) });
        await clock.sleep(waitMs, signal).catch(() => {
          // Closed meanwhile: the loop's condition ends it.
        });
      }
    }
  }
}

/**
 * The shard that gave out a datagram's connection id; undefined for what may begin a connection
 * anywhere: an Initial packet without a token, whose id its client chose.
 */
function ownerOf(data: Buffer, route: string, count: number): number | undefined {
  const header = parseLongHeader(data);
  if (header?.token?.length === 0 || route.length !== connectionIdBytes) return undefined;
  if (header && header.version !== version1) return undefined;
  return route.charCodeAt(0) % count;
}

/** What a token is valid for: a Retry moves the client to one connection id of ours. */
function bindingOf(address: string, ownId: Uint8Array): string {
  return `${plainAddress(address)} ${Buffer.from(ownId).toString('hex')}`;
}

interface ServerSideOptions {
  readonly runtime: Runtime;
  readonly options: ListenOptions;
  readonly admission: Admission;
  readonly unread: UnreadAnswers;
  readonly from: Endpoint;
  /** Once: the handshake is over, one way or the other. */
  readonly onSettled: () => void;
  readonly onGone: () => void;
}

/** One accepted connection: a handshake under a deadline, then a session. */
class ServerSide implements LinkOwner {
  link: Link | undefined;
  readonly #options: ServerSideOptions;
  readonly #host: string;
  #deadline: Timer | undefined;
  #session: QuicheSession | undefined;
  #isAdmitted = false;

  constructor(options: ServerSideOptions) {
    this.#options = options;
    this.#host = plainAddress(options.from.host);
    const { handshakeMs } = options.options.limits;
    this.#deadline = options.runtime.clock.timer(handshakeMs, () => {
      this.#refuse(transportCode.noError);
    });
  }

  close(code: number, reason: string): void {
    if (this.#session) void this.#session.close(code, reason);
    else this.#refuse(transportCode.noError);
  }

  #refuse(code: number): void {
    this.link?.close(false, code, '', lost('refused'));
  }

  #settle(): void {
    if (!this.#deadline) return;
    this.#deadline.cancel();
    this.#deadline = undefined;
    this.#options.onSettled();
  }

  onEstablished(): void {
    this.#settle();
    const { link } = this;
    const { admission, runtime, options, from } = this.#options;
    const spkiSha256 = peerSpki(link?.native?.peerCertChain() ?? null);
    if (!link) return;
    if (!spkiSha256) return this.#refuse(tlsAlert.certificateRequired);
    this.#isAdmitted = admission.enter(this.#host);
    if (!this.#isAdmitted) {
      return link.close(true, CloseCode.Limit, 'too many connections', lost('refused'));
    }
    const address = addressOf(this.#host, from.port);
    const peer = { spkiSha256, address, host: this.#host };
    const { limits, maxRequestBytes, onConnection } = options;
    const maxStreams = limits.streamsPerConnection;
    this.#session = new QuicheSession({ runtime, link, peer, isServer: true, maxStreams });
    const { unread } = this.#options;
    onConnection(new FramedConnection(runtime, this.#session, limits, maxRequestBytes, unread));
  }

  onTakeIn(): void {
    this.#session?.takeIn();
  }

  onGiveOut(hasReceived: boolean): void {
    this.#session?.giveOut(hasReceived);
  }

  onMoved(): void {
    this.#session?.moved();
  }

  onEnded(info: CloseInfo): void {
    this.#settle();
    if (this.#isAdmitted) this.#options.admission.leave(this.#host);
    this.#isAdmitted = false;
    this.#session?.end(info);
    this.#session = undefined;
  }

  onGone(): void {
    this.#options.onGone();
  }
}
