/**
 * What a member does about a hub that says of itself that it is an older copy (docs/protocol/group-log.md, "A
 * lying hub"): who has entries that the hub lost does not know that, so whoever hears it tells the others where it
 * stands, and those that are further on look at the log and bring back what is missing there.
 */
import { hex, type Runtime } from '@quicprochat/proto';
import { KeyedWork } from '../../keyed-work.ts';

export const restoredHubLimits = {
  /** Of one group others are told once in so long (ms), */
  tellMs: 10 * 60_000,
  /** and the log is looked at for others once in so long (ms). */
  lookMs: 30_000,
  /** Groups that are remembered. */
  groups: 1_024,
  /** Where nobody could be told it is tried for so long (ms): then the hub goes on with what it has. */
  triedForMs: 2 * 60_000,
  /** First and longest wait between (ms). */
  backOffMinMs: 2_000,
  backOffMaxMs: 20_000,
  atOnce: 8,
} as const;

export interface RestoredHubsParts {
  readonly runtime: Pick<Runtime, 'clock' | 'random'>;
  /** Tells other members the newest entry that this device has; false: there are some, and none could be told. Never fails. */
  readonly tell: (groupId: Uint8Array) => Promise<boolean>;
  /** Reads the log, which gives the hub back what it lacks. */
  readonly look: (groupId: Uint8Array) => void;
}

export class RestoredHubs {
  readonly #parts: RestoredHubsParts;
  readonly #told = new Map<string, number>();
  readonly #looked = new Map<string, number>();
  readonly #telling: KeyedWork<{ readonly groupId: Uint8Array; readonly untilMs: number }>;

  constructor(parts: RestoredHubsParts) {
    this.#parts = parts;
    const { clock } = parts.runtime;
    this.#telling = new KeyedWork({
      ...restoredHubLimits,
      runtime: parts.runtime,
      run: async ({ groupId, untilMs }) => {
        const isTold = await parts.tell(groupId);
        if (!isTold && clock.monotonic() < untilMs) return false;
        // What nobody heard is told when the hub says so again.
        if (!isTold) this.#told.delete(hex(groupId));
        return true;
      },
    });
  }

  /** Resolves when nothing is told any more. */
  idle(): Promise<void> {
    return this.#telling.idle();
  }
  stop(): Promise<void> {
    return this.#telling.stop();
  }

  /** The hub of this group takes no change: it may have forgotten some. */
  heard(groupId: Uint8Array): void {
    this.#parts.look(groupId);
    if (!this.#isTime(this.#told, groupId, restoredHubLimits.tellMs)) return;
    const untilMs = this.#parts.runtime.clock.monotonic() + restoredHubLimits.triedForMs;
    this.#telling.want(hex(groupId), { groupId, untilMs });
  }

  /** Another member stands at an entry that others came behind here. */
  isBehind(groupId: Uint8Array): void {
    if (this.#isTime(this.#looked, groupId, restoredHubLimits.lookMs)) this.#parts.look(groupId);
  }

  #isTime(times: Map<string, number>, groupId: Uint8Array, everyMs: number): boolean {
    const key = hex(groupId);
    const nowMs = this.#parts.runtime.clock.monotonic();
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
