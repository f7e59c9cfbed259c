/**
 * One online connection to the own node: calls over it, and a node that is gone without a word is
 * noticed long before the idle time-out, by a probe where nothing was heard for a while.
 */
import {
  call,
  hasReason,
  methods,
  TransportError,
  type Clock,
  type Method,
  type RpcOptions,
  type Runtime,
} from '@quicprochat/proto';
import type { HelloResponse, MessageInitShape, MessageShape } from '@quicprochat/proto/messages';
import { CloseCode, type Connection } from '@quicprochat/proto/transport';
import type { Caller } from './dial.ts';
import type { Patience } from './patience.ts';

type DescMessage = Method['request'];

export const sessionLimits = {
  /** Silence after which the node is probed (ms): with calls in flight, and without. */
  probeBusyMs: 1_500,
  probeIdleMs: 10_000,
  /** Time that a probe may take, beyond what makes the node silent, before the connection counts as dead (ms). */
  probeGraceMs: 1_000,
} as const;

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

/** Why a session was given up: nothing was heard since then (monotonic ms), and a probe waited for so long. */
export interface Silence {
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
export class LiveSession implements Session {
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
    this.#clock.timer(sessionLimits.probeBusyMs / 2, () => {
      const silentMs = this.#clock.monotonic() - this.#heardMs;
      const patienceMs = this.#inFlight > 0 ? sessionLimits.probeBusyMs : sessionLimits.probeIdleMs;
      if (this.signal.aborted || silentMs < patienceMs) return this.watch();
      this.#probe();
      return undefined;
    });
  }

  #probe(): void {
    const heardMs = this.#heardMs;
    const silentMs = this.#parts.patience.ms;
    const deadlineMs = silentMs + sessionLimits.probeGraceMs;
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
