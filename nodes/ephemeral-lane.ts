/**
 * The ephemeral lane of a subscription: hints on a stream of their own, in memory only, at most 32 at
 * a time. What does not fit, or waited for too long, is dropped: nobody misses it later.
 */
import { PushEvent, TokenBuckets, type Clock, type Log } from '@quicprochat/proto';
import { create, StreamStartEventSchema, toBinary } from '@quicprochat/proto/messages';
import type { Connection, PushWriter } from '@quicprochat/proto/transport';

export const ephemeralLimits = {
  /** Hints that wait for one device. */
  queued: 32,
  /** How long typing is worth anything (ms). */
  typingMs: 10_000,
  /** Typing that a device is told of, whoever sends it: peers have no other bound for one device. */
  typing: { perSecond: 10, burst: 64 },
} as const;

interface Hint {
  readonly eventType: number;
  readonly payload: Uint8Array;
  /** By the monotonic clock. */
  readonly diesMs: number;
}

/** First frame of a stream where Subscribe asked for two. */
export function streamStart(
  subscription: number,
  isEphemeral: boolean,
): { readonly eventType: number; readonly payload: Uint8Array } {
  const event = create(StreamStartEventSchema, { subscription, isEphemeral });
  return { eventType: PushEvent.StreamStart, payload: toBinary(StreamStartEventSchema, event) };
}

export class EphemeralLane {
  readonly #connection: Connection;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #hints: Hint[] = [];
  #wake: () => void = () => undefined;
  #isClosed = false;
  readonly #rate: TokenBuckets;

  constructor(connection: Connection, clock: Clock, log: Log) {
    this.#connection = connection;
    this.#clock = clock;
    this.#rate = new TokenBuckets(clock);
    this.#log = log;
  }

  offer(eventType: number, payload: Uint8Array): void {
    const { queued, typing, typingMs } = ephemeralLimits;
    const isTyping = eventType === PushEvent.Typing;
    if (isTyping && this.#rate.take('typing', typing) > 0) return;
    if (this.#hints.length >= queued) {
      // The oldest typing makes room for what lasts longer; typing itself never pushes anything out.
      const oldest = isTyping
        ? -1
        : this.#hints.findIndex((hint) => hint.eventType === PushEvent.Typing);
      if (oldest < 0) return;
      this.#hints.splice(oldest, 1);
    }
    const diesMs = isTyping ? this.#clock.monotonic() + typingMs : Infinity;
    this.#hints.push({ eventType, payload, diesMs });
    this.#wake();
  }

  close(): void {
    this.#isClosed = true;
    this.#wake();
  }

  /** Sends until `close` or the end of the connection. Never throws. */
  async run(subscription: number): Promise<void> {
    try {
      const writer = await this.#connection.openPushStream();
      await writer.write(streamStart(subscription, true));
      while (!this.#isClosed) {
        await this.#flush(writer);
        if (!this.#isClosed && this.#hints.length === 0) {
          await new Promise<void>((resolve) => (this.#wake = resolve));
        }
      }
      await this.#flush(writer);
      await writer.close();
    } catch (error) {
      // The connection went away; what waited goes with it.
      this.#log.debug('ephemeral lane ended', { error: String(error) });
    }
    this.#hints.length = 0;
  }

  async #flush(writer: PushWriter): Promise<void> {
    for (let hint = this.#hints.shift(); hint !== undefined; hint = this.#hints.shift()) {
      if (hint.diesMs > this.#clock.monotonic()) await writer.write(hint);
    }
  }
}
