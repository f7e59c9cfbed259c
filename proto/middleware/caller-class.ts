/** Middleware: refuses callers whose class the method's row does not name. */
import { PermissionDeniedError, UnauthenticatedError } from '../status.ts';
import type { Middleware } from '../server.ts';

/**
 * Throws UnauthenticatedError NOT_LOGGED_IN when nobody calls what devices or peers may call,
 * PermissionDeniedError CALLER_CLASS for every other mismatch.
 */
export const callerClass: Middleware = (call, next) => {
  const { callers, name } = call.method;
  if (callers.includes(call.caller.class)) return next(call);
  const isForUsers = callers.includes('device') || callers.includes('enrolling');
  if (call.caller.class === 'anyone' && isForUsers) {
    throw new UnauthenticatedError('NOT_LOGGED_IN', `${name}: log in first`);
  }
  throw new PermissionDeniedError(
    'CALLER_CLASS',
    `${name}: not for callers of class ${call.caller.class}`,
  );
};
