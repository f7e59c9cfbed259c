/** Middleware: decodes the request and runs the field rules of the method's row on it. */
import { checkFields } from '../field-rules.ts';
import type { Middleware } from '../server.ts';

export const validate: Middleware = (call, next) => {
  checkFields<object>(call.decode(), call.method.rules);
  return next(call);
};
