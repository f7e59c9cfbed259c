/**
 * Who may commit what. The hub has already ordered a commit when it arrives, so a policy must
 * be a function of group state alone, equal on all members: else groups split.
 */
import type { Proposal } from 'ts-mls';
import type { Member, MlsGroup } from './group.ts';
import { defaultProposalTypes, isDefaultProposal } from './library.ts';
import { limits } from './suite.ts';

/** Whether `committer`, a member of `group`, may commit in it. Pure: group state only. */
export type CommitPolicy = (group: MlsGroup, committer: Member) => boolean;

/** Policy version 1: only the device that created the group commits. */
export const creatorCommits: CommitPolicy = (group, committer) => {
  const { policyVersion, creator } = group.info;
  return (
    policyVersion === 1 &&
    committer.userId === creator.userId &&
    committer.deviceId === creator.deviceId
  );
};

/**
 * Whether a commit may carry these proposals: Adds (at most 64) and Removes. Updates, PSKs,
 * ReInit, external init, context extensions and custom types have no use of ours yet.
 */
export function proposalsAllowed(proposals: readonly { readonly proposal: Proposal }[]): boolean {
  let adds = 0;
  for (const { proposal } of proposals) {
    if (!isDefaultProposal(proposal)) return false;
    if (proposal.proposalType === defaultProposalTypes.add) adds++;
    else if (proposal.proposalType !== defaultProposalTypes.remove) return false;
  }
  return adds <= limits.addsPerCommitMax;
}
