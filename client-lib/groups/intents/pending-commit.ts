/**
 * A commit as it is written down before its first byte leaves: the request to the hub, always these bytes,
 * and the state behind it (docs/protocol/group-log.md, "At a member").
 */
import { commitHash, PayloadTooLargeError, sameBytes, type Runtime } from '@quicprochat/proto';
import { create, SubmitCommitRequestSchema } from '@quicprochat/proto/messages';
import { routeOf } from '../../channels/channel-commit.ts';
import type { Contacts } from '../../contacts/contacts.ts';
import type { DeliveryTokens } from '../../sending/delivery-tokens.ts';
import type { Recipient } from '../../sending/fan-out.ts';
import type { IntentPlan } from './group-intents.ts';
import { epochJoinKeys, joinKeyAfter, sealJoinState } from '../returning/group-info.ts';
import { sealCommit, type LogView } from '../log/group-log.ts';
import type { Invitee } from '../../contacts/invitation.ts';
import type { EvidenceExchange } from '../../kt/evidence-exchange.ts';
import {
  encodeCold,
  encodeHot,
  encodePast,
  type Mls,
  type PendingCommit,
} from '../../mls/index.ts';
import { requestBytes } from '../returning/resync-request.ts';
import { recipientsOf } from '../../sending/sealing.ts';
import { sealWelcomes, type SealedWelcomes } from '../welcomes/shared-welcome.ts';
import type { PendingRow } from '../../store/group-log-rows.ts';
import type { ClientStore } from '../../store/store.ts';

export interface PendingCommitParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly mls: Mls;
  readonly contacts: Contacts;
  readonly evidence: Pick<EvidenceExchange, 'own'>;
  readonly tokens: Pick<DeliveryTokens, 'forInvitees'>;
}

/** Throws PayloadTooLargeError when it does not fit into one request: it has to add fewer. */
export async function pendingCommit(
  parts: PendingCommitParts,
  view: LogView,
  plan: IntentPlan,
  made: PendingCommit,
  intentId: number,
): Promise<PendingRow> {
  const { mls, runtime, store } = parts;
  const { random } = runtime;
  const { group, head } = view;
  const facts = {
    commit: made.commit,
    pending: made.pending,
    isRemoval: made.removed.length > 0,
    joinPub: (await epochJoinKeys(mls, made.pending)).signing.publicKey,
  };
  const joinKey = await joinKeyAfter(mls, group, made.pending, store.resync.joinKey(group.groupId));
  const { envelope, entry } = await sealCommit(mls, group, head, facts, random);
  const target = ({ identityPub: rid, userId }: Recipient) => {
    const token = store.tokens.of(rid) ?? new Uint8Array(0);
    return { rid, domain: domainOf(userId), token };
  };
  const mid = random.bytes(16);
  const { isRemoval } = facts;
  const ownRid = group.members().find((one) => one.leafIndex === group.ownLeafIndex)?.identityPub;
  const ownToken = store.tokens.own();
  const tokenOf = (rid: Uint8Array): Uint8Array | undefined => {
    const isOwn = ownRid !== undefined && sameBytes(rid, ownRid);
    return isOwn && ownToken?.isTold === true ? ownToken.token : store.tokens.of(rid);
  };
  const commit = { mid, envelope, isRemoval };
  const { isDirect, ...route } = await routeOf(mls, group, made.pending, commit, tokenOf);
  const { sharedWelcome, welcomes } = welcomesOf(parts, view, plan, made, joinKey);
  const submit = create(SubmitCommitRequestSchema, {
    hub: group.hubs[0] ?? '',
    entry,
    commit: envelope,
    mid,
    ...route,
    targets: isDirect ? recipientsOf(group).map(target) : [],
    sharedWelcome,
    welcomes: welcomes.map(({ invitee, ...rest }) => ({ ...rest, target: target(invitee) })),
  });
  const groupInfo = await sealJoinState(mls, made.pending, joinKey, random);
  const request = requestBytes({ ...submit, groupInfo }) ?? requestBytes(submit);
  if (request === undefined) throw new PayloadTooLargeError('a commit with its Welcomes');
  return {
    commitHash: commitHash(envelope),
    groupId: group.groupId,
    intentId,
    parent: head.hash,
    request,
    isLast: plan.isLast,
    isRefused: false,
    cold: encodeCold(made.pending),
    hot: encodeHot(made.pending),
    past: encodePast(made.pending, group.epoch),
    welcome: made.welcome ?? new Uint8Array(0),
    welcomeMid: welcomes[0]?.mid,
  };
}

function welcomesOf(
  parts: PendingCommitParts,
  { group }: LogView,
  { invitees = [] }: IntentPlan,
  { welcome }: PendingCommit,
  joinKey: Uint8Array | undefined,
): SealedWelcomes<Invitee> {
  const { contacts, evidence, tokens, runtime } = parts;
  if (welcome === undefined) return { sharedWelcome: new Uint8Array(0), welcomes: [] };
  const invited = invitees.map(({ userId }) => userId);
  const content = {
    kind: 'welcome',
    bytes: welcome,
    evidence: evidence.own(invited),
    tokens: tokens.forInvitees(group, invited),
    joinKey,
  } as const;
  const prekeyOf = (rid: Uint8Array): Uint8Array | undefined => contacts.prekey(rid);
  return sealWelcomes(content, invitees, prekeyOf, runtime.random);
}

const domainOf = (userId: string): string => userId.slice(userId.indexOf('@') + 1);
