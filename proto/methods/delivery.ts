/** Rows of the Delivery Service: logs of rows, and hints that no disk sees. */
import * as m from '../messages.ts';
import { deliveryTokenBytes, maxDeliveryTokens, maxRenewalsBytes } from '../delivery-token.ts';
import {
  atMost,
  bytesBetween,
  domainName,
  emptyOrBytes,
  exactBytes,
  itemsBetween,
  nested,
  safeSeq,
} from '../field-rules.ts';
import { channelPost } from '../group-rules.ts';
import {
  maxMessageBytes,
  maxControlBytes,
  maxEphemeralRids,
  maxEphemeralBytes,
  maxFetchRows,
  maxFetchBytes,
  maxBatchPayloads,
  maxBatchTargets,
  maxBatchBytes,
  maxAnonymousBatchBytes,
  maxPeekRows,
  maxWaitMs,
  maxTtlS,
  maxCredentialBytes,
} from '../limits.ts';
import { smallBytes, method, device, reader, sender } from './row.ts';
import { domainOrOwn, fromPeers } from './shared-rules.ts';
import type { Reason } from '../status.ts';

const logRules = nested<m.LogRef>({ cid: emptyOrBytes(32) });
const cursorRules = nested<m.LogCursor>({
  log: logRules,
  after: safeSeq,
  storeId: emptyOrBytes(8),
});
const ofDeviceTarget: readonly Reason[] = [
  'UNKNOWN_DEVICE',
  'QUEUE_FULL',
  'BLOCKED',
  'CALLER_CLASS',
  ...fromPeers,
];
const ofChannelTarget: readonly Reason[] = ['UNKNOWN_CHANNEL', 'BAD_SIGNATURE', 'DOMAINS_STALE'];
/** Of a log that is read: a guest may have none any more. */
const ofRead: readonly Reason[] = ['BAD_CURSOR', 'UNKNOWN_CHANNEL', 'QUOTA', 'UNKNOWN_DEVICE'];
const deliveryToken = emptyOrBytes(deliveryTokenBytes);

export const deliveryMethods = {
  enqueue: method(200, m.EnqueueRequestSchema, m.EnqueueResponseSchema, {
    callers: sender,
    rate: 'send',
    maxAnonymousBytes: maxMessageBytes + smallBytes,
    maxRequestBytes: maxControlBytes + smallBytes,
    rules: {
      rid: emptyOrBytes(32),
      domain: domainOrOwn,
      mid: exactBytes(16),
      payload: bytesBetween(1, maxControlBytes),
      ttlS: atMost(maxTtlS),
      token: deliveryToken,
      channel: channelPost,
    },
    refusals: [...ofDeviceTarget, ...ofChannelTarget, 'QUOTA', 'STORE_FULL'],
  }),
  fetch: method(201, m.FetchRequestSchema, m.FetchResponseSchema, {
    callers: reader,
    rate: 'read',
    rules: {
      log: logRules,
      after: safeSeq,
      maxRows: atMost(maxFetchRows),
      maxBytes: atMost(maxFetchBytes),
    },
    refusals: ofRead,
  }),
  fetchWait: method(202, m.FetchWaitRequestSchema, m.FetchWaitResponseSchema, {
    callers: reader,
    rate: 'read',
    deadlineMs: maxWaitMs + 5_000,
    rules: { cursors: itemsBetween(1, 256, cursorRules), waitMs: atMost(maxWaitMs) },
    refusals: ['STORE_CHANGED', 'NOT_LOGGED_IN', ...ofRead],
  }),
  batchEnqueue: method(205, m.BatchEnqueueRequestSchema, m.BatchEnqueueResponseSchema, {
    callers: sender,
    rate: 'send',
    maxRequestBytes: maxBatchBytes,
    maxAnonymousBytes: maxAnonymousBatchBytes,
    rules: {
      payloads: itemsBetween(
        1,
        maxBatchPayloads,
        nested<m.BatchPayload>({
          mid: exactBytes(16),
          payload: bytesBetween(1, maxControlBytes),
        }),
      ),
      targets: itemsBetween(
        1,
        maxBatchTargets,
        nested<m.BatchTarget>({ rid: exactBytes(32), domain: domainName, token: deliveryToken }),
      ),
      ttlS: atMost(maxTtlS),
    },
    // What keeps it from one target stands in that target's status.
    refusals: ['STORE_FULL'],
  }),
  sendEphemeral: method(209, m.SendEphemeralRequestSchema, m.SendEphemeralResponseSchema, {
    callers: device,
    rate: 'ephemeral',
    deadlineMs: 5_000,
    rules: {
      targets: itemsBetween(
        1,
        maxEphemeralRids,
        nested<m.EphemeralTarget>({ rid: exactBytes(32), domain: domainName }),
      ),
      payload: bytesBetween(1, maxEphemeralBytes),
    },
  }),
  setDeliveryTokens: method(
    208,
    m.SetDeliveryTokensRequestSchema,
    m.SetDeliveryTokensResponseSchema,
    {
      callers: device,
      rate: 'keys',
      maxRequestBytes: smallBytes + maxRenewalsBytes,
      rules: {
        hashes: itemsBetween(0, maxDeliveryTokens, exactBytes(32)),
        renewals: bytesBetween(0, maxRenewalsBytes),
      },
    },
  ),
  readTokenRenewals: method(
    212,
    m.ReadTokenRenewalsRequestSchema,
    m.ReadTokenRenewalsResponseSchema,
    {
      // The token that was replaced is the right to ask; who asks is nobody's business.
      callers: sender,
      rate: 'lookup',
      rules: { rid: exactBytes(32), token: exactBytes(deliveryTokenBytes) },
      refusals: ['BLOCKED'],
    },
  ),
  peek: method(203, m.PeekRequestSchema, m.PeekResponseSchema, {
    callers: reader,
    rate: 'read',
    rules: { log: logRules, after: safeSeq, maxRows: atMost(maxPeekRows) },
    refusals: ofRead,
  }),
  ack: method(204, m.AckRequestSchema, m.AckResponseSchema, {
    callers: reader,
    rate: 'read',
    rules: { log: logRules, storeId: exactBytes(8), upTo: safeSeq },
    refusals: ['STORE_CHANGED', ...ofRead],
  }),
  subscribe: method(206, m.SubscribeRequestSchema, m.SubscribeResponseSchema, {
    callers: device,
    rate: 'read',
    rules: { cursors: itemsBetween(1, 256, cursorRules) },
    refusals: ['STORE_CHANGED', 'UNKNOWN_CHANNEL', 'QUOTA', 'BAD_CURSOR'],
  }),
  relayStatus: method(207, m.RelayStatusRequestSchema, m.RelayStatusResponseSchema, {
    callers: device,
    rate: 'read',
    rules: { domain: domainName, mids: itemsBetween(0, 256, exactBytes(16)) },
  }),
  requestMailbox: method(211, m.RequestMailboxRequestSchema, m.RequestMailboxResponseSchema, {
    // A device of another node, by the proof in the request.
    callers: ['anyone', 'guest'],
    rate: 'keys',
    maxRequestBytes: smallBytes + maxCredentialBytes,
    rules: {
      credential: bytesBetween(1, maxCredentialBytes),
      device: exactBytes(32),
      issuedMs: safeSeq,
      signature: exactBytes(64),
      tokenHashes: itemsBetween(0, maxDeliveryTokens, exactBytes(32)),
    },
    refusals: ['FEATURE_OFF', 'BAD_CREDENTIAL', 'BLOCKED', 'QUOTA', 'STORE_FULL'],
  }),
} as const;
