/**
 * Middleware: token buckets per caller and rate class. A device is limited by its key, a peer by
 * its domain, everybody else by address (IPv6: /64), and so is what a guest sends. The table of
 * buckets is bounded.
 */
import type { Clock } from '../runtime.ts';
import type { RateClass } from '../methods/row.ts';
import type { Call, Middleware } from '../server.ts';
import { ResourceExhaustedError } from '../status.ts';
import { limitKey } from '../transport/admission.ts';

export interface Rate {
  readonly perSecond: number;
  readonly burst: number;
}
export type Rates = Readonly<Record<RateClass, Rate>>;

/** Least recently used buckets go first; a full bucket forgotten loses nothing. */
const bucketsMax = 50_000;

/** Token buckets by key, at the pace of an injected clock. */
export class TokenBuckets {
  readonly #clock: Clock;
  readonly #buckets = new Map<string, { tokens: number; atMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Takes `count` tokens, at most the burst; returns 0, or the ms until they are there. */
  take(key: string, rate: Rate, count = 1): number {
    const nowMs = this.#clock.monotonic();
    const old = this.#buckets.get(key) ?? { tokens: rate.burst, atMs: nowMs };
    const tokens = Math.min(rate.burst, old.tokens + ((nowMs - old.atMs) / 1000) * rate.perSecond);
    const isGranted = tokens >= count;
    // Deleting first moves the key to the end: the map's order is the order of use.
    this.#buckets.delete(key);
    this.#buckets.set(key, { tokens: isGranted ? tokens - count : tokens, atMs: nowMs });
    if (this.#buckets.size > bucketsMax) {
      for (const oldest of this.#buckets.keys()) {
        this.#buckets.delete(oldest);
        break;
      }
    }
    return isGranted ? 0 : Math.ceil(((count - tokens) / rate.perSecond) * 1000);
  }
}

/** A guest is known for what it reads, which is its own; who sends without a login is anybody. */
const isStranger = ({ caller, method }: Call): boolean =>
  caller.class === 'anyone' || (caller.class === 'guest' && method.rate === 'send');

const hostKey = ({ connection }: Call): string => `host ${limitKey(connection.peer.host)}`;

/** Undefined: who may stop the node needs no limit. */
function callerKey(call: Call): string | undefined {
  const { caller } = call;
  switch (caller.class) {
    case 'enrolling':
    case 'device':
    case 'guest':
      if (isStranger(call)) return hostKey(call);
      return `device ${Buffer.from(caller.identityPub).toString('latin1')}`;
    case 'peer':
      return `peer ${caller.domain}`;
    case 'admin':
      return undefined;
    case 'anyone':
      return hostKey(call);
  }
}

/** Throws ResourceExhaustedError RATE_LIMITED with the time until the next token. */
export function rateLimit(clock: Clock, rates: Rates): Middleware {
  const buckets = new TokenBuckets(clock);
  return (call, next) => {
    const { rate: named } = call.method;
    const isOfStrangers = named === 'send' || named === 'read';
    const rate = isOfStrangers && isStranger(call) ? 'sendAnonymous' : named;
    // What they read takes nothing from what they send.
    const key = callerKey(call);
    const waitMs = key === undefined ? 0 : buckets.take(`${named} ${key}`, rates[rate]);
    if (waitMs > 0) {
      throw new ResourceExhaustedError(
        'RATE_LIMITED',
        `${call.method.name}: more than ${rates[rate].perSecond}/s`,
        {
          retryAfterMs: waitMs,
        },
      );
    }
    return next(call);
  };
}
