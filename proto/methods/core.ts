/** Rows that every connection may need: who is there, which node it is, how it does. */
import * as m from '../messages.ts';
import { itemsBetween, present, textAtMost } from '../field-rules.ts';
import { method, anyone, device } from './row.ts';
import { domainOrOwn } from './shared-rules.ts';

export const coreMethods = {
  hello: method(1, m.HelloRequestSchema, m.HelloResponseSchema, {
    callers: anyone,
    deadlineMs: 5_000,
    rules: { capabilities: itemsBetween(0, 32, textAtMost(64)), agent: textAtMost(64) },
  }),
  getNodeRecord: method(2, m.GetNodeRecordRequestSchema, m.GetNodeRecordResponseSchema, {
    callers: anyone,
    deadlineMs: 5_000,
    rules: { domain: domainOrOwn },
  }),
  health: method(802, m.HealthRequestSchema, m.HealthResponseSchema, {
    callers: anyone,
    deadlineMs: 5_000,
  }),
  publishEndpoint: method(800, m.PublishEndpointRequestSchema, m.PublishEndpointResponseSchema, {
    callers: device,
    rate: 'keys',
    rules: { endpoint: present },
  }),
} as const;
