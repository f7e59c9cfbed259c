/**
 * When a device asks nodes what they have heard of logs: the own one on every session, at its word, and
 * every few minutes; and, where the application allows ways past the own node, one other node after the
 * other, about the own log and theirs. The own node is asked about everything else already.
 */
import { jitter, QpcError, type Runtime } from '@quicprochat/proto';
import type { Caller } from '../dial.ts';
import type { Session } from '../session.ts';
import type { LogGossip } from './log-gossip.ts';
import type { Logs } from './logs.ts';

export const gossipRoundLimits = {
  /** Between two questions to the own node (ms), and how much of it is random. */
  ownMs: 5 * 60_000,
  ownJitterMs: 60_000,
  /** Between two questions to other nodes: while the own one answers, and while it does not (ms). */
  othersMs: 10 * 60_000,
  silentMs: 60_000,
} as const;

export interface GossipRoundsParts {
  readonly gossip: Pick<LogGossip, 'ask'>;
  readonly runtime: Runtime;
  readonly logs: Pick<Logs, 'domains'>;
  readonly ownDomain: string;
  /** A connection to another domain's node that says nothing of who asks. Absent: none is asked. */
  readonly callerOf?: ((domain: string) => Promise<Caller>) | undefined;
}

export class GossipRounds {
  readonly #parts: GossipRoundsParts;
  readonly #ended = new AbortController();
  #wake: (() => void) | undefined;
  #isOnline = false;
  #turn = 0;
  #others: Promise<void> = Promise.resolve();

  constructor(parts: GossipRoundsParts) {
    this.#parts = parts;
  }

  /** The own node says that there is evidence. */
  hint(): void {
    this.#wake?.();
  }

  /** Asks the own node until the session ends. */
  async follow(session: Session): Promise<void> {
    const { gossip, runtime } = this.#parts;
    const { ownMs, ownJitterMs } = gossipRoundLimits;
    this.#isOnline = true;
    while (!session.signal.aborted) {
      const waking = new AbortController();
      this.#wake = () => waking.abort();
      await this.#asked(() => gossip.ask(session));
      const either = AbortSignal.any([session.signal, waking.signal]);
      const waitMs = ownMs + jitter(runtime.random, ownJitterMs);
      await runtime.clock.sleep(waitMs, either).catch(() => undefined);
    }
    this.#isOnline = false;
  }

  /** Asks other nodes from now on. No effect where that is not allowed. */
  start(): void {
    if (this.#parts.callerOf !== undefined) this.#others = this.#askOthers(this.#parts.callerOf);
  }

  async stop(): Promise<void> {
    this.#ended.abort();
    await this.#others;
  }

  async #askOthers(callerOf: (domain: string) => Promise<Caller>): Promise<void> {
    const { clock, random } = this.#parts.runtime;
    const { signal } = this.#ended;
    const { othersMs, silentMs } = gossipRoundLimits;
    let askedMs = clock.monotonic();
    while (!signal.aborted) {
      await clock.sleep(silentMs / 2 + jitter(random, silentMs), signal).catch(() => undefined);
      const isDue = !this.#isOnline || clock.monotonic() - askedMs >= othersMs;
      if (!isDue || signal.aborted) continue;
      askedMs = clock.monotonic();
      await this.#askNext(callerOf);
    }
  }

  async #askNext(callerOf: (domain: string) => Promise<Caller>): Promise<void> {
    const { gossip, logs, ownDomain } = this.#parts;
    const others = logs.domains().filter((domain) => domain !== ownDomain);
    const domain = others[this.#turn % Math.max(1, others.length)];
    this.#turn += 1;
    if (domain === undefined) return;
    // No more than these two: whom else this device knows is not that node's business.
    await this.#asked(async () => gossip.ask(await callerOf(domain), [ownDomain, domain]));
  }

  async #asked(ask: () => Promise<void>): Promise<void> {
    try {
      await ask();
    } catch (error) {
      if (!(error instanceof QpcError)) throw error;
      this.#parts.runtime.log.debug('nothing heard of logs', { reason: error.reason });
    }
  }
}
