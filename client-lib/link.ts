/**
 * The connection of a device to its own node: dial with the pin, Hello, and dial again for ever
 * with back-off and jitter (docs/protocol/wire.md). Only an answered Hello is "online". What is called
 * over it, and what is repeated, is the callers' business.
 */
import {
  call,
  hasReason,
  jitter,
  maxRequestBytes,
  methods,
  parseNodeAddress,
  QpcError,
  Status,
  TransportError,
  UnauthenticatedError,
  type Method,
  type Clock,
  type RpcOptions,
  type Runtime,
} from '@quicprochat/proto';
import type { HelloResponse, MessageInitShape, MessageShape } from '@quicprochat/proto/messages';
import {
  CloseCode,
  defaultLimits,
  type Connection,
  type NodeIdentity,
  type Transport,
} from '@quicprochat/proto/transport';
import type { EventBus, LinkState } from './events.ts';
import { Patience } from './patience.ts';

type DescMessage = Method['request'];

export const linkLimits = {
  /** First and longest wait between two dials (ms); the real wait is random below it. */
  backOffMinMs: 250,
  backOffMaxMs: 30_000,
  /** A connection that lived this long starts the back-off anew (ms). */
  stableMs: 10_000,
  /** Silence after which the node is probed (ms): with calls in flight, and without. */
  probeBusyMs: 1_500,
  probeIdleMs: 10_000,
  /** Time that a probe may take, beyond what makes the node silent, before the connection counts as dead (ms). */
  probeGraceMs: 1_000,
} as const;

/** The client was closed: nothing that waits for the node will come. */
export class ClosedError extends QpcError {
  override name = 'ClosedError';
  constructor() {
    super(Status.FailedPrecondition, 'CLOSED', 'the client is closed');
  }
}

export interface DialParts {
  readonly runtime: Runtime;
  readonly transport: Transport;
  /** `qpc://host:port#pin`. */
  readonly nodeAddress: string;
  /** Keys by which the node may show itself, as of now; without it the one of the address. */
  readonly nodePins?: () => readonly Uint8Array[];
  readonly identity: NodeIdentity;
}

/**
 * Dials the node and says Hello. Throws TransportError, or the node's own error (VERSION). The
 * caller closes the connection.
 */
export async function dialNode(
  { transport, nodeAddress, nodePins, identity }: DialParts,
  signal?: AbortSignal,
): Promise<{ readonly connection: Connection; readonly hello: HelloResponse }> {
  const { host, port, pin } = parseNodeAddress(nodeAddress);
  const connection = await transport.dial(
    { host, port },
    {
      identity,
      limits: defaultLimits,
      maxRequestBytes,
      pins: nodePins?.() ?? [pin],
      ...(signal === undefined ? {} : { signal }),
    },
  );
  try {
    const hello = await call(
      connection,
      methods.hello,
      { versionMin: 1, versionMax: 1, capabilities: [], agent: 'qpc' },
      signal === undefined ? {} : { signal },
    );
    return { connection, hello };
  } catch (error) {
    await connection.close(CloseCode.Normal, 'no hello');
    throw error;
  }
}

/** Calls methods of the own node. */
export interface Caller {
  call<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
    options?: RpcOptions,
  ): Promise<MessageShape<O>>;
}

/** A caller over one given connection. */
export function callerOf(connection: Connection): Caller {
  return { call: (method, request, options) => call(connection, method, request, options) };
}

/** One online connection. */
export interface Session extends Caller {
  readonly connection: Connection;
  readonly hello: HelloResponse;
  /** Aborted when the connection ends. */
  readonly signal: AbortSignal;
  /** Something arrived by push: the node is alive. */
  heard(): void;
  /** Gives the connection up; the link dials again. */
  end(reason: string): void;
}

export interface LinkParts extends DialParts {
  readonly events: EventBus;
  /** Called for each new session before anybody can call over it. */
  readonly onSession: (session: Session) => void;
}

/** Keeps one session alive from `start` to `stop`. */
export class Link implements Caller {
  readonly #parts: LinkParts;
  readonly #patience: Patience;
  #state: LinkState = 'stopped';
  #session: Session | undefined;
  /** The last session ended because the node was silent. */
  #lost: Silence | undefined;
  #stop: AbortController | undefined;
  #running: Promise<void> = Promise.resolve();
  #waiting = new Set<() => void>();
  #isClosed = false;

  constructor(parts: LinkParts) {
    this.#parts = parts;
    this.#patience = new Patience(parts.runtime.clock);
  }

  get state(): LinkState {
    return this.#state;
  }

  /** The session of now, if there is one. */
  get current(): Session | undefined {
    return this.#session;
  }

  /** Starts dialling; no effect while it runs. */
  start(): void {
    if (this.#stop !== undefined) return;
    const stop = new AbortController();
    this.#stop = stop;
    this.#running = this.#run(stop.signal).finally(() => {
      if (this.#stop === stop) this.#stop = undefined;
    });
  }

  /** Ends the session and stops dialling, for good. Calls in flight and to come fail. Idempotent. */
  async stop(): Promise<void> {
    this.#isClosed = true;
    this.#stop?.abort(new TransportError('cancelled', 'link: stopped'));
    await this.#running;
    this.#enter('stopped', undefined);
    for (const wake of this.#waiting) wake();
  }

  /** The current session, or the next one. Rejects with the signal's reason, or CLOSED. */
  async session(signal?: AbortSignal): Promise<Session> {
    for (;;) {
      signal?.throwIfAborted();
      if (this.#isClosed) throw new ClosedError();
      if (this.#session !== undefined) return this.#session;
      if (this.#state === 'sessionExpired') throw sessionExpired();
      await this.#change(signal);
    }
  }

  /** One attempt over the current or next session; failures are the caller's to repeat. */
  async call<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
    options: RpcOptions = {},
  ): Promise<MessageShape<O>> {
    const session = await this.session(options.signal);
    return session.call(method, request, options);
  }

  /** Gives the current session up for a new one. */
  redial(reason: string): void {
    this.#session?.end(reason);
  }

  /** The node refused the session: no more attempts until `start`. */
  expire(): void {
    this.#stop?.abort(sessionExpired());
  }

  async #run(stop: AbortSignal): Promise<void> {
    const { clock, random, log } = this.#parts.runtime;
    let failures = 0;
    while (!stop.aborted) {
      this.#enter('connecting', undefined);
      const startMs = clock.monotonic();
      let reason: string | undefined;
      try {
        await this.#oneSession(stop);
        reason = 'DISCONNECTED';
      } catch (error) {
        if (stop.aborted) break;
        reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        log.info('link failed', { reason, error: String(error) });
        if (hasReason(error, 'NOT_LOGGED_IN')) {
          this.#enter('sessionExpired', reason);
          return;
        }
      }
      if (clock.monotonic() - startMs >= linkLimits.stableMs) failures = 0;
      const boundMs = Math.min(linkLimits.backOffMaxMs, linkLimits.backOffMinMs * 2 ** failures);
      failures = Math.min(failures + 1, 16);
      if (stop.aborted) break;
      this.#enter('offline', reason);
      await clock.sleep(jitter(random, boundMs), stop).catch(() => undefined);
    }
    if (hasReason(stop.reason, 'NOT_LOGGED_IN')) this.#enter('sessionExpired', 'NOT_LOGGED_IN');
  }

  /** From dial to close. Throws what kept it from going online. */
  async #oneSession(stop: AbortSignal): Promise<void> {
    const { connection, hello } = await dialNode(this.#parts, stop);
    if (hello.callerClass !== 'device') {
      await connection.close(CloseCode.Normal, 'not logged in');
      throw sessionExpired();
    }
    const life = new AbortController();
    const session = new LiveSession({
      ...{ connection, hello, signal: life.signal, patience: this.#patience },
      runtime: this.#parts.runtime,
      onExpired: () => this.expire(),
      onSilent: (isSilent) => {
        if (this.#session !== session) return;
        this.#enter(isSilent ? 'silent' : 'online', isSilent ? 'SILENT' : undefined);
      },
    });
    const onStop = (): void => session.end('client stops');
    stop.addEventListener('abort', onStop);
    if (stop.aborted) onStop();
    try {
      this.#parts.onSession(session);
      this.#session = session;
      this.#enter('online', undefined);
      session.watch();
      void this.#judge(session);
      await connection.closed;
    } finally {
      stop.removeEventListener('abort', onStop);
      this.#lost = session.lost;
      this.#session = undefined;
      life.abort(new TransportError('closed', 'link: the connection ended'));
    }
  }

  /** Was the node slow, or dead, when it was last given up? One that runs since before that was slow. Never fails. */
  async #judge(session: Session): Promise<void> {
    const lost = this.#lost;
    if (lost === undefined) return;
    try {
      const { uptimeMs } = await session.call(methods.health, {});
      const awayMs = this.#parts.runtime.clock.monotonic() - lost.heardMs;
      if (uptimeMs > awayMs) this.#patience.answered(lost.waitedMs);
    } catch (error) {
      this.#parts.runtime.log.debug('health', { error: String(error) });
    }
  }

  #enter(state: LinkState, reason: string | undefined): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#parts.events.emit({ type: 'link', state, reason });
    for (const wake of this.#waiting) wake();
  }

  async #change(signal?: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake);
        signal?.removeEventListener('abort', wake);
        resolve();
      };
      this.#waiting.add(wake);
      signal?.addEventListener('abort', wake);
    });
  }
}

/** Why a session was given up: nothing was heard since then (monotonic ms), and a probe waited for so long. */
interface Silence {
  readonly heardMs: number;
  readonly waitedMs: number;
}

interface LiveParts extends Pick<Session, 'connection' | 'hello' | 'signal'> {
  readonly runtime: Runtime;
  readonly patience: Patience;
  readonly onExpired: () => void;
  /** The node owes an answer for longer than usual, or was heard again. */
  readonly onSilent: (isSilent: boolean) => void;
}

/** A session that notices a node that is gone without a word, long before the idle time-out. */
class LiveSession implements Session {
  readonly connection: Connection;
  readonly hello: HelloResponse;
  readonly signal: AbortSignal;
  readonly #parts: LiveParts;
  readonly #clock: Clock;
  #heardMs: number;
  /** When the probe left that nothing was heard since (monotonic ms). */
  #probeMs: number | undefined;
  #isSilent = false;
  #lost: Silence | undefined;
  #inFlight = 0;

  constructor(parts: LiveParts) {
    const { connection, hello, signal, runtime } = parts;
    this.#parts = parts;
    this.#clock = runtime.clock;
    this.connection = connection;
    this.hello = hello;
    this.signal = signal;
    this.#heardMs = this.#clock.monotonic();
  }

  /** Set where the silence of the node ended it. */
  get lost(): Silence | undefined {
    return this.#lost;
  }

  heard(): void {
    this.#heardMs = this.#clock.monotonic();
    if (this.#probeMs !== undefined) this.#parts.patience.answered(this.#heardMs - this.#probeMs);
    this.#probeMs = undefined;
    if (!this.#isSilent) return;
    this.#isSilent = false;
    this.#parts.onSilent(false);
  }

  end(reason: string): void {
    void this.connection.close(CloseCode.Normal, reason);
  }

  async call<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
    options: RpcOptions = {},
  ): Promise<MessageShape<O>> {
    // A connection that is gone takes no call; waiting for its deadline would hold up whoever stops.
    if (this.signal.aborted) throw new TransportError('closed', 'link: the connection ended');
    this.#inFlight += 1;
    try {
      const response = await call(this.connection, method, request, options);
      // Who waited for it may have a newer session by now, and must not go on over this one.
      if (this.signal.aborted) throw new TransportError('closed', 'link: the connection ended');
      this.heard();
      return response;
    } catch (error) {
      if (!(error instanceof TransportError)) this.heard();
      if (hasReason(error, 'NOT_LOGGED_IN')) this.#parts.onExpired();
      throw error;
    } finally {
      this.#inFlight -= 1;
    }
  }

  /** Probes a silent node until the session ends; a probe without answer ends it. */
  watch(): void {
    if (this.signal.aborted) return;
    this.#clock.timer(linkLimits.probeBusyMs / 2, () => {
      const silentMs = this.#clock.monotonic() - this.#heardMs;
      const patienceMs = this.#inFlight > 0 ? linkLimits.probeBusyMs : linkLimits.probeIdleMs;
      if (this.signal.aborted || silentMs < patienceMs) return this.watch();
      this.#probe();
      return undefined;
    });
  }

  #probe(): void {
    const heardMs = this.#heardMs;
    const silentMs = this.#parts.patience.ms;
    const deadlineMs = silentMs + linkLimits.probeGraceMs;
    this.#probeMs = this.#clock.monotonic();
    // Any other answer or push meanwhile is a sign of life too, and so is an error answer.
    const isStill = (): boolean => this.#heardMs === heardMs && !this.signal.aborted;
    const silence = this.#clock.timer(silentMs, () => {
      if (!isStill()) return;
      this.#isSilent = true;
      this.#parts.onSilent(true);
    });
    const goOn = (): void => {
      silence.cancel();
      if (!isStill()) return this.watch();
      this.#lost = { heardMs, waitedMs: deadlineMs };
      this.end('the node is silent');
      return undefined;
    };
    this.call(methods.health, {}, { deadlineMs }).then(goOn, goOn);
  }
}

function sessionExpired(): UnauthenticatedError {
  return new UnauthenticatedError('NOT_LOGGED_IN', 'the session of this device ended: log in');
}
