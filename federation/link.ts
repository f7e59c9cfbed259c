/**
 * The dialed connection to one peer: IDLE, CONNECTING, ACTIVE, BACKOFF or SUSPENDED, with a durable
 * back-off and a wake (docs/protocol/federation.md). It knows nothing of rows: `serve` runs while
 * the link is up, and `hasWork` says whether the peer is worth dialing.
 */
import {
  methods,
  type QpcError,
  TransportError,
  UnavailableError,
  type Runtime,
} from '@quicprochat/proto';
import {
  CloseCode,
  type Connection,
  type NodeIdentity,
  type Transport,
  type TransportLimits,
} from '@quicprochat/proto/transport';
import { retryCapMs, retryDelayMs } from './back-off.ts';
import {
  asQpcError,
  closedError,
  greet,
  isOperatorsMatter,
  untilAborted,
  type Greeting,
  type LinkSession,
} from './link-session.ts';
import type { Peer } from './policy.ts';
import type { PeerState } from './store.ts';
import { Wakeup } from './wakeup.ts';

export type LinkState = 'idle' | 'connecting' | 'active' | 'backoff' | 'suspended';

export const linkLimits = {
  /** One dial of one endpoint (ms). */
  dialMs: 5_000,
  /** How long a proxied call waits for the link to come up (ms). */
  demandMs: 5_000,
  /** Dials on demand and after a wake keep this distance (ms); each wake in vain doubles it... */
  spacingMs: 1_000,
  /** ...up to this (ms). */
  spacingMaxMs: 60_000,
  /** A wake in vain is forgotten after this (ms). */
  wakeMemoryMs: 10 * 60_000,
  /** A link that carried an answer or lived this long (ms) was a good one. */
  goodLifeMs: 10_000,
  /** Pause after a refusal that only an operator can end (ms); a wake ends it too. */
  suspendedMs: 10 * 60_000,
  /** How long the hello of an own start is tried (ms). */
  announceMs: 10 * 60_000,
  /** Answer expected of a link that a wake puts in doubt (ms). */
  probeMs: 2_000,
} as const;

export interface LinkOptions extends Greeting {
  readonly domain: string;
  /** Its keys and addresses as of now. */
  readonly peer: () => Peer;
  /** Runs before each dial: finds keys where none are known. What it throws is the dial's failure. */
  readonly prepare?: () => Promise<void>;
  readonly transport: Transport;
  readonly transportLimits: TransportLimits;
  readonly identity: NodeIdentity;
  readonly runtime: Runtime;
  readonly loadState: () => Promise<PeerState>;
  readonly saveState: (state: PeerState) => Promise<void>;
  readonly hasWork: () => boolean;
  /** A dial or its hello failed. */
  readonly onUndialed?: (error: QpcError) => void;
  /** The link went down, or could not be made. */
  readonly onState?: () => void;
  /** Runs while the link is up and returns once the session's signal is aborted. Never throws. */
  readonly serve: (session: LinkSession) => Promise<void>;
}

export interface LinkStatus {
  readonly state: LinkState;
  readonly failures: number;
  /** Unix ms since when it fails; 0 = it does not. */
  readonly failingSinceMs: number;
  /** Until the next dial (ms); 0 when none is waited for. */
  readonly nextDialInMs: number;
  /** Reason of the last failure. */
  readonly lastError: string | undefined;
}

/** Keeps the connection to one peer. `run` is called once. */
export class PeerLink {
  readonly #options: LinkOptions;
  readonly #wakeup: Wakeup;
  #state: LinkState = 'idle';
  #saved: PeerState = { failures: 0, nextTryMs: 0, failingSinceMs: 0 };
  /** Tries since the last good life or wake: the exponent of the back-off. */
  #tries = 0;
  /** Dials after a wake that failed: they space the dials to a peer that hears us no more. */
  #vainWakes = 0;
  #lastVainWakeMs = Number.NEGATIVE_INFINITY;
  /** Monotonic ms, as all instants here but those of `#saved`. */
  #nextDialMs = 0;
  #dialBeganMs = Number.NEGATIVE_INFINITY;
  #dialFailedMs = Number.NEGATIVE_INFINITY;
  /** Ends the dial of one endpoint. */
  #endDial: ((reason: TransportError) => void) | undefined;
  #announceUntilMs = Number.NEGATIVE_INFINITY;
  /** A wake came while a dial was under way: it counts when that dial fails. */
  #isWoken = false;
  /** The next dial is due to a wake. */
  #isWakeDial = false;
  #isProbing = false;
  /** When a call was answered last. */
  #heardMs = Number.NEGATIVE_INFINITY;
  #isStopped = false;
  #lastError: QpcError | undefined;
  #session: LinkSession | undefined;
  #demands: PromiseWithResolvers<LinkSession>[] = [];

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#wakeup = new Wakeup(options.runtime.clock);
  }

  status(): LinkStatus {
    const isWaiting = this.#state === 'backoff' || this.#state === 'suspended';
    return {
      state: this.#state,
      failures: this.#saved.failures,
      failingSinceMs: this.#saved.failingSinceMs,
      nextDialInMs: isWaiting ? Math.max(0, Math.round(this.#nextDialMs - this.#nowMs())) : 0,
      lastError: this.#lastError?.reason,
    };
  }

  /** There may be work now. */
  notify(): void {
    this.#wakeup.raise();
  }

  /** "I am back": dials after `afterMs` even without work, until a hello is answered (10 min). */
  announce(afterMs: number): void {
    this.#announceUntilMs = this.#nowMs() + afterMs + linkLimits.announceMs;
    this.#nextDialMs = this.#nowMs() + afterMs;
    this.#wakeup.raise();
  }

  /**
   * The peer was heard: back-off ends. A link that is up gets probed instead, for the peer that
   * speaks may be a new process, and our connection one to its predecessor.
   */
  wake(): void {
    if (this.#state === 'active') void this.#runProbe();
    else if (this.#state === 'connecting') this.#wakeWhileDialing();
    else if (this.#state !== 'idle') this.#endBackOff();
  }

  /** Somebody says that the peer does not answer: a link that is up has to show that it does (2 s). */
  doubt(): void {
    if (this.#state === 'active') void this.#runProbe();
  }

  /**
   * The session, dialing at once if need be. Throws UnavailableError PEER_UNREACHABLE when a dial
   * failed less than a second ago, fails now, or is not done within 5 s.
   */
  async session(signal?: AbortSignal): Promise<LinkSession> {
    if (this.#session !== undefined) return this.#session;
    const isTooSoon =
      this.#state !== 'connecting' && this.#nowMs() < this.#dialFailedMs + linkLimits.spacingMs;
    if (this.#isStopped || isTooSoon || signal?.aborted === true) throw this.#unreachable();
    const demand = Promise.withResolvers<LinkSession>();
    this.#demands.push(demand);
    this.#wakeup.raise();
    const giveUp = (): void => demand.reject(this.#unreachable());
    const timer = this.#options.runtime.clock.timer(linkLimits.demandMs, giveUp);
    signal?.addEventListener('abort', giveUp, { once: true });
    try {
      return await demand.promise;
    } finally {
      timer.cancel();
      signal?.removeEventListener('abort', giveUp);
      this.#demands = this.#demands.filter((one) => one !== demand);
    }
  }

  /** The peer's keys changed: a link whose key is none of them any more ends. */
  keysChanged(): void {
    const session = this.#session;
    if (session === undefined) return;
    const { pins } = this.#options.peer();
    if (pins.some((pin) => Buffer.compare(pin, session.spkiSha256) === 0)) return;
    session.end(new TransportError('closed', 'the key of this link is not valid any more'));
  }

  /** Keeps the link until the signal. Never throws; the connection is closed when it resolves. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = (): void => this.#wakeup.raise();
    signal.addEventListener('abort', stop, { once: true });
    await this.#load();
    while (!signal.aborted) {
      const waitMs = this.#waitMs();
      if (waitMs > 0) await this.#wakeup.wait(waitMs);
      else await this.#attempt(signal);
    }
    this.#isStopped = true;
    this.#state = 'idle';
    this.#rejectDemands();
  }

  async #load(): Promise<void> {
    const { domain, runtime, loadState } = this.#options;
    try {
      this.#saved = await loadState();
    } catch (error) {
      runtime.log.error('peer state unread', { peer: domain, error: String(error) });
    }
    // The exponent goes on where it was. The wait itself does not: a start dials everybody.
    this.#tries = this.#saved.failures;
    if (this.#saved.failures > 0) this.#state = 'backoff';
  }

  /** Until the next dial (ms): 0 = now, infinite when nothing is to be done. */
  #waitMs(): number {
    if (this.#demands.length > 0) return 0;
    const isWanted = this.#options.hasWork() || this.#nowMs() < this.#announceUntilMs;
    return isWanted ? Math.max(0, this.#nextDialMs - this.#nowMs()) : Number.POSITIVE_INFINITY;
  }

  async #attempt(signal: AbortSignal): Promise<void> {
    const isExtra = this.#nowMs() < this.#nextDialMs;
    this.#state = 'connecting';
    this.#isWoken = false;
    this.#dialBeganMs = this.#nowMs();
    let connection: Connection | undefined;
    try {
      connection = await this.#dial(signal);
      await this.#live(connection, signal);
    } catch (error) {
      this.#dialFailedMs = this.#nowMs();
      this.#rejectDemands(error);
      this.#options.onUndialed?.(asQpcError(error));
      if (!signal.aborted) await this.#undialed(asQpcError(error), isExtra);
    } finally {
      await connection?.close(CloseCode.Normal, 'done').catch(() => undefined);
    }
  }

  async #dial(signal: AbortSignal): Promise<Connection> {
    const { transport, transportLimits, identity, runtime, prepare } = this.#options;
    await prepare?.();
    const peer = this.#options.peer();
    // An empty list of pins must never mean that any key will do.
    if (peer.pins.length === 0) throw this.#unreachable('no key of it is known');
    let last: unknown = this.#unreachable('it has no address');
    for (const endpoint of peer.endpoints) {
      const limit = new AbortController();
      this.#endDial = (reason) => limit.abort(reason);
      const timer = runtime.clock.timer(linkLimits.dialMs, () =>
        limit.abort(new TransportError('timeout', `dial: not done in ${linkLimits.dialMs} ms`)),
      );
      try {
        return await transport.dial(endpoint, {
          identity,
          limits: transportLimits,
          // A peer calls over the connection that it dialed itself, never over ours.
          maxRequestBytes: () => 0,
          pins: peer.pins,
          signal: AbortSignal.any([signal, limit.signal]),
        });
      } catch (error) {
        last = error;
        if (signal.aborted) break;
      } finally {
        timer.cancel();
        this.#endDial = undefined;
      }
    }
    throw last;
  }

  /** From the hello to the end of the connection. Throws when the hello fails, and only then. */
  async #live(connection: Connection, signal: AbortSignal): Promise<void> {
    const { domain, runtime, serve } = this.#options;
    const ended = new AbortController();
    const stop = (): void => ended.abort(new UnavailableError('DRAINING', 'this node is stopping'));
    signal.addEventListener('abort', stop, { once: true });
    void connection.closed.then((info) => ended.abort(closedError(info)));
    let isGood = false;
    try {
      const session = await greet(connection, this.#options, ended, () => {
        isGood = true;
        this.#heardMs = this.#nowMs();
      });
      const bornMs = this.#nowMs();
      this.#state = 'active';
      this.#session = session;
      this.#announceUntilMs = Number.NEGATIVE_INFINITY;
      this.#vainWakes = 0;
      this.#isWakeDial = false;
      for (const demand of this.#demands.splice(0)) demand.resolve(session);
      const { version } = session.hello;
      runtime.log.info('peer connected', {
        peer: domain,
        at: connection.peer.address,
        version,
      });
      await this.#save({ failures: 0, nextTryMs: 0, failingSinceMs: 0 });
      await serve(session);
      await untilAborted(ended.signal);
      this.#session = undefined;
      if (isGood || this.#nowMs() - bornMs >= linkLimits.goodLifeMs) this.#tries = 0;
      if (!signal.aborted) await this.#lost(asQpcError(ended.signal.reason));
    } finally {
      this.#session = undefined;
      signal.removeEventListener('abort', stop);
    }
  }

  /** A session ended. */
  async #lost(error: QpcError): Promise<void> {
    const { domain, runtime, hasWork } = this.#options;
    this.#lastError = error;
    if (isOperatorsMatter(error)) return this.#undialed(error, false);
    this.#setNextDial(retryDelayMs(this.#tries, retryCapMs(0), runtime.random));
    this.#tries += 1;
    this.#state = hasWork() ? 'backoff' : 'idle';
    if (this.#isWoken) this.#endBackOff();
    this.#options.onState?.();
    runtime.log.info('peer lost', {
      peer: domain,
      reason: error.reason,
      error: error.message,
    });
  }

  /** A dial or its hello failed. `isExtra`: it was made on demand, before the back-off was over. */
  async #undialed(error: QpcError, isExtra: boolean): Promise<void> {
    const { domain, runtime } = this.#options;
    this.#lastError = error;
    if (this.#isWakeDial) {
      this.#vainWakes += 1;
      this.#lastVainWakeMs = this.#nowMs();
    }
    this.#isWakeDial = false;
    const isSuspended = isOperatorsMatter(error);
    this.#state = isSuspended ? 'suspended' : 'backoff';
    const failingSinceMs = this.#saved.failingSinceMs || runtime.clock.now();
    const capMs = retryCapMs(runtime.clock.now() - failingSinceMs);
    // Users who look somebody up must not lengthen the back-off of the rows.
    if (!isExtra) {
      const delayMs = retryDelayMs(this.#tries, capMs, runtime.random);
      const askedMs = Math.min(error.retryAfterMs ?? 0, capMs);
      this.#setNextDial(isSuspended ? linkLimits.suspendedMs : Math.max(delayMs, askedMs));
      this.#tries += 1;
    }
    if (this.#isWoken) this.#endBackOff();
    const retryInMs = Math.max(0, Math.round(this.#nextDialMs - this.#nowMs()));
    const fields = { peer: domain, reason: error.reason, error: error.message, retryInMs };
    if (isSuspended) runtime.log.error('peer suspended', fields);
    else runtime.log.warn('peer unreachable', { ...fields, tries: this.#tries });
    this.#options.onState?.();
    const nextTryMs = Math.round(runtime.clock.now() + retryInMs);
    await this.#save({ failures: Math.max(1, this.#tries), nextTryMs, failingSinceMs });
  }

  #setNextDial(inMs: number): void {
    this.#nextDialMs = this.#nowMs() + inMs;
  }

  /** A dial older than a second knocked before the peer was there: the next one is faster. */
  #wakeWhileDialing(): void {
    this.#isWoken = true;
    if (this.#nowMs() < this.#dialBeganMs + linkLimits.spacingMs) return;
    this.#endDial?.(new TransportError('cancelled', 'dial: the peer is back, dialing anew'));
  }

  #endBackOff(): void {
    if (this.#nowMs() > this.#lastVainWakeMs + linkLimits.wakeMemoryMs) this.#vainWakes = 0;
    const spacingMs = Math.min(
      linkLimits.spacingMs * 2 ** Math.min(this.#vainWakes, 10),
      linkLimits.spacingMaxMs,
    );
    this.#isWakeDial = true;
    this.#isWoken = false;
    // Only the first wake in vain starts the exponent anew, or a talkative peer would keep it at 0.
    if (this.#vainWakes === 0) this.#tries = 0;
    this.#nextDialMs = Math.min(this.#nextDialMs, this.#dialBeganMs + spacingMs);
    if (this.#state === 'suspended') this.#state = 'backoff';
    this.#wakeup.raise();
  }

  async #runProbe(): Promise<void> {
    const current = this.#session;
    if (current === undefined || this.#isProbing) return;
    this.#isProbing = true;
    // What was under way when the peer died has come by then.
    const deadMs = this.#nowMs() + linkLimits.probeMs / 2;
    try {
      const request = await this.#options.makeHello();
      await current.call(methods.fedHello, request, { deadlineMs: linkLimits.probeMs });
    } catch (error) {
      // A slow peer, which anybody in one of its groups may doubt, is none that is gone.
      const isHeard = this.#heardMs >= deadMs;
      // The peer is alive and does not answer here: this connection is one to its past.
      if (error instanceof TransportError && this.#session === current && !isHeard) {
        this.#isWoken = true;
        current.end(error);
      }
    } finally {
      this.#isProbing = false;
    }
  }

  async #save(state: PeerState): Promise<void> {
    const { domain, runtime, saveState } = this.#options;
    if (state.failures === 0 && this.#saved.failures === 0) return;
    this.#saved = state;
    try {
      await saveState(state);
    } catch (error) {
      // The back-off works from memory; only a restart would dial early.
      runtime.log.error('peer state unsaved', { peer: domain, error: String(error) });
    }
  }

  #rejectDemands(cause?: unknown): void {
    for (const demand of this.#demands.splice(0)) demand.reject(this.#unreachable(cause));
  }

  #unreachable(cause: unknown = this.#lastError): UnavailableError {
    const message = `${this.#options.domain} cannot be reached now`;
    return new UnavailableError('PEER_UNREACHABLE', message, { cause });
  }

  #nowMs(): number {
    return this.#options.runtime.clock.monotonic();
  }
}
