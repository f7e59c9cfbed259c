/** Door of the middleware, in the order in which a node runs it. */
export { admission, type AdmissionState } from './admission.ts';
export { callerClass } from './caller-class.ts';
export { rateLimit, TokenBuckets, type Rate, type Rates } from './rate-limit.ts';
export { limitKey } from '../transport/admission.ts';
export { deadline } from './deadline.ts';
export { validate } from './validate.ts';
