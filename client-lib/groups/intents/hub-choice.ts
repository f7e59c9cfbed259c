/**
 * Which hub of a group is asked to take a commit: the only one, or one of several after the other; when none
 * did it for a while, the next one is to take over (docs/protocol/group-log.md). What one of several refuses is
 * refused when most of them do.
 */
import { hex, QpcError, UnavailableError, type Clock } from '@quicprochat/proto';
import { isTemporary, ofOneHub } from './commit-refusals.ts';
import type { SubmitAnswer } from '../log/hub-calls.ts';
import type { HubWays } from '../log/hub-ways.ts';

export const hubChoiceLimits = {
  /** None of several hubs did it for so long (ms): the next one is to lead. */
  takeoverMs: 30_000,
} as const;

interface Asked {
  /** The hub that is asked next. */
  readonly index: number;
  /** Since when none did what it should (monotonic ms). */
  readonly sinceMs: number;
  /** Which of them refused since one took something. */
  readonly refusedBy: readonly string[];
}

export class HubChoice {
  readonly #ways: Pick<HubWays, 'submit'>;
  readonly #clock: Clock;
  /** By group in hex. */
  readonly #asked = new Map<string, Asked>();

  constructor(ways: Pick<HubWays, 'submit'>, clock: Clock) {
    this.#ways = ways;
    this.#clock = clock;
  }

  /** One attempt, with an encoded SubmitCommitRequest. Throws as callSubmit. */
  async submit(
    groupId: Uint8Array,
    hubs: readonly string[],
    request: Uint8Array,
    signal: AbortSignal,
  ): Promise<SubmitAnswer> {
    if (hubs.length <= 1) {
      return this.#ways.submit({ hub: hubs[0] ?? '', groupId, request }, signal);
    }
    const key = hex(groupId);
    const nowMs = this.#clock.monotonic();
    const asked = this.#asked.get(key) ?? { index: 0, sinceMs: nowMs, refusedBy: [] };
    const { index, sinceMs } = asked;
    const hub = hubs[index % hubs.length] ?? '';
    const takesOver = nowMs - sinceMs >= hubChoiceLimits.takeoverMs;
    try {
      const answer = await this.#ways.submit({ hub, groupId, request, takesOver }, signal);
      this.#asked.set(key, { index, sinceMs: Infinity, refusedBy: [] });
      return answer;
    } catch (failure) {
      const error = ofOneHub(failure);
      const since = sinceMs === Infinity ? nowMs : sinceMs;
      const isRefused = !isTemporary(error);
      const refusedBy = isRefused ? [...new Set([...asked.refusedBy, hub])] : asked.refusedBy;
      const isFinal = isRefused && 2 * refusedBy.length > hubs.length;
      this.#asked.set(key, {
        ...{ index: index + 1, sinceMs: since },
        refusedBy: isFinal ? [] : refusedBy,
      });
      if (!isRefused || isFinal) throw error;
      const why = error instanceof QpcError ? error.reason : String(error);
      throw new UnavailableError('HUB_UNAVAILABLE', `${hub} refuses: ${why}`, { cause: error });
    }
  }

  /** The hub that was asked last answers, and decides nothing: the next one is asked. */
  moveOn(groupId: Uint8Array): void {
    const key = hex(groupId);
    const asked = this.#asked.get(key);
    if (asked !== undefined) this.#asked.set(key, { ...asked, index: asked.index + 1 });
  }
}
