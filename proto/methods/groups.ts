/** Rows of channels and of the group log. */
import * as m from '../messages.ts';
import { exactBytes, safeSeq } from '../field-rules.ts';
import { channelLimits } from '../channel.ts';
import {
  groupLogRules,
  hubSet,
  maxCommitRequestBytes,
  signedEntry,
  submitRules,
} from '../group-rules.ts';
import { method, device } from './row.ts';

export const groupsMethods = {
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
} as const;
