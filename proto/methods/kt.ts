/** Rows of identities and of the key-transparency log. */
import * as m from '../messages.ts';
import {
  atMost,
  bytesBetween,
  exactBytes,
  itemsBetween,
  safeSeq,
  userIdText,
} from '../field-rules.ts';
import { maxKtRequestBytes, maxAuditEntries, maxKtHeardLogs } from '../limits.ts';
import { smallBytes, method, anyone, device, enrolling } from './row.ts';
import { domainOrOwn, fromPeers, ofChange } from './shared-rules.ts';

/** A KEYTRANS request structure; the log parses it. */
const ktRequest = bytesBetween(1, maxKtRequestBytes);
const ktRequestOrNone = bytesBetween(0, maxKtRequestBytes);

export const ktMethods = {
  resolveUser: method(500, m.ResolveUserRequestSchema, m.ResolveUserResponseSchema, {
    callers: device,
    rate: 'lookup',
    rules: { userId: userIdText, ktSearch: ktRequestOrNone },
    refusals: ['UNKNOWN_USER', ...fromPeers],
  }),
  resolveIdentity: method(501, m.ResolveIdentityRequestSchema, m.ResolveIdentityResponseSchema, {
    callers: device,
    rate: 'lookup',
    rules: { identityPub: exactBytes(32) },
    refusals: ['UNKNOWN_DEVICE'],
  }),
  checkRevocation: method(511, m.CheckRevocationRequestSchema, m.CheckRevocationResponseSchema, {
    callers: device,
    rate: 'lookup',
    rules: { userId: userIdText, identityPub: exactBytes(32), ktSearch: ktRequestOrNone },
    refusals: ['UNKNOWN_USER', ...fromPeers],
  }),
  auditKeyTransparency: method(
    520,
    m.AuditKeyTransparencyRequestSchema,
    m.AuditKeyTransparencyResponseSchema,
    {
      callers: anyone,
      rate: 'audit',
      rules: { from: safeSeq, max: atMost(maxAuditEntries) },
    },
  ),
  ktSearch: method(530, m.KtSearchRequestSchema, m.KtSearchResponseSchema, {
    callers: enrolling,
    rate: 'lookup',
    rules: { domain: domainOrOwn, request: ktRequest },
    refusals: ['UNKNOWN_USER', ...fromPeers],
  }),
  ktUpdate: method(531, m.KtUpdateRequestSchema, m.KtUpdateResponseSchema, {
    callers: enrolling,
    rate: 'lookup',
    isIdempotent: false,
    rules: { request: ktRequest },
    // An enrolling device asks what is there, and changes nothing.
    refusals: ['CALLER_CLASS', ...ofChange],
  }),
  ktMonitor: method(532, m.KtMonitorRequestSchema, m.KtMonitorResponseSchema, {
    callers: enrolling,
    rate: 'lookup',
    maxRequestBytes: maxKtRequestBytes + smallBytes,
    rules: { domain: domainOrOwn },
    refusals: ['BAD_CURSOR', ...fromPeers],
  }),
  ktDistinguished: method(533, m.KtDistinguishedRequestSchema, m.KtDistinguishedResponseSchema, {
    callers: enrolling,
    rate: 'lookup',
    rules: { domain: domainOrOwn, request: ktRequest },
    refusals: fromPeers,
  }),
  ktTreeHead: method(534, m.KtTreeHeadRequestSchema, m.KtTreeHeadResponseSchema, {
    callers: anyone,
    rules: { domain: domainOrOwn, size: safeSeq },
    // Logs of other domains are for devices of this node.
    refusals: ['NOT_LOGGED_IN', ...fromPeers],
  }),
  ktCredential: method(535, m.KtCredentialRequestSchema, m.KtCredentialResponseSchema, {
    callers: enrolling,
    rate: 'lookup',
    rules: { domain: domainOrOwn },
    refusals: ['BAD_CURSOR', ...fromPeers],
  }),
  ktHeard: method(536, m.KtHeardRequestSchema, m.KtHeardResponseSchema, {
    callers: anyone,
    rate: 'audit',
    rules: { logs: itemsBetween(1, maxKtHeardLogs) },
  }),
  ktEvidence: method(537, m.KtEvidenceRequestSchema, m.KtEvidenceResponseSchema, {
    callers: anyone,
    rate: 'audit',
    rules: { hash: exactBytes(32), offset: safeSeq },
    refusals: ['UNKNOWN_EVIDENCE', 'BAD_CURSOR'],
  }),
} as const;
