/**
 * What one sender may cost a node beside its calls (docs: protocol/delivery, "Limits"): messages of a
 * batch, payload bytes and distinct recipients. A device is known by its key, an anonymous sender by
 * its address. Memory is bounded; what is forgotten first is the sender that was idle longest.
 */
import {
  ResourceExhaustedError,
  TokenBuckets,
  type Caller,
  type Clock,
  type Rate,
} from '@quicprochat/proto';
import { limitKey, type Connection } from '@quicprochat/proto/transport';

export interface SendLimits {
  readonly messages: Rate;
  readonly recipientsPerHour: number;
  readonly bytesPerMinute: number;
}

/** Recipients that are remembered of all senders together. */
const recipientsMax = 1_000_000;
const hourMs = 3_600_000;
/** Bytes of a recipient's key that are remembered: enough to count by. */
const rememberedBytes = 12;

interface Window {
  readonly untilMs: number;
  readonly recipients: Set<string>;
}

export class SendQuota {
  readonly #clock: Clock;
  readonly #limits: SendLimits;
  readonly #messages: TokenBuckets;
  readonly #bytes: TokenBuckets;
  /** In the order of their last use. */
  readonly #windows = new Map<string, Window>();
  #remembered = 0;

  constructor(clock: Clock, limits: SendLimits) {
    this.#clock = clock;
    this.#limits = limits;
    this.#messages = new TokenBuckets(clock);
    this.#bytes = new TokenBuckets(clock);
  }

  /**
   * Counts payloads: `messages` beyond the one that the call itself is, and their bytes. Throws
   * ResourceExhaustedError RATE_LIMITED with the time until there is room.
   */
  take(sender: string, messages: number, bytes: number): void {
    const { messages: rate, bytesPerMinute } = this.#limits;
    const byteRate = { perSecond: bytesPerMinute / 60, burst: bytesPerMinute };
    const waitMs =
      (messages > 0 ? this.#messages.take(sender, rate, Math.min(messages, rate.burst)) : 0) ||
      this.#bytes.take(sender, byteRate, Math.min(bytes, byteRate.burst));
    if (waitMs === 0) return;
    throw new ResourceExhaustedError('RATE_LIMITED', 'more than this sender may send', {
      retryAfterMs: waitMs,
    });
  }

  /** Counts a recipient of the hour; returns 0, or the ms until one more may be written to. */
  recipient(sender: string, rid: Uint8Array): number {
    const nowMs = this.#clock.monotonic();
    const window = this.#window(sender, nowMs);
    const key = Buffer.from(rid.subarray(0, rememberedBytes)).toString('latin1');
    if (window.recipients.has(key)) return 0;
    if (window.recipients.size >= this.#limits.recipientsPerHour) {
      return Math.max(1, Math.ceil(window.untilMs - nowMs));
    }
    window.recipients.add(key);
    this.#remembered += 1;
    this.#evict();
    return 0;
  }

  #window(sender: string, nowMs: number): Window {
    const known = this.#windows.get(sender);
    const isOver = known !== undefined && known.untilMs <= nowMs;
    if (isOver) this.#remembered -= known.recipients.size;
    const window =
      known === undefined || isOver
        ? { untilMs: nowMs + hourMs, recipients: new Set<string>() }
        : known;
    // Deleting first moves the sender to the end: the map's order is the order of use.
    this.#windows.delete(sender);
    this.#windows.set(sender, window);
    return window;
  }

  #evict(): void {
    for (const [sender, { recipients }] of this.#windows) {
      if (this.#remembered <= recipientsMax) return;
      this.#windows.delete(sender);
      this.#remembered -= recipients.size;
    }
  }
}

/** Whom a sender's quota belongs to. */
export function senderKey(caller: Caller, connection: Connection): string {
  return caller.class === 'device'
    ? `device ${Buffer.from(caller.identityPub).toString('latin1')}`
    : `host ${limitKey(connection.peer.host)}`;
}
