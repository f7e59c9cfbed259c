/**
 * Which hub of a group is asked to take a commit: the only one, or one of several after the other; when none
 * did it for a while, the next one is to take over (docs/protocol/group-log.md).
 */
import { hex, type Clock } from '@quicprochat/proto';
import { isTemporary, ofOneHub } from './commit-refusals.ts';
import type { SubmitAnswer } from '../log/hub-calls.ts';
import type { HubWays } from '../log/hub-ways.ts';

export const hubChoiceLimits = {
  /** None of several hubs did it for so long (ms): the next one is to lead. */
  takeoverMs: 30_000,
} as const;

export class HubChoice {
  readonly #ways: Pick<HubWays, 'submit'>;
  readonly #clock: Clock;
  /** By group in hex: the hub that is asked, and since when none did what it should (monotonic ms). */
  readonly #asked = new Map<string, { readonly index: number; readonly sinceMs: number }>();

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
    const { index, sinceMs } = this.#asked.get(key) ?? { index: 0, sinceMs: nowMs };
    const hub = hubs[index % hubs.length] ?? '';
    const takesOver = nowMs - sinceMs >= hubChoiceLimits.takeoverMs;
    try {
      const answer = await this.#ways.submit({ hub, groupId, request, takesOver }, signal);
      this.#asked.set(key, { index, sinceMs: Infinity });
      return answer;
    } catch (failure) {
      const error = ofOneHub(failure);
      if (!isTemporary(error)) throw error;
      const since = sinceMs === Infinity ? nowMs : sinceMs;
      this.#asked.set(key, { index: index + 1, sinceMs: since });
      throw error;
    }
  }
}
