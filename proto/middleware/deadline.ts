/** Middleware: a handler that outlives its row's deadline is answered with DeadlineExceeded. */
import { DeadlineExceededError } from '../status.ts';
import type { Clock } from '../runtime.ts';
import type { Middleware } from '../server.ts';

/** The handler's signal is aborted at the deadline; work it still does is its own to undo. */
export function deadline(clock: Clock): Middleware {
  return async (call, next) => {
    const abort = new AbortController();
    const signal = AbortSignal.any([call.signal, abort.signal]);
    const { promise, reject } = Promise.withResolvers<never>();
    const timer = clock.timer(call.method.deadlineMs, () => {
      const error = new DeadlineExceededError(
        `${call.method.name}: not done in ${call.method.deadlineMs} ms`,
      );
      abort.abort(error);
      reject(error);
    });
    try {
      return await Promise.race([next({ ...call, signal }), promise]);
    } finally {
      timer.cancel();
    }
  };
}
