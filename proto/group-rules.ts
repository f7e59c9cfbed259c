/** Field rules of channels and of the group log: what their rows of the method table check. */
import { channelLimits, hubsViolation } from './channel.ts';
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
  unknownAtMost,
  type FieldRule,
  type FieldRules,
} from './field-rules.ts';
import { groupLogLimits } from './group-log.ts';
import type * as m from './messages.ts';

/** A commit with its Welcomes, updates and GroupInfo (bytes). */
export const maxCommitRequestBytes = 2 * 1024 * 1024;
/**
 * The same of a caller that nobody knows (bytes): the largest commit with its GroupInfo, and 256 KiB for what
 * goes with it.
 */
export const maxAnonymousCommitBytes = 1_280 * 1024;
/** What hubs of one group tell each other: such a commit, or a page of the log with its GroupInfo. */
export const maxHubBytes = 4 * 1024 * 1024;
const maxTargets = 2_048;
const maxWelcomes = 64;
const maxGroupInfoBytes = 512 * 1024;
const envelope = bytesBetween(1, groupLogLimits.envelopeBytes);
const token = emptyOrBytes(16);
const domainOrOwn: FieldRule = (value) => (value === '' ? undefined : domainName(value));

/** The hubs of a channel or a group. */
export const hubSet: FieldRule = (value) =>
  Array.isArray(value) ? hubsViolation(value.map(String)) : 'is missing';

/** Beside what is signed: in the log it would stand for ever, and in a row of each member. */
const fewUnknown = unknownAtMost(256);

const entryOf = (bytesMax: number): FieldRule =>
  every(
    present,
    fewUnknown,
    nested<m.SignedGroupEntry>({
      entry: bytesBetween(1, bytesMax),
      signature: exactBytes(64),
    }),
  );
export const signedEntry: FieldRule = entryOf(groupLogLimits.entryBytes);

/** The words of hubs for an entry. */
export const certificate = itemsBetween(
  0,
  groupLogLimits.hubs,
  every(
    fewUnknown,
    nested<m.HubSignature>({
      domain: domainName,
      signPub: exactBytes(32),
      signature: exactBytes(64),
    }),
  ),
);

const postFields: FieldRules<m.ChannelPost> = {
  cid: exactBytes(channelLimits.cidBytes),
  epoch: safeSeq,
  signature: exactBytes(64),
};

/** Of an Enqueue. */
export const channelPost = nested<m.ChannelPost>({
  ...postFields,
  domainsHash: exactBytes(channelLimits.domainsHashBytes),
  domains: itemsBetween(0, channelLimits.domains, domainName),
});

const memberProof = nested<m.MemberProof>({
  entry: exactBytes(groupLogLimits.hashBytes),
  issuedMs: safeSeq,
  signature: exactBytes(64),
});

const commitTarget = nested<m.CommitTarget>({ rid: exactBytes(32), domain: domainName, token });

export const submitRules: FieldRules<m.SubmitCommitRequest> = {
  hub: domainOrOwn,
  entry: entryOf(groupLogLimits.offeredBytes),
  signatures: certificate,
  commit: envelope,
  mid: exactBytes(16),
  channel: nested<m.ChannelPost>({
    ...postFields,
    domains: itemsBetween(1, channelLimits.domains, domainName),
  }),
  targets: itemsBetween(0, maxTargets, commitTarget),
  welcomes: itemsBetween(
    0,
    maxWelcomes,
    nested<m.WelcomeTarget>({
      target: every(present, commitTarget),
      mid: exactBytes(16),
      welcome: envelope,
      slip: emptyOrBytes(52),
    }),
  ),
  sharedWelcome: bytesBetween(0, groupLogLimits.envelopeBytes),
  updates: itemsBetween(
    0,
    channelLimits.domains,
    nested<m.DomainUpdate>({
      domain: domainName,
      update: bytesBetween(1, channelLimits.updateBytes),
    }),
  ),
  groupInfo: bytesBetween(0, maxGroupInfoBytes),
  channelNonce: emptyOrBytes(channelLimits.nonceBytes),
  returnTo: domainOrOwn,
  term: safeSeq,
  proof: memberProof,
};

const hashOrNone = emptyOrBytes(groupLogLimits.hashBytes);
const group = exactBytes(groupLogLimits.groupIdBytes);

/** What a hub wrote down: a commit as it was submitted, or entry 0 with the mid of its beginning. */
const prepared = nested<m.SubmitCommitRequest>({
  ...submitRules,
  commit: bytesBetween(0, groupLogLimits.envelopeBytes),
  mid: emptyOrBytes(16),
});

export const takeoverRules: FieldRules<m.GroupTakeoverRequest> = {
  hub: domainOrOwn,
  group,
  submit: nested(submitRules),
  proof: memberProof,
};

export const replicateRules: FieldRules<m.FedHubReplicateRequest> = {
  group,
  hubs: hubSet,
  term: safeSeq,
  position: safeSeq,
  head: hashOrNone,
  prepared,
};

export const promiseRules: FieldRules<m.FedHubPromiseRequest> = { group, term: safeSeq };

export const installRules: FieldRules<m.FedHubInstallRequest> = {
  group,
  hubs: hubSet,
  position: every(safeSeq, (value) => (value === 0n ? 'is missing' : undefined)),
  entries: itemsBetween(
    1,
    groupLogLimits.pageEntries,
    nested<m.GroupControl>({
      entry: every(
        present,
        fewUnknown,
        nested<m.CertifiedEntry>({ entry: signedEntry, signatures: certificate }),
      ),
      commit: bytesBetween(0, groupLogLimits.envelopeBytes),
      welcome: bytesBetween(0, 0),
      welcomeKeys: itemsBetween(0, 0, present),
    }),
  ),
  groupInfo: bytesBetween(0, maxGroupInfoBytes),
  groupInfoEntry: hashOrNone,
};

export const groupLogRules: FieldRules<m.GroupLogRequest> = {
  hub: domainOrOwn,
  group,
  after: hashOrNone,
  maxEntries: atMost(groupLogLimits.pageEntries),
  proof: memberProof,
};
