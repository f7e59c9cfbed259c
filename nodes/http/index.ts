/** Door of the node's HTTP door: tests and other programs open one over a log of their own. */
export {
  httpLimits,
  openHttpDoor,
  type HttpDoor,
  type HttpDoorOptions,
  type HttpLimits,
} from '../http.ts';
export { routeLimits, Routes, type RouteParts } from './routes.ts';
export type { AuditFact, CosignerFact, PeerFacts } from './facts.ts';
export { decodeSearchAnswer, encodeSearchAnswer } from './search-answer.ts';
