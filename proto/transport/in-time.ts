/** A bound for what another process has to do: it may hang, and nobody would ever say so. */
import type { Clock } from '../runtime.ts';
import { TransportError } from '../status.ts';

/** What `work` gives or throws; TransportError `timeout` after `ms`, when its end is ignored. */
export async function inTime<T>(
  clock: Clock,
  ms: number,
  what: string,
  work: Promise<T>,
): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = clock.timer(ms, () =>
    late.reject(new TransportError('timeout', `${what}: no answer in ${ms} ms`)),
  );
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    timer.cancel();
  }
}
