/** Work at a node that is given up after a time, or when nobody wants it any more. */
import { TransportError, type Clock } from '@quicprochat/proto';

/** The signal of `work` ends with `signal`, or after `ms` with TransportError `timeout`. Throws what the work throws. */
export async function inTime<T>(
  clock: Clock,
  ms: number,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const late = new AbortController();
  const timer = clock.timer(ms, () =>
    late.abort(new TransportError('timeout', 'the node does not answer')),
  );
  try {
    return await work(AbortSignal.any([signal, late.signal]));
  } finally {
    timer.cancel();
  }
}
