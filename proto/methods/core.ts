/** Rows that every connection may need: who is there, which node it is, how it does. */
import * as m from '../messages.ts';
import { bytesBetween, exactBytes, itemsBetween, present, textAtMost } from '../field-rules.ts';
import { deliveryTokenBytes } from '../delivery-token.ts';
import { maxCredentialBytes } from '../limits.ts';
import { method, admin, anyone, everyone, smallBytes } from './row.ts';
import { domainOrOwn, fromPeers } from './shared-rules.ts';

export const coreMethods = {
  hello: method(1, m.HelloRequestSchema, m.HelloResponseSchema, {
    callers: everyone,
    deadlineMs: 5_000,
    rules: { capabilities: itemsBetween(0, 32, textAtMost(64)), agent: textAtMost(64) },
    refusals: ['VERSION'],
  }),
  getNodeRecord: method(2, m.GetNodeRecordRequestSchema, m.GetNodeRecordResponseSchema, {
    callers: everyone,
    deadlineMs: 5_000,
    rules: { domain: domainOrOwn },
    refusals: fromPeers,
  }),
  health: method(802, m.HealthRequestSchema, m.HealthResponseSchema, {
    callers: [...everyone, ...admin],
    deadlineMs: 5_000,
  }),
  publishEndpoint: method(800, m.PublishEndpointRequestSchema, m.PublishEndpointResponseSchema, {
    // Guests show a credential instead of a session.
    callers: anyone,
    rate: 'keys',
    maxRequestBytes: smallBytes + maxCredentialBytes,
    maxAnonymousBytes: smallBytes + maxCredentialBytes,
    rules: { endpoint: present, credential: bytesBetween(0, maxCredentialBytes) },
    refusals: ['FEATURE_OFF', 'BAD_CREDENTIAL', 'BLOCKED', 'QUOTA'],
  }),
  resolveEndpoint: method(801, m.ResolveEndpointRequestSchema, m.ResolveEndpointResponseSchema, {
    // The token is the right to ask; who asks is nobody's business.
    callers: anyone,
    rate: 'lookup',
    rules: { rid: exactBytes(32), token: exactBytes(deliveryTokenBytes) },
    refusals: ['FEATURE_OFF', 'BLOCKED', 'UNKNOWN_DEVICE'],
  }),
} as const;
