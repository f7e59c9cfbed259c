/**
 * How many epochs of one group come from one device or domain (docs/protocol/group-log.md, "Acceptance"). Every one costs all
 * members a tree of keys, and eight of them end what was sealed in the first: a member that commits as fast as it can
 * would wear out the others. Memory is bounded; who was idle longest is forgotten first.
 */
import {
  ResourceExhaustedError,
  type Clock,
  type ParsedEntry,
  type Rate,
} from '@quicprochat/proto';
import type { Submitter } from './sibling-quota.ts';

/** Of what a device may send: a commit counts as 180 messages, and a fifth of a burst may be commits. */
const messagesPerCommit = 180;
const burstShare = 5;
/** Of one domain's members together, at a hub elsewhere. */
const devicesPerDomain = 4;
const rememberedMax = 16_384;

interface Bucket {
  /** Commits that count at `atMs` (monotonic); they run out with time. */
  readonly level: number;
  readonly atMs: number;
}

/** Commits of one device in one group: of the rate of its messages. */
export const epochRate = ({ perSecond, burst }: Rate): Rate => ({
  perSecond: perSecond / messagesPerCommit,
  burst: Math.max(1, Math.floor(burst / burstShare)),
});

export class EpochQuota {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #rate: Rate;
  readonly #remembered: number;
  readonly #buckets = new Map<string, Bucket>();

  /** `messages`: what one device may send. */
  constructor(clock: Pick<Clock, 'monotonic'>, messages: Rate, remembered = rememberedMax) {
    this.#clock = clock;
    this.#rate = epochRate(messages);
    this.#remembered = remembered;
  }

  /**
   * Runs a submission, and counts it unless it fails. Throws ResourceExhaustedError RATE_LIMITED with the time
   * until there is room, and what `submit` throws.
   */
  async within<T>(
    { entry: { group } }: Pick<ParsedEntry, 'entry'>,
    submitter: Submitter,
    submit: () => Promise<T>,
  ): Promise<T> {
    const isDevice = typeof submitter !== 'string';
    const key = `${nameOf(group)} ${isDevice ? nameOf(submitter) : `@${submitter}`}`;
    const times = isDevice ? 1 : devicesPerDomain;
    const perSecond = this.#rate.perSecond * times;
    const level = this.#level(key, perSecond);
    const over = level + 1 - this.#rate.burst * times;
    if (over > 0) {
      const retryAfterMs = Math.ceil((over / perSecond) * 1000);
      throw new ResourceExhaustedError('RATE_LIMITED', 'too many commits in one group', {
        retryAfterMs,
      });
    }
    // Taken before the answer: many at once are no way round.
    this.#put(key, level + 1);
    try {
      return await submit();
    } catch (error) {
      this.#put(key, Math.max(0, this.#level(key, perSecond) - 1));
      throw error;
    }
  }

  #level(key: string, perSecond: number): number {
    const { level, atMs } = this.#buckets.get(key) ?? { level: 0, atMs: 0 };
    return Math.max(0, level - ((this.#clock.monotonic() - atMs) / 1000) * perSecond);
  }

  #put(key: string, level: number): void {
    this.#buckets.delete(key);
    if (level > 0) this.#buckets.set(key, { level, atMs: this.#clock.monotonic() });
    for (const oldest of this.#buckets.keys()) {
      if (this.#buckets.size <= this.#remembered) break;
      this.#buckets.delete(oldest);
    }
  }
}

const nameOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
