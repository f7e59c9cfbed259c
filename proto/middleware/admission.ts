/** Middleware: bounds the calls in flight of the whole node, and refuses new ones while draining. */
import { ResourceExhaustedError, UnavailableError } from '../status.ts';
import type { Middleware } from '../server.ts';

export interface AdmissionState {
  readonly isDraining: () => boolean;
  readonly callsInFlightMax: number;
}

/** Health and Hello pass while draining, so that callers learn why. */
export const alwaysServed: ReadonlySet<string> = new Set(['Hello', 'Health']);

export function admission(state: AdmissionState): Middleware {
  let inFlight = 0;
  return async (call, next) => {
    if (state.isDraining() && !alwaysServed.has(call.method.name)) {
      throw new UnavailableError('DRAINING', 'this node is stopping', { retryAfterMs: 5_000 });
    }
    if (inFlight >= state.callsInFlightMax) {
      throw new ResourceExhaustedError('OVERLOADED', `${inFlight} calls in flight`, {
        retryAfterMs: 1_000,
      });
    }
    inFlight += 1;
    try {
      return await next(call);
    } finally {
      inFlight -= 1;
    }
  };
}
