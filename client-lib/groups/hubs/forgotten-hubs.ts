/**
 * Groups that their only hub does not know any more (docs/protocol/group-log.md, "A restored hub of one"): whoever has
 * all entries can begin them there again, and a wish waits for that before it is refused.
 */
import { hasReason, type Clock } from '@quicprochat/proto';
import { GroupChangeError } from '../intents/group-intents.ts';

export const forgottenHubLimits = {
  /** A wish waits so long (ms), from the first answer on, within one start of the device. */
  waitMs: 10 * 60_000,
  /** Groups that are remembered. */
  groups: 1_024,
} as const;

export class ForgottenHubs {
  readonly #clock: Pick<Clock, 'monotonic'>;
  /** By group in hex: when its hub said so first (monotonic ms). */
  readonly #since = new Map<string, number>();

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.#clock = clock;
  }

  /** Whether this answer of a hub says that it forgot the group, and others may bring it back still. */
  mayComeBack(key: string, error: unknown): boolean {
    const isOfHub = !(error instanceof GroupChangeError);
    if (!isOfHub || !hasReason(error, 'UNKNOWN_GROUP')) return false;
    const nowMs = this.#clock.monotonic();
    const sinceMs = this.#since.get(key) ?? nowMs;
    if (nowMs - sinceMs >= forgottenHubLimits.waitMs) {
      this.#since.delete(key);
      return false;
    }
    this.#since.set(key, sinceMs);
    for (const oldest of this.#since.keys()) {
      if (this.#since.size <= forgottenHubLimits.groups) break;
      this.#since.delete(oldest);
    }
    return true;
  }

  /** The hub knows it. */
  isBack(key: string): void {
    this.#since.delete(key);
  }
}
