/**
 * Waiting for a log to show what was just made: a log may answer from a head that is some seconds old
 * when auditors have cosigned that one and not yet the newest.
 */
import type { Clock } from '@quicprochat/proto';

export const shownLimits = {
  /** First and longest wait between two looks, and the longest wait in all (ms). */
  waitMinMs: 50,
  waitMaxMs: 1_000,
  totalMs: 10_000,
} as const;

/** The first result of `look` that is not undefined; undefined when that takes too long. */
export async function untilShown<T>(
  clock: Clock,
  look: () => Promise<T | undefined>,
  signal?: AbortSignal,
): Promise<T | undefined> {
  const { waitMinMs, waitMaxMs, totalMs } = shownLimits;
  const endMs = clock.monotonic() + totalMs;
  for (let waitMs: number = waitMinMs; ; waitMs = Math.min(waitMaxMs, 2 * waitMs)) {
    const shown = await look();
    if (shown !== undefined || clock.monotonic() + waitMs > endMs) return shown;
    await clock.sleep(waitMs, signal);
  }
}
