/**
 * Asks nodes where devices can be reached that said nothing of it here (method 801): members of conversations
 * whose delivery token is known, over a connection that says nothing of who asks. So somebody who never wrote
 * is found over relays once all nodes that matter are dead; of direct addresses a node knows nothing.
 */
import {
  deliveryTokenBytes,
  hex,
  jitter,
  methods,
  parseUserId,
  QpcError,
  TransportError,
  UnavailableError,
  type Runtime,
  type Timer,
} from '@quicprochat/proto';
import type { EventBus } from '../events.ts';
import type { Caller } from '../dial.ts';
import type { ClientStore } from '../store/store.ts';
import type { Acquaintances } from './acquaintances.ts';
import type { Endpoints } from './endpoints.ts';

export const lookupLimits = {
  /** After something changed, and as much at random (ms): who is to be found tells its node first. */
  delayMs: 2_000,
  /** Between two rounds without a change (ms). */
  roundMs: 3_600_000,
  /** Questions of one round; the rest comes in the next one. */
  perRound: 64,
  /** A device is asked for again after an answer, and after none (ms). */
  answeredMs: 6 * 3_600_000,
  silentMs: 10 * 60_000,
  /** Devices that were asked for, remembered. */
  asked: 4_096,
} as const;

export interface EndpointLookupsParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly acquaintances: Pick<Acquaintances, 'members'>;
  readonly endpoints: Pick<Endpoints, 'of' | 'take'>;
  /** A connection to a domain's node that says nothing of this device. */
  readonly callerOf: (domain: string) => Promise<Caller>;
}

export class EndpointLookups {
  readonly #parts: EndpointLookupsParts;
  readonly #watching: Disposable;
  readonly #ended = new AbortController();
  /** Devices (hex), until when they are not asked for (monotonic ms). */
  readonly #restsUntil = new Map<string, number>();
  #timer: Timer | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(parts: EndpointLookupsParts) {
    this.#parts = parts;
    this.#watching = parts.events.listen(({ type }) => {
      if (type === 'joined' || type === 'membersChanged') this.soon();
    });
  }

  /** There may be somebody to ask for. */
  soon(): void {
    const { random } = this.#parts.runtime;
    this.#plan(lookupLimits.delayMs + jitter(random, lookupLimits.delayMs));
  }

  async stop(): Promise<void> {
    this.#watching[Symbol.dispose]();
    this.#ended.abort(new TransportError('closed', 'lookups: stopped'));
    this.#timer?.cancel();
    await this.#running;
  }

  #plan(waitMs: number): void {
    if (this.#ended.signal.aborted) return;
    this.#timer?.cancel();
    const { clock, log } = this.#parts.runtime;
    this.#timer = clock.timer(waitMs, () => {
      this.#running = this.#running
        .then(() => this.#round())
        .catch((error: unknown) => log.error('endpoint lookups', { error: String(error) }))
        .finally(() => this.#plan(lookupLimits.roundMs));
    });
  }

  async #round(): Promise<void> {
    const { store, runtime, acquaintances, endpoints } = this.#parts;
    const blocked = store.tokens.blocked();
    let asked = 0;
    for (const [target, userId] of await acquaintances.members()) {
      if (this.#ended.signal.aborted || asked >= lookupLimits.perRound) return;
      const untilMs = this.#restsUntil.get(target) ?? 0;
      const isKnown = endpoints.of(target) !== undefined || blocked.includes(userId);
      if (isKnown || untilMs > runtime.clock.monotonic()) continue;
      const rid = new Uint8Array(Buffer.from(target, 'hex'));
      const token = store.tokens.of(rid);
      if (token?.length !== deliveryTokenBytes) continue;
      asked += 1;
      await this.#ask(rid, token, parseUserId(userId).domain);
    }
  }

  async #ask(rid: Uint8Array, token: Uint8Array, domain: string): Promise<void> {
    const { store, runtime, endpoints, callerOf } = this.#parts;
    try {
      const { signal } = this.#ended;
      const caller = await callerOf(domain);
      const { endpoint } = await caller.call(methods.resolveEndpoint, { rid, token }, { signal });
      // A record that the device did not sign itself, or an old one, is dropped there.
      if (endpoint !== undefined) store.transaction(() => endpoints.take(endpoint, rid));
      this.#rest(rid, lookupLimits.answeredMs);
    } catch (error) {
      if (!(error instanceof QpcError)) throw error;
      runtime.log.debug('endpoint not found', { domain, reason: error.reason });
      const isSilent = error instanceof TransportError || error instanceof UnavailableError;
      this.#rest(rid, isSilent ? lookupLimits.silentMs : lookupLimits.answeredMs);
    }
  }

  #rest(rid: Uint8Array, forMs: number): void {
    const { clock } = this.#parts.runtime;
    const name = hex(rid);
    this.#restsUntil.delete(name);
    this.#restsUntil.set(name, clock.monotonic() + forMs);
    for (const oldest of this.#restsUntil.keys()) {
      if (this.#restsUntil.size <= lookupLimits.asked) break;
      this.#restsUntil.delete(oldest);
    }
  }
}
