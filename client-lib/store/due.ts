/**
 * When something whose time stands in the store is due. The clock may have been ahead when it was written: what lies
 * further off than anything is put off here is due now, and is not waited for until a date that was wrong.
 */

/** Longest wait that is believed (ms). The longest there is takes two days; a clock may be set back a little. */
export const longestWaitMs = 3 * 24 * 3600 * 1000;

export function isDue(dueMs: number, nowMs: number): boolean {
  return dueMs <= nowMs || dueMs > nowMs + longestWaitMs;
}

/** How long it is until then (ms); 0: it is due. */
export function waitMsOf(dueMs: number, nowMs: number): number {
  return isDue(dueMs, nowMs) ? 0 : dueMs - nowMs;
}
