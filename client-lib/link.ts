/**
 * Keeps a device connected to its own node: dials, and dials again for ever with back-off and jitter
 * (docs/protocol/wire.md). Only an answered Hello is "online". What is called over it, and what is
 * repeated, is the callers' business.
 */
import {
  hasReason,
  jitter,
  methods,
  QpcError,
  Status,
  TransportError,
  UnauthenticatedError,
  type Method,
  type RpcOptions,
} from '@quicprochat/proto';
import type { MessageInitShape, MessageShape } from '@quicprochat/proto/messages';
import { CloseCode } from '@quicprochat/proto/transport';
import { dialNode, type Caller, type DialParts } from './dial.ts';
import type { EventBus, LinkState } from './events.ts';
import { Patience } from './patience.ts';
import { LiveSession, type Session, type Silence } from './session.ts';

type DescMessage = Method['request'];

export const linkLimits = {
  /** First and longest wait between two dials (ms); the real wait is random below it. */
  backOffMinMs: 250,
  backOffMaxMs: 30_000,
  /** A connection that lived this long starts the back-off anew (ms). */
  stableMs: 10_000,
} as const;

/** The client was closed: nothing that waits for the node will come. */
export class ClosedError extends QpcError {
  override name = 'ClosedError';
  constructor() {
    super(Status.FailedPrecondition, 'CLOSED', 'the client is closed');
  }
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

function sessionExpired(): UnauthenticatedError {
  return new UnauthenticatedError('NOT_LOGGED_IN', 'the session of this device ended: log in');
}
