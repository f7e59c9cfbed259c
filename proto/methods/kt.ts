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
import { domainOrOwn } from './shared-rules.ts';

/** A KEYTRANS request structure; the log parses it. */
const ktRequest = bytesBetween(1, maxKtRequestBytes);
const ktRequestOrNone = bytesBetween(0, maxKtRequestBytes);

export const ktMethods = {
  resolveUser: method(500, m.ResolveUserRequestSchema, m.ResolveUserResponseSchema, {
    callers: device,
    rate: 'lookup',
    rules: { userId: userIdText, ktSearch: ktRequestOrNone },
  }),
  resolveIdentity: method(501, m.ResolveIdentityRequestSchema, m.ResolveIdentityResponseSchema, {
    callers: device,
    rate: 'lookup',
    rules: { identityPub: exactBytes(32) },
  }),
  checkRevocation: method(511, m.CheckRevocationRequestSchema, m.CheckRevocationResponseSchema, {
    callers: device,
    rate: 'lookup',
    rules: { userId: userIdText, identityPub: exactBytes(32), ktSearch: ktRequestOrNone },
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
  }),
  ktUpdate: method(531, m.KtUpdateRequestSchema, m.KtUpdateResponseSchema, {
    callers: enrolling,
    rate: 'lookup',
    isIdempotent: false,
    rules: { request: ktRequest },
  }),
  ktMonitor: method(532, m.KtMonitorRequestSchema, m.KtMonitorResponseSchema, {
    callers: enrolling,
    rate: 'lookup',
    maxRequestBytes: maxKtRequestBytes + smallBytes,
    rules: { domain: domainOrOwn },
  }),
  ktDistinguished: method(533, m.KtDistinguishedRequestSchema, m.KtDistinguishedResponseSchema, {
    callers: enrolling,
    rate: 'lookup',
    rules: { domain: domainOrOwn, request: ktRequest },
  }),
  ktTreeHead: method(534, m.KtTreeHeadRequestSchema, m.KtTreeHeadResponseSchema, {
    callers: anyone,
    rules: { domain: domainOrOwn, size: safeSeq },
  }),
  ktCredential: method(535, m.KtCredentialRequestSchema, m.KtCredentialResponseSchema, {
    callers: enrolling,
    rate: 'lookup',
    rules: { domain: domainOrOwn },
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
  }),
} as const;
