/**
 * Warnings that strangers can cause as often as they like: one line a minute for each event, with how
 * often it came.
 */
import type { LogFields, Runtime } from '../runtime.ts';

const everyMs = 60_000;

interface Told {
  atMs: number;
  /** Since then. */
  times: number;
}

/**
 * The same runtime, whose `warn` writes the first line of an event at once and the next one of it a
 * minute later at the earliest. `times` in a line counts those since the one before, itself included.
 * Errors are not held back: they are ours, and peers cannot choose how many there are.
 */
export function withSeldomWarnings({ clock, random, log }: Runtime): Runtime {
  /** By event: those that stand in our own code. */
  const told = new Map<string, Told>();
  const warn = (event: string, fields?: LogFields): void => {
    const nowMs = clock.monotonic();
    const last = told.get(event) ?? { atMs: Number.NEGATIVE_INFINITY, times: 0 };
    last.times += 1;
    told.set(event, last);
    if (nowMs < last.atMs + everyMs) return;
    log.warn(event, { ...fields, times: last.times });
    last.atMs = nowMs;
    last.times = 0;
  };
  return {
    clock,
    random,
    log: {
      debug: (event, fields) => log.debug(event, fields),
      info: (event, fields) => log.info(event, fields),
      warn,
      error: (event, fields) => log.error(event, fields),
    },
  };
}
