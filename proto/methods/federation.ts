/** Rows between nodes. */
import * as m from '../messages.ts';
import { defaultMaxPayloadBytes } from '../frame.ts';
import {
  atMost,
  bytesBetween,
  domainName,
  emptyOrBytes,
  every,
  exactBytes,
  itemsBetween,
  nested,
  present,
  safeSeq,
  textAtMost,
  userIdText,
} from '../field-rules.ts';
import {
  groupLogRules,
  installRules,
  maxCommitRequestBytes,
  maxHubBytes,
  promiseRules,
  replicateRules,
  submitRules,
  takeoverRules,
} from '../group-rules.ts';
import {
  maxRelayItems,
  maxEphemeralItems,
  maxEphemeralRids,
  maxEphemeralBytes,
  maxBlobChunkBytes,
  maxCheckpointBytes,
  maxKtHeads,
  maxEvidenceBytes,
} from '../limits.ts';
import { smallBytes, method, anyone, peer, type MethodOptions } from './row.ts';
import type { Reason } from '../status.ts';
import { fetchKeyPackage, fromPeers, ofRestoredHub, ofSubmit } from './shared-rules.ts';

const checkpointNote = bytesBetween(1, maxCheckpointBytes);
const requester = exactBytes(16);
/** Of what a leader's log says that does not fit what this hub has, or remembers. */
const ofLeadersLog: readonly Reason[] = [
  'TERM_FENCED',
  'SEQ_CONFLICT',
  'EPOCH_CONFLICT',
  'HUB_UNAVAILABLE',
];
/** 900 and 901 are one stream and one handler: 900 is a batch of one. */
const relayOptions: MethodOptions<typeof m.FedRelayRequestSchema> = {
  callers: peer,
  rate: 'relay',
  maxRequestBytes: defaultMaxPayloadBytes,
  rules: {
    streamId: exactBytes(16),
    lane: every(atMost(2), (value) => (value === 0 ? 'is missing' : undefined)),
    acked: safeSeq,
    firstSeq: safeSeq,
    items: itemsBetween(1, maxRelayItems),
  },
  refusals: ['STREAM_GAP', 'STORE_FULL'],
};

export const federationMethods = {
  fedRelay: method(900, m.FedRelayRequestSchema, m.FedRelayResponseSchema, relayOptions),
  fedRelayBatch: method(901, m.FedRelayRequestSchema, m.FedRelayResponseSchema, {
    ...relayOptions,
    name: 'FedRelayBatch',
  }),
  proxyFetchKeyPackage: method(
    902,
    m.ProxyFetchKeyPackageRequestSchema,
    m.ProxyFetchKeyPackageResponseSchema,
    {
      callers: peer,
      rate: 'peerUsers',
      rules: { fetch: every(present, nested(fetchKeyPackage)), requester },
      refusals: ['UNKNOWN_USER', 'NO_KEY_PACKAGE', 'PEER_DENIED'],
    },
  ),
  proxyFetchHybridKey: method(
    903,
    m.ProxyFetchHybridKeyRequestSchema,
    m.ProxyFetchHybridKeyResponseSchema,
    {
      callers: peer,
      rate: 'peerUsers',
      rules: {
        fetch: every(present, nested<m.FetchHybridKeyRequest>({ userId: userIdText })),
        requester,
      },
      refusals: ['UNKNOWN_USER', 'PEER_DENIED'],
    },
  ),
  proxyResolveUser: method(904, m.ProxyResolveUserRequestSchema, m.ProxyResolveUserResponseSchema, {
    callers: peer,
    rate: 'peerUsers',
    rules: {
      resolve: every(present, nested<m.ResolveUserRequest>({ userId: userIdText })),
      requester,
    },
    refusals: ['UNKNOWN_USER', 'PEER_DENIED'],
  }),
  fedHello: method(910, m.FedHelloRequestSchema, m.FedHelloResponseSchema, {
    callers: anyone,
    deadlineMs: 5_000,
    rules: {
      domain: domainName,
      capabilities: itemsBetween(0, 32, textAtMost(64)),
      streams: itemsBetween(0, 4),
      storeId: emptyOrBytes(8),
      counter: safeSeq,
      proof: emptyOrBytes(16),
      remembersStoreId: emptyOrBytes(8),
      remembersCounter: safeSeq,
      remembersProof: emptyOrBytes(16),
    },
    refusals: ['VERSION', ...fromPeers],
  }),
  fedBlob: method(917, m.FedBlobRequestSchema, m.FedBlobResponseSchema, {
    callers: peer,
    rate: 'relay',
    rules: {
      hash: exactBytes(32),
      offset: safeSeq,
      length: every(atMost(maxBlobChunkBytes), (value) => (value === 0 ? 'is missing' : undefined)),
    },
    // Not built yet.
    refusals: ['FEATURE_OFF'],
  }),
  fedEphemeral: method(918, m.FedEphemeralRequestSchema, m.FedEphemeralResponseSchema, {
    callers: peer,
    rate: 'relay',
    deadlineMs: 5_000,
    maxRequestBytes: defaultMaxPayloadBytes,
    rules: {
      items: itemsBetween(
        1,
        maxEphemeralItems,
        nested<m.EphemeralItem>({
          rids: itemsBetween(1, maxEphemeralRids, exactBytes(32)),
          payload: bytesBetween(1, maxEphemeralBytes),
        }),
      ),
    },
  }),
  fedHubSubmit: method(911, m.FedHubSubmitRequestSchema, m.FedHubSubmitResponseSchema, {
    callers: peer,
    rate: 'peerUsers',
    maxRequestBytes: maxCommitRequestBytes + 2 * smallBytes,
    rules: { submit: nested(submitRules), takeover: nested(takeoverRules) },
    refusals: ofSubmit,
  }),
  fedHubReplicate: method(912, m.FedHubReplicateRequestSchema, m.FedHubReplicateResponseSchema, {
    callers: peer,
    rate: 'relay',
    maxRequestBytes: maxHubBytes,
    rules: replicateRules,
    refusals: ['PEER_DENIED', 'BAD_SIGNATURE', 'QUOTA', 'STORE_FULL', ...ofLeadersLog],
  }),
  fedHubPromise: method(913, m.FedHubPromiseRequestSchema, m.FedHubPromiseResponseSchema, {
    callers: peer,
    rate: 'relay',
    // What it has PREPARED comes along.
    maxResponseBytes: maxHubBytes,
    rules: promiseRules,
    refusals: ['UNKNOWN_GROUP', 'PEER_DENIED', 'TERM_FENCED', ...ofRestoredHub],
  }),
  fedHubLog: method(914, m.FedHubLogRequestSchema, m.FedHubLogResponseSchema, {
    callers: peer,
    rate: 'peerUsers',
    rules: { log: every(present, nested(groupLogRules)) },
    refusals: ['UNKNOWN_GROUP'],
  }),
  fedHubInstall: method(915, m.FedHubInstallRequestSchema, m.FedHubInstallResponseSchema, {
    callers: peer,
    rate: 'relay',
    maxRequestBytes: maxHubBytes,
    rules: installRules,
    refusals: [
      'PEER_DENIED',
      'BAD_SIGNATURE',
      'HUB_UNAVAILABLE',
      'SEQ_CONFLICT',
      'QUOTA',
      'STORE_FULL',
    ],
  }),
  fedKt: method(916, m.FedKtRequestSchema, m.FedKtResponseSchema, {
    callers: peer,
    rate: 'peerUsers',
    maxRequestBytes: defaultMaxPayloadBytes,
    rules: {
      requester: emptyOrBytes(16),
      op: (value) => {
        const { case: kind, value: op } = value as m.FedKtRequest['op'];
        switch (kind) {
          case undefined:
            return 'is missing';
          case 'checkpoint':
            return checkpointNote(op.checkpoint);
          case 'evidence':
            return bytesBetween(1, maxEvidenceBytes)(op.evidence);
          case 'heads':
            return atMost(maxKtHeads)(op.max) ?? safeSeq(op.fromSize);
          default:
            return undefined;
        }
      },
    },
    refusals: ['PEER_DENIED', 'BAD_SIGNATURE', 'UNKNOWN_USER', 'BAD_CURSOR'],
  }),
} as const;
