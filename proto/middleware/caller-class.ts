/** Middleware: refuses callers whose class the method's row does not name. */
import { PermissionDeniedError, UnauthenticatedError } from '../status.ts';
import type { CallerClass, Method } from '../methods/row.ts';
import type { Middleware } from '../server.ts';

/** Why this caller may not call; undefined: it may. A login would help only nobody known. */
export function classRefusal(
  { callers }: Pick<Method, 'callers'>,
  caller: CallerClass,
): 'NOT_LOGGED_IN' | 'CALLER_CLASS' | undefined {
  if (callers.includes(caller)) return undefined;
  const isForUsers = callers.includes('device') || callers.includes('enrolling');
  return caller === 'anyone' && isForUsers ? 'NOT_LOGGED_IN' : 'CALLER_CLASS';
}

/**
 * Throws UnauthenticatedError NOT_LOGGED_IN when nobody calls what devices or peers may call,
 * PermissionDeniedError CALLER_CLASS for every other mismatch.
 */
export const callerClass: Middleware = (call, next) => {
  const { name } = call.method;
  switch (classRefusal(call.method, call.caller.class)) {
    case undefined:
      return next(call);
    case 'NOT_LOGGED_IN':
      throw new UnauthenticatedError('NOT_LOGGED_IN', `${name}: log in first`);
    case 'CALLER_CLASS':
      throw new PermissionDeniedError(
        'CALLER_CLASS',
        `${name}: not for callers of class ${call.caller.class}`,
      );
  }
};
