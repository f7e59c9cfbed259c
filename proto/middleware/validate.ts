/** Middleware: runs the field rules of the method's row before the handler. */
import { checkFields } from '../field-rules.ts';
import type { Middleware } from '../server.ts';

export const validate: Middleware = (call, next) => {
  checkFields<object>(call.request, call.method.rules);
  return next(call);
};
