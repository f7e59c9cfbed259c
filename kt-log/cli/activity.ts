/** How busy a log is: entries and leaves per hour of the log's own time, from what was replayed. */
import { auditBundle } from '../auditor.ts';
import type { LogSource } from '../log-source.ts';
import { decode } from '../presentation.ts';

const hourMs = 3_600_000;
const hoursKept = 24;
const bars = '▁▂▃▄▅▆▇█';

/** Counts of the last 24 hours before the newest entry. */
export class Activity {
  readonly #hours = new Map<number, { entries: number; leaves: number }>();
  #newestMs = 0;
  #waiting: Uint8Array | undefined;

  /** The same source, whose bundles are counted once `replayed` says that they held. */
  watch(source: LogSource): LogSource {
    return {
      checkpoint: (signal) => source.checkpoint(signal),
      heads: (from, max, signal) => source.heads(from, max, signal),
      bundle: async (from, max, signal) => {
        this.#waiting = await source.bundle(from, max, signal);
        return this.#waiting;
      },
    };
  }

  /** The last bundle was replayed, from entry `from` on. */
  replayed(from: number): void {
    if (this.#waiting === undefined) return;
    const bundle = decode(auditBundle, this.#waiting);
    this.#waiting = undefined;
    for (const { timestampMs, added } of bundle.updates.slice(from - bundle.from)) {
      const hour = Math.floor(timestampMs / hourMs);
      const counts = this.#hours.get(hour) ?? { entries: 0, leaves: 0 };
      counts.entries++;
      counts.leaves += added.length;
      this.#hours.set(hour, counts);
      this.#newestMs = timestampMs;
    }
    for (const hour of this.#hours.keys()) {
      if (hour <= Math.floor(this.#newestMs / hourMs) - hoursKept) this.#hours.delete(hour);
    }
  }

  /** Oldest hour first; empty when nothing was replayed. */
  perHour(): { readonly entries: readonly number[]; readonly leaves: readonly number[] } {
    if (this.#hours.size === 0) return { entries: [], leaves: [] };
    const last = Math.floor(this.#newestMs / hourMs);
    const hours = Array.from({ length: hoursKept }, (_, i) => last - hoursKept + 1 + i);
    const counts = hours.map((hour) => this.#hours.get(hour) ?? { entries: 0, leaves: 0 });
    return { entries: counts.map((one) => one.entries), leaves: counts.map((one) => one.leaves) };
  }
}

/** Numbers as a line of bars. */
export function sparkline(values: readonly number[]): string {
  const most = Math.max(1, ...values);
  return values.map((value) => bars[Math.ceil((value / most) * (bars.length - 1))] ?? '').join('');
}
