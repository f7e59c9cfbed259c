/**
 * The method table: one row per RPC. Dispatch, the typed client, limits, rate classes and labels
 * derive from it. Adding an RPC: a message in `qpc/v1`, a row here, a handler in `nodes/services`.
 */
import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import * as m from './messages.ts';
import { deliveryTokenBytes, maxDeliveryTokens } from './delivery-token.ts';
import { defaultMaxPayloadBytes } from './frame.ts';
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
  type FieldRule,
  type FieldRules,
} from './field-rules.ts';
import { channelLimits } from './channel.ts';
import {
  channelPost,
  groupLogRules,
  hubSet,
  maxCommitRequestBytes,
  signedEntry,
  submitRules,
} from './group-rules.ts';
import { maxManifestBytes } from './manifest.ts';
import { opaqueBytes } from './opaque-parameters.ts';

/**
 * Who may call: nobody known yet, a device that has logged in but is not in its account's manifest
 * yet, a logged-in device, a federation peer.
 */
export type CallerClass = 'anyone' | 'enrolling' | 'device' | 'peer';

/** Token bucket that a call draws from; the node's configuration gives each its numbers. */
export type RateClass =
  | 'cheap'
  | 'auth'
  | 'send'
  /** Of `send`, for callers that nobody knows. */
  | 'sendAnonymous'
  | 'ephemeral'
  | 'read'
  | 'keys'
  | 'lookup'
  | 'audit'
  | 'relay';

export interface Method<I extends DescMessage = DescMessage, O extends DescMessage = DescMessage> {
  readonly id: number;
  readonly name: string;
  readonly request: I;
  readonly response: O;
  readonly callers: readonly CallerClass[];
  readonly rate: RateClass;
  /** Handler's time (ms); the caller waits a little longer. */
  readonly deadlineMs: number;
  readonly maxRequestBytes: number;
  /** The same for a caller that nobody knows: protobuf can decode to 100 times its bytes. */
  readonly maxAnonymousBytes: number;
  readonly maxResponseBytes: number;
  /** True when a repeat of the same request has the effect of one. */
  readonly isIdempotent: boolean;
  readonly rules: FieldRules<MessageShape<I>>;
}

interface MethodOptions<I extends DescMessage> {
  readonly callers: readonly CallerClass[];
  readonly rate?: RateClass;
  readonly deadlineMs?: number;
  readonly maxRequestBytes?: number;
  readonly maxAnonymousBytes?: number;
  readonly isIdempotent?: boolean;
  readonly rules?: FieldRules<MessageShape<I>>;
}

const smallBytes = 16 * 1024;

function method<I extends DescMessage, O extends DescMessage>(
  id: number,
  request: I,
  response: O,
  options: MethodOptions<I>,
): Method<I, O> {
  return {
    id,
    name: request.name.replace(/Request$/, ''),
    request,
    response,
    callers: options.callers,
    rate: options.rate ?? 'cheap',
    deadlineMs: options.deadlineMs ?? 30_000,
    maxRequestBytes: options.maxRequestBytes ?? smallBytes,
    maxAnonymousBytes: options.maxAnonymousBytes ?? options.maxRequestBytes ?? smallBytes,
    maxResponseBytes: defaultMaxPayloadBytes,
    isIdempotent: options.isIdempotent ?? true,
    rules: options.rules ?? {},
  };
}

/** Largest envelope of an application message (bytes); padding and seals included. */
export const maxMessageBytes = 80 * 1024;
/** Largest envelope of a commit or Welcome (bytes). */
export const maxControlBytes = 512 * 1024;
/** Bounds of one relay batch. */
export const maxRelayItems = 256;
export const maxRelayBytes = 768 * 1024;
/** Bounds of one FedEphemeral, and of an item in it. */
export const maxEphemeralItems = 256;
export const maxEphemeralRids = 64;
export const maxEphemeralBytes = 512;
/** Part of a blob in one answer (bytes). */
export const maxBlobChunkBytes = 256 * 1024;
export const maxFetchRows = 256;
export const maxFetchBytes = 512 * 1024;
/** A node that says this in Hello has a lane of hints for those who ask for it. */
export const lanesCapability = 'lanes';
/** Bounds of one BatchEnqueue; the whole request has at most the bytes. */
export const maxBatchPayloads = 64;
/** A node that says this in Hello takes batches. */
export const batchCapability = 'batch';
export const maxBatchTargets = 2_048;
export const maxBatchBytes = 2 * 1024 * 1024;
/** Of a caller that nobody knows (bytes): a tenth. */
export const maxAnonymousBatchBytes = 204 * 1024;
/** Headers of one Peek. */
export const maxPeekRows = 1_000;
/** Largest KEYTRANS request (bytes): a monitor map of some thousand labels. */
export const maxKtRequestBytes = 256 * 1024;
/** Largest checkpoint with cosignatures, as C2SP signed notes bound it here (bytes). */
export const maxCheckpointBytes = 256 * 1024;
/** Entries of one audit bundle, and of one answer about heads. */
export const maxAuditEntries = 256;
export const maxKtHeads = 1024;
/** Largest evidence that travels (bytes). */
export const maxEvidenceBytes = 512 * 1024;
export const maxRecoveryBundleBytes = 4096;
/** Longest hold of a FetchWait (ms). */
export const maxWaitMs = 30_000;
/** Longest and default ttl of a message (s): 30 days. */
export const maxTtlS = 30 * 24 * 3600;

const anyone = ['anyone', 'enrolling', 'device', 'peer'] as const;
const device = ['device'] as const;
/** Nobody needs to be known who has a delivery token for every target. */
const sender = ['anyone', 'device'] as const;
/** Reads of the log and what brings a new device in. */
const enrolling = ['enrolling', 'device'] as const;
const peer = ['peer'] as const;

const logRules = nested<m.LogRef>({ cid: emptyOrBytes(32) });
const cursorRules = nested<m.LogCursor>({
  log: logRules,
  after: safeSeq,
  storeId: emptyOrBytes(8),
});
const signedManifest = every(
  present,
  nested<m.SignedManifest>({
    manifest: bytesBetween(1, maxManifestBytes),
    signature: exactBytes(64),
    akPrevSignature: emptyOrBytes(64),
    approval: emptyOrBytes(64),
  }),
);
/** A KEYTRANS request structure; the log parses it. */
const ktRequest = bytesBetween(1, maxKtRequestBytes);
const ktRequestOrNone = bytesBetween(0, maxKtRequestBytes);
const domainOrOwn: FieldRule = (value) => (value === '' ? undefined : domainName(value));
const checkpointNote = bytesBetween(1, maxCheckpointBytes);
const fetchKeyPackage: FieldRules<m.FetchKeyPackageRequest> = {
  userId: userIdText,
  claimId: exactBytes(16),
  suites: itemsBetween(1, 4, atMost(0xffff)),
};
const requester = exactBytes(16);
const deliveryToken = emptyOrBytes(deliveryTokenBytes);
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
};

export const methods = {
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

  opaqueRegisterStart: method(
    100,
    m.OpaqueRegisterStartRequestSchema,
    m.OpaqueRegisterStartResponseSchema,
    {
      callers: anyone,
      rate: 'auth',
      rules: {
        userId: userIdText,
        registrationRequest: exactBytes(opaqueBytes.registrationRequest),
      },
    },
  ),
  opaqueRegisterFinish: method(
    101,
    m.OpaqueRegisterFinishRequestSchema,
    m.OpaqueRegisterFinishResponseSchema,
    {
      callers: anyone,
      rate: 'auth',
      isIdempotent: false,
      rules: {
        handle: exactBytes(16),
        registrationRecord: exactBytes(opaqueBytes.registrationRecord),
        manifest: signedManifest,
        deviceProof: exactBytes(64),
      },
    },
  ),
  opaqueLoginStart: method(102, m.OpaqueLoginStartRequestSchema, m.OpaqueLoginStartResponseSchema, {
    callers: anyone,
    rate: 'auth',
    rules: { userId: userIdText, ke1: exactBytes(opaqueBytes.ke1) },
  }),
  opaqueLoginFinish: method(
    103,
    m.OpaqueLoginFinishRequestSchema,
    m.OpaqueLoginFinishResponseSchema,
    {
      callers: anyone,
      rate: 'auth',
      isIdempotent: false,
      rules: {
        handle: exactBytes(16),
        ke3: exactBytes(opaqueBytes.ke3),
        identityPub: exactBytes(32),
        deviceProof: exactBytes(64),
        sessionMac: exactBytes(32),
      },
    },
  ),
  logout: method(104, m.LogoutRequestSchema, m.LogoutResponseSchema, { callers: device }),
  deleteAccount: method(950, m.DeleteAccountRequestSchema, m.DeleteAccountResponseSchema, {
    callers: device,
    rate: 'keys',
    isIdempotent: false,
    rules: { manifest: signedManifest },
  }),

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
  }),
  fetch: method(201, m.FetchRequestSchema, m.FetchResponseSchema, {
    callers: device,
    rate: 'read',
    rules: {
      log: logRules,
      after: safeSeq,
      maxRows: atMost(maxFetchRows),
      maxBytes: atMost(maxFetchBytes),
    },
  }),
  fetchWait: method(202, m.FetchWaitRequestSchema, m.FetchWaitResponseSchema, {
    callers: device,
    rate: 'read',
    deadlineMs: maxWaitMs + 5_000,
    rules: { cursors: itemsBetween(1, 256, cursorRules), waitMs: atMost(maxWaitMs) },
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
      rules: { hashes: itemsBetween(0, maxDeliveryTokens, exactBytes(32)) },
    },
  ),
  peek: method(203, m.PeekRequestSchema, m.PeekResponseSchema, {
    callers: device,
    rate: 'read',
    rules: { log: logRules, after: safeSeq, maxRows: atMost(maxPeekRows) },
  }),
  ack: method(204, m.AckRequestSchema, m.AckResponseSchema, {
    callers: device,
    rate: 'read',
    rules: { log: logRules, storeId: exactBytes(8), upTo: safeSeq },
  }),
  subscribe: method(206, m.SubscribeRequestSchema, m.SubscribeResponseSchema, {
    callers: device,
    rate: 'read',
    rules: { cursors: itemsBetween(1, 256, cursorRules) },
  }),
  relayStatus: method(207, m.RelayStatusRequestSchema, m.RelayStatusResponseSchema, {
    callers: device,
    rate: 'read',
    rules: { domain: domainName, mids: itemsBetween(0, 256, exactBytes(16)) },
  }),

  uploadKeyPackage: method(300, m.UploadKeyPackageRequestSchema, m.UploadKeyPackageResponseSchema, {
    callers: device,
    rate: 'keys',
    maxRequestBytes: defaultMaxPayloadBytes,
    rules: { keyPackages: itemsBetween(1, 128, bytesBetween(1, smallBytes)) },
  }),
  fetchKeyPackage: method(301, m.FetchKeyPackageRequestSchema, m.FetchKeyPackageResponseSchema, {
    callers: device,
    rate: 'lookup',
    rules: fetchKeyPackage,
  }),
  uploadHybridKey: method(302, m.UploadHybridKeyRequestSchema, m.UploadHybridKeyResponseSchema, {
    callers: device,
    rate: 'keys',
    rules: {
      prekey: every(
        present,
        nested<m.SignedPrekey>({ prekey: bytesBetween(1, 2048), signature: exactBytes(64) }),
      ),
    },
  }),
  fetchHybridKey: method(303, m.FetchHybridKeyRequestSchema, m.FetchHybridKeyResponseSchema, {
    callers: device,
    rate: 'lookup',
    rules: { userId: userIdText },
  }),
  fetchHybridKeys: method(304, m.FetchHybridKeysRequestSchema, m.FetchHybridKeysResponseSchema, {
    callers: device,
    rate: 'lookup',
    rules: { userIds: itemsBetween(1, 16, userIdText) },
  }),
  keyPackageCount: method(305, m.KeyPackageCountRequestSchema, m.KeyPackageCountResponseSchema, {
    callers: device,
  }),

  createGroup: method(220, m.CreateGroupRequestSchema, m.CreateGroupResponseSchema, {
    callers: device,
    rate: 'keys',
    rules: { entry: signedEntry, hubs: hubSet },
  }),
  submitCommit: method(221, m.SubmitCommitRequestSchema, m.SubmitCommitResponseSchema, {
    callers: device,
    rate: 'send',
    maxRequestBytes: maxCommitRequestBytes,
    rules: submitRules,
  }),
  groupLog: method(222, m.GroupLogRequestSchema, m.GroupLogResponseSchema, {
    callers: device,
    rate: 'read',
    rules: groupLogRules,
  }),

  createChannel: method(400, m.CreateChannelRequestSchema, m.CreateChannelResponseSchema, {
    callers: device,
    rate: 'keys',
    rules: {
      cid: exactBytes(channelLimits.cidBytes),
      hubs: hubSet,
      epoch: safeSeq,
      writePub: exactBytes(32),
    },
  }),
  listGroupMembers: method(412, m.ListGroupMembersRequestSchema, m.ListGroupMembersResponseSchema, {
    callers: device,
    rate: 'read',
    rules: { cid: exactBytes(channelLimits.cidBytes) },
  }),

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
  revokeKey: method(510, m.RevokeKeyRequestSchema, m.RevokeKeyResponseSchema, {
    callers: device,
    rate: 'keys',
    isIdempotent: false,
    rules: { manifest: signedManifest },
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

  registerDevice: method(700, m.RegisterDeviceRequestSchema, m.RegisterDeviceResponseSchema, {
    callers: ['enrolling'],
    rate: 'keys',
    isIdempotent: false,
    rules: { manifest: signedManifest },
  }),
  listDevices: method(701, m.ListDevicesRequestSchema, m.ListDevicesResponseSchema, {
    callers: enrolling,
    rate: 'read',
  }),
  revokeDevice: method(702, m.RevokeDeviceRequestSchema, m.RevokeDeviceResponseSchema, {
    callers: device,
    rate: 'keys',
    isIdempotent: false,
    rules: { manifest: signedManifest },
  }),
  storeRecoveryBundle: method(
    750,
    m.StoreRecoveryBundleRequestSchema,
    m.StoreRecoveryBundleResponseSchema,
    { callers: device, rate: 'keys', rules: { bundle: bytesBetween(1, maxRecoveryBundleBytes) } },
  ),
  fetchRecoveryBundle: method(
    751,
    m.FetchRecoveryBundleRequestSchema,
    m.FetchRecoveryBundleResponseSchema,
    { callers: enrolling, rate: 'keys' },
  ),
  deleteRecoveryBundle: method(
    752,
    m.DeleteRecoveryBundleRequestSchema,
    m.DeleteRecoveryBundleResponseSchema,
    { callers: device, rate: 'keys' },
  ),

  publishEndpoint: method(800, m.PublishEndpointRequestSchema, m.PublishEndpointResponseSchema, {
    callers: device,
    rate: 'keys',
    rules: { endpoint: present },
  }),

  fedRelay: method(900, m.FedRelayRequestSchema, m.FedRelayResponseSchema, relayOptions),
  fedRelayBatch: method(901, m.FedRelayRequestSchema, m.FedRelayResponseSchema, relayOptions),
  proxyFetchKeyPackage: method(
    902,
    m.ProxyFetchKeyPackageRequestSchema,
    m.ProxyFetchKeyPackageResponseSchema,
    {
      callers: peer,
      rate: 'lookup',
      rules: { fetch: every(present, nested(fetchKeyPackage)), requester },
    },
  ),
  proxyFetchHybridKey: method(
    903,
    m.ProxyFetchHybridKeyRequestSchema,
    m.ProxyFetchHybridKeyResponseSchema,
    {
      callers: peer,
      rate: 'lookup',
      rules: {
        fetch: every(present, nested<m.FetchHybridKeyRequest>({ userId: userIdText })),
        requester,
      },
    },
  ),
  proxyResolveUser: method(904, m.ProxyResolveUserRequestSchema, m.ProxyResolveUserResponseSchema, {
    callers: peer,
    rate: 'lookup',
    rules: {
      resolve: every(present, nested<m.ResolveUserRequest>({ userId: userIdText })),
      requester,
    },
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
  }),
  fedBlob: method(917, m.FedBlobRequestSchema, m.FedBlobResponseSchema, {
    callers: peer,
    rate: 'relay',
    rules: {
      hash: exactBytes(32),
      offset: safeSeq,
      length: every(atMost(maxBlobChunkBytes), (value) => (value === 0 ? 'is missing' : undefined)),
    },
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
    rate: 'relay',
    maxRequestBytes: maxCommitRequestBytes + smallBytes,
    rules: { submit: every(present, nested(submitRules)) },
  }),
  fedHubLog: method(914, m.FedHubLogRequestSchema, m.FedHubLogResponseSchema, {
    callers: peer,
    rate: 'relay',
    rules: { log: every(present, nested(groupLogRules)) },
  }),
  fedKt: method(916, m.FedKtRequestSchema, m.FedKtResponseSchema, {
    callers: peer,
    rate: 'relay',
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
  }),
} as const;

export type Methods = typeof methods;
export type MethodName = keyof Methods;

const byId = new Map<number, { name: MethodName; row: Method }>(
  (Object.keys(methods) as MethodName[]).map((name) => [
    methods[name].id,
    { name, row: methods[name] },
  ]),
);

/** The row of a method id, with its key in the table. */
export function methodById(
  id: number,
): { readonly name: MethodName; readonly row: Method } | undefined {
  return byId.get(id);
}

/** Bound of a request's payload (bytes), for the transport; unknown methods get 16 KiB. */
export function maxRequestBytes(methodId: number): number {
  return byId.get(methodId)?.row.maxRequestBytes ?? smallBytes;
}

/** Push event types. Events 1 to 6 concern the durable lane, the others are hints. */
export const PushEvent = {
  Message: 1,
  Gap: 2,
  Bounce: 3,
  Expired: 4,
  Delayed: 5,
  Superseded: 6,
  StreamStart: 7,
  KeyChange: 13,
  DeviceChange: 14,
  KeyPackagesLow: 15,
  ServerDraining: 20,
  Typing: 10,
  StoreChanged: 21,
} as const;

/** Row kinds: all that a node sees of content. */
export const RowKind = {
  Envelope: 1,
  GroupControl: 2,
  ChannelUpdate: 3,
  Notice: 4,
  ExpiredReport: 5,
} as const;
