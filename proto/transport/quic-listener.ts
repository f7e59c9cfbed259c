/**
 * The QUIC listener: admission by address, Retry with tokens that expire, one identity per
 * connection, a new socket when the old one is lost, an end within bounded time.
 */
import type { QUICConnection } from '@matrixai/quic';
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Runtime } from '../runtime.ts';
import { Admission, plainAddress } from './admission.ts';
import { FramedConnection } from './connection.ts';
import {
  quicConfig,
  quietLogger,
  peerSpki,
  streamCodeOptions,
  type Engine,
} from './quic-engine.ts';
import { catchListenerErrors } from './quic-fence.ts';
import { QuicSession } from './quic-session.ts';
import { openSocket, type UdpSocket } from './quic-socket.ts';
import { RetryTokens } from './retry-token.ts';
import { lost } from './session.ts';
import { CloseCode, type Endpoint, type Listener, type ListenOptions } from './transport.ts';
import { UnreadAnswers } from './unread-answers.ts';

/** Time that the glue gets to stop before its socket is closed under it (ms). */
const stopMs = 300;
const firstRetryMs = 50;
const lastRetryMs = 5000;

/** One bound socket with the glue's server on it. */
interface Bound {
  readonly udp: UdpSocket;
  readonly server: InstanceType<Engine['QUICServer']>;
}

export class QuicListener implements Listener {
  readonly #engine: Engine;
  readonly #runtime: Runtime;
  readonly #options: ListenOptions;
  readonly #admission: Admission;
  readonly #tokens: RetryTokens;
  readonly #unread: UnreadAnswers;
  readonly #sessions = new Set<QuicSession>();
  readonly #closing = new AbortController();
  #endpoint: Endpoint;
  #bound: Bound | undefined;
  #closed: Promise<void> | undefined;

  private constructor(engine: Engine, runtime: Runtime, options: ListenOptions) {
    this.#engine = engine;
    this.#runtime = runtime;
    this.#options = options;
    this.#endpoint = options.endpoint;
    this.#admission = new Admission(runtime.clock, options.limits);
    this.#tokens = new RetryTokens(runtime);
    this.#unread = new UnreadAnswers(options.limits.unreadAnswerBytes);
  }

  static async open(
    engine: Engine,
    runtime: Runtime,
    options: ListenOptions,
  ): Promise<QuicListener> {
    const listener = new QuicListener(engine, runtime, options);
    const bound = await listener.#bind(options.endpoint);
    listener.#bound = bound;
    listener.#endpoint = { host: bound.udp.socket.host, port: bound.udp.socket.port };
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
    await Promise.all([...this.#sessions].map((session) => session.close(code, reason)));
    if (this.#bound) await this.#unbind(this.#bound);
  }

  async #bind(endpoint: Endpoint): Promise<Bound> {
    const { limits, identity } = this.#options;
    const { log } = this.#runtime;
    const udp = await openSocket(
      this.#engine,
      log,
      { ...endpoint, isServer: true },
      { onLost: () => void this.#bindAgain() },
    );
    const server = this.#makeServer({
      crypto: { key: this.#runtime.random.bytes(32).buffer, ops: connectionIdHash },
      socket: udp.socket,
      config: quicConfig(this.#engine, identity, limits, () => true),
      minIdleTimeout: limits.handshakeMs,
      logger: quietLogger(),
      ...streamCodeOptions,
    });
    const { events } = this.#engine;
    catchListenerErrors(server, (error) => {
      log.warn('quic.listener.fault', { error: String(error) });
    });
    server.addEventListener(events.EventQUICServerConnection.name, (event: Event) => {
      if (event instanceof events.EventQUICServerConnection) this.#accept(udp, event.detail);
    });
    await server.start();
    return { udp, server };
  }

  #makeServer(options: ConstructorParameters<Engine['QUICServer']>[0]): Bound['server'] {
    const { QUICServer, QUICConnectionId } = this.#engine;
    const tokens = this.#tokens;
    const admits = (address: string): boolean => this.#admission.handshake(address);
    /** The glue's own tokens do not expire. */
    return new (class extends QUICServer {
      protected override async mintToken(
        originalId: InstanceType<typeof QUICConnectionId>,
        host: string,
      ): Promise<Buffer> {
        return Buffer.from(tokens.mint(originalId, host));
      }
      protected override async validateToken(
        token: Buffer,
        host: string,
      ): Promise<InstanceType<typeof QUICConnectionId> | undefined> {
        const originalId = tokens.open(token, host);
        // Counted where the address is proven: nobody can spend another's rate. Over it: silence.
        if (originalId === undefined || !admits(plainAddress(host))) return undefined;
        return new QUICConnectionId(originalId);
      }
    })(options);
  }

  #accept(udp: UdpSocket, connection: QUICConnection): void {
    const host = plainAddress(connection.remoteHost);
    const spkiSha256 = peerSpki(connection.getRemoteCertsChain());
    const fence = udp.fenceOf(connection);
    if (spkiSha256 === undefined) {
      // The handshake let it through, so this is ours to refuse: no identity, no connection.
      fence.closeNow(true, CloseCode.RefusedIdentity, new Uint8Array());
      return;
    }
    const isAdmitted = this.#admission.enter(host);
    const session = new QuicSession({
      engine: this.#engine,
      runtime: this.#runtime,
      fence,
      peer: { spkiSha256, address: addressOf(host, connection.remotePort), host },
      onEnd: (ended) => {
        this.#sessions.delete(ended);
        if (isAdmitted) this.#admission.leave(host);
      },
    });
    udp.onFault(connection, () => session.fail('fault of the engine'));
    if (!isAdmitted) {
      void session.close(CloseCode.Limit, 'too many connections');
      return;
    }
    if (session.closeInfo) return;
    this.#sessions.add(session);
    const { limits, maxRequestBytes, onConnection } = this.#options;
    onConnection(
      new FramedConnection(this.#runtime, session, limits, maxRequestBytes, this.#unread),
    );
  }

  /** The socket is gone, and every connection with it: bind the same port until it works. */
  async #bindAgain(): Promise<void> {
    const { clock, log } = this.#runtime;
    const { signal } = this.#closing;
    const gone = this.#bound;
    this.#bound = undefined;
    log.error('quic.listener.lost', { port: this.#endpoint.port, sessions: this.#sessions.size });
    for (const session of this.#sessions) session.end(lost('socket lost'));
    if (gone) void this.#unbind(gone);
    for (let waitMs = firstRetryMs; !signal.aborted; waitMs = Math.min(2 * waitMs, lastRetryMs)) {
      try {
        const bound = await this.#bind(this.#endpoint);
        if (!signal.aborted) {
          this.#bound = bound;
          log.info('quic.listener.rebound', { port: this.#endpoint.port });
          return;
        }
        await this.#unbind(bound);
      } catch (error) {
        log.error('quic.listener.rebind', { error: String(error) });
        await clock.sleep(waitMs, signal).catch(() => {
          // Closed meanwhile: the loop's condition ends it.
        });
      }
    }
  }

  async #unbind({ udp, server }: Bound): Promise<void> {
    const stopped = server.stop({ force: true }).catch((error: unknown) => {
      this.#runtime.log.warn('quic.listener.stop', { error: String(error) });
    });
    const over = Promise.withResolvers<void>();
    const timer = this.#runtime.clock.timer(stopMs, () => over.resolve());
    await Promise.race([stopped, over.promise]);
    timer.cancel();
    await udp.close();
  }
}

export function addressOf(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * The glue derives connection ids with this (and would sign its tokens with it). It answers without
 * leaving the turn, so that a doubled Initial finds the connection that the first one made.
 */
const connectionIdHash = {
  async sign(key: ArrayBuffer, data: ArrayBuffer): Promise<ArrayBuffer> {
    const digest = createHmac('sha256', new Uint8Array(key)).update(new Uint8Array(data)).digest();
    return new Uint8Array(digest).buffer;
  },
  async verify(key: ArrayBuffer, data: ArrayBuffer, signature: ArrayBuffer): Promise<boolean> {
    const expected = new Uint8Array(await connectionIdHash.sign(key, data));
    const given = new Uint8Array(signature);
    return expected.length === given.length && timingSafeEqual(expected, given);
  },
};
