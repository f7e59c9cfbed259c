/** Rows of channels and of the group log. */
import * as m from '../messages.ts';
import { exactBytes, safeSeq } from '../field-rules.ts';
import { channelLimits } from '../channel.ts';
import {
  certificate,
  groupLogRules,
  hubSet,
  maxAnonymousCommitBytes,
  maxCommitRequestBytes,
  signedEntry,
  submitRules,
  takeoverRules,
} from '../group-rules.ts';
import { method, device, member, smallBytes } from './row.ts';
import { fromPeers, ofSubmit } from './shared-rules.ts';
import type { Reason } from '../status.ts';

const ofCreation: readonly Reason[] = ['PEER_DENIED', 'NAME_TAKEN', 'QUOTA', 'STORE_FULL'];

/** Of a caller without login: not a member by its proof, or it means another node. */
const ofStranger: readonly Reason[] = ['BLOCKED', 'CALLER_CLASS'];

const submitting = {
  rate: 'send',
  maxRequestBytes: maxCommitRequestBytes,
  rules: submitRules,
  refusals: [...ofSubmit, 'PEER_UNREACHABLE'],
} as const;

/** SubmitCommit for one purpose, which the node is told, and which the entry must not contradict. */
const submittingFor = <Id extends number>(id: Id, name: string) =>
  method(id, m.SubmitCommitRequestSchema, m.SubmitCommitResponseSchema, {
    ...submitting,
    ...{ name, callers: device },
  });

export const groupsMethods = {
  createGroup: method(220, m.CreateGroupRequestSchema, m.CreateGroupResponseSchema, {
    callers: device,
    rate: 'keys',
    rules: { entry: signedEntry, hubs: hubSet, signatures: certificate },
    refusals: [...ofCreation, 'BAD_SIGNATURE', 'HUB_UNAVAILABLE'],
  }),
  submitCommit: method(221, m.SubmitCommitRequestSchema, m.SubmitCommitResponseSchema, {
    ...submitting,
    callers: member,
    maxAnonymousBytes: maxAnonymousCommitBytes,
    refusals: [...submitting.refusals, ...ofStranger],
  }),
  groupLog: method(222, m.GroupLogRequestSchema, m.GroupLogResponseSchema, {
    callers: member,
    rate: 'read',
    rules: groupLogRules,
    refusals: ['UNKNOWN_GROUP', ...fromPeers, ...ofStranger],
  }),
  groupTakeover: method(223, m.GroupTakeoverRequestSchema, m.GroupTakeoverResponseSchema, {
    callers: member,
    rate: 'send',
    maxRequestBytes: maxCommitRequestBytes + smallBytes,
    maxAnonymousBytes: maxAnonymousCommitBytes + smallBytes,
    rules: takeoverRules,
    refusals: [...ofSubmit, 'PEER_UNREACHABLE', ...ofStranger],
  }),
  createChannel: method(400, m.CreateChannelRequestSchema, m.CreateChannelResponseSchema, {
    callers: device,
    rate: 'keys',
    rules: {
      cid: exactBytes(channelLimits.cidBytes),
      hubs: hubSet,
      epoch: safeSeq,
      writePub: exactBytes(32),
      nonce: exactBytes(channelLimits.nonceBytes),
    },
    refusals: ofCreation,
  }),
  removeMember: submittingFor(410, 'RemoveMember'),
  updateGroupMetadata: submittingFor(411, 'UpdateGroupMetadata'),
  rotateKeys: submittingFor(413, 'RotateKeys'),
  listGroupMembers: method(412, m.ListGroupMembersRequestSchema, m.ListGroupMembersResponseSchema, {
    callers: device,
    rate: 'read',
    rules: { cid: exactBytes(channelLimits.cidBytes) },
    refusals: ['UNKNOWN_CHANNEL', 'QUOTA'],
  }),
} as const;
