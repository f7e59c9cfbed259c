/**
 * What a member does about a hub that says of itself that it is an older copy (docs/protocol/group-log.md, "A
 * lying hub"): who has entries that the hub lost does not know that, so whoever hears it tells the others where it
 * stands, and those that are further on look at the log and bring back what is missing there.
 */
import { hex, type Clock } from '@quicprochat/proto';

export const restoredHubLimits = {
  /** Of one group others are told once in so long (ms), */
  tellMs: 10 * 60_000,
  /** and the log is looked at for others once in so long (ms). */
  lookMs: 30_000,
  /** Groups that are remembered. */
  groups: 1_024,
} as const;

export interface RestoredHubsParts {
  readonly clock: Pick<Clock, 'monotonic'>;
  /** Tells other members the newest entry that this device has. */
  readonly tell: (groupId: Uint8Array) => void;
  /** Reads the log, which gives the hub back what it lacks. */
  readonly look: (groupId: Uint8Array) => void;
}

export class RestoredHubs {
  readonly #parts: RestoredHubsParts;
  readonly #told = new Map<string, number>();
  readonly #looked = new Map<string, number>();

  constructor(parts: RestoredHubsParts) {
    this.#parts = parts;
  }

  /** The hub of this group takes no change: it may have forgotten some. */
  heard(groupId: Uint8Array): void {
    this.#parts.look(groupId);
    if (this.#isTime(this.#told, groupId, restoredHubLimits.tellMs)) this.#parts.tell(groupId);
  }

  /** Another member stands at an entry that others came behind here. */
  isBehind(groupId: Uint8Array): void {
    if (this.#isTime(this.#looked, groupId, restoredHubLimits.lookMs)) this.#parts.look(groupId);
  }

  #isTime(times: Map<string, number>, groupId: Uint8Array, everyMs: number): boolean {
    const key = hex(groupId);
    const nowMs = this.#parts.clock.monotonic();
    if (nowMs - (times.get(key) ?? -Infinity) < everyMs) return false;
    times.delete(key);
    times.set(key, nowMs);
    for (const oldest of times.keys()) {
      if (times.size <= restoredHubLimits.groups) break;
      times.delete(oldest);
    }
    return true;
  }
}
