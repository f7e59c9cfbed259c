/**
 * A first conversation while no node answers (docs/protocol/contact-cards.md, "With all nodes down"). The hub
 * of a new group is the own node, which is away; so its first commit stands uncertified until it is back. That
 * forks nothing: only the creator is in the epoch that it is made on, it is on disk before its Welcome leaves,
 * and the hub gets these very bytes. Two people, no more: nobody else can be shown another history.
 */
import {
  hasReason,
  hex,
  NotFoundError,
  parseEntry,
  parseUserId,
  QpcError,
  sameBytes,
  Status,
  TransportError,
  UnavailableError,
  verifyCertified,
  type Runtime,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  fromBinary,
  GroupControlSchema,
  SubmitCommitRequestSchema,
  type CertifiedEntry,
} from '@quicprochat/proto/messages';
import type { Cards } from '../cards/cards.ts';
import { envelopeKeyOf } from '../sending/envelope-key.ts';
import type { EventBus } from '../events.ts';
import { encodeIntent, type GroupIntent } from '../groups/intents/group-intents.ts';
import { commitKeyOf } from '../groups/log/group-log.ts';
import { controlOf, headOf, type GroupWalker } from '../groups/log/group-walker.ts';
import type { GroupPull } from '../groups/log/group-pull.ts';
import { callCreateGroup, type SubmitAnswer } from '../groups/log/hub-calls.ts';
import { UnknownHubError, type HubKeys } from '../groups/log/hub-keys.ts';
import type { Invitee } from './invitation.ts';
import type { Caller } from '../dial.ts';
import { acceptCommit, mandatorySuite, xwingSuite, type Joined, type Mls } from '../mls/index.ts';
import { makeGroup, storeGroup, type NewGroupParts } from '../groups/new-group.ts';
import { pendingCommit, type PendingCommitParts } from '../groups/intents/pending-commit.ts';
import type { PendingRow } from '../store/group-log-rows.ts';
import type { ClientStore } from '../store/store.ts';
import { welcomeCopies } from '../groups/welcomes/welcome-copies.ts';
import type { Batch, Writer } from '../writer.ts';

/** The hub of a conversation that began without it will not have it: nothing of the group changes any more. */
export class HubRefusedError extends QpcError {
  override name = 'HubRefusedError';
  constructor() {
    const message = 'the hub refused this conversation: it stays as it is; begin another one';
    super(Status.FailedPrecondition, 'HUB_REFUSED', message);
  }
}

/** Whether this device is in an epoch of the group that no hub has certified yet. */
export function isUncertified(store: Pick<ClientStore, 'groupLog'>, groupId: Uint8Array): boolean {
  const head = store.groupLog.head(groupId);
  return head !== undefined && head.epoch > 0 && hasNoWord(controlOf(head).entry);
}

/** No hub has signed it. */
export const hasNoWord = (entry: CertifiedEntry | undefined): boolean =>
  entry === undefined || entry.signatures.length === 0;

export interface DarkParts extends PendingCommitParts, NewGroupParts {
  readonly writer: Writer;
  readonly cards?: Pick<Cards, 'invitees'> | undefined;
  readonly committer: {
    /** See Committer. */
    addIn(batch: Batch, groupId: Uint8Array, intent: GroupIntent): unknown;
    wake(groupId: Uint8Array): void;
  };
  /** Whether the own node is away, once that is known; absent: it is waited for. */
  readonly isDark?: ((signal?: AbortSignal) => Promise<boolean>) | undefined;
  /** The outbox got rows. */
  readonly onOutbox: () => void;
}

/**
 * A conversation with one person whose card is here, while the own node is away: durable on return, and
 * messages may be sent. Undefined: it has to be made with the node. Throws as enterUncertified.
 */
export async function createInTheDark(
  parts: DarkParts,
  name: string,
  [userId, ...more]: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Uint8Array | undefined> {
  const { store, writer, committer, contacts, cards, isDark, onOutbox } = parts;
  if (userId === undefined || more.length > 0) return undefined;
  if ((await isDark?.(signal)) !== true) return undefined;
  const [first] = (await cards?.invitees(userId, [xwingSuite, mandatorySuite])) ?? [];
  if (first === undefined) return undefined;
  const invitees = (await cards?.invitees(userId, [first.suite])) ?? [];
  const made = await makeGroup(parts, { suite: first.suite, name });
  const { groupId } = made.group;
  const intent = { kind: 'add', userIds: [userId] } as const;
  const inAll = contacts.get(userId)?.devices.length ?? 0;
  let id = 0;
  await Promise.all([
    writer.run(async (batch) => {
      storeGroup(parts, batch, made);
      const row = { groupId, dueMs: batch.nowMs, ...encodeIntent(intent) };
      batch.write(() => (id = store.groupLog.addIntent(row, batch.nowMs)));
    }),
    // Behind it at once, so that nothing else finds the group without its members.
    writer.run(async (batch) => {
      await enterUncertified(parts, batch, groupId, id, invitees);
      // Devices that are in no card come when their keys can be fetched.
      if (inAll > invitees.length) committer.addIn(batch, groupId, intent);
      batch.after(() => {
        committer.wake(groupId);
        onOutbox();
      });
    }),
  ]);
  return groupId;
}

/**
 * The first commit of a group that was just made, applied before its hub has heard of it: the pending commit,
 * the epoch behind it, and the Welcomes, which go by whatever way there is, in one transaction. Part of a
 * batch. Throws NotFoundError NO_KEY_PACKAGE for an invitee without a valid prekey, and what Mls.commit throws.
 */
async function enterUncertified(
  parts: PendingCommitParts,
  batch: Batch,
  groupId: Uint8Array,
  intentId: number,
  invitees: readonly Invitee[],
): Promise<void> {
  const { store, runtime, mls, contacts } = parts;
  const group = batch.group(groupId);
  const head = store.groupLog.head(groupId);
  if (group === undefined || head === undefined) throw new Error('a group that is not here');
  const view = { group, head: parseEntry(controlOf(head).entry?.entry) };
  const change = { add: invitees.map(({ keyPackage }) => keyPackage) };
  const made = await mls.commit(group, change);
  const pending = await pendingCommit(
    parts,
    view,
    { change, invitees, isLast: true },
    made,
    intentId,
  );
  const { entry, commit } = fromBinary(SubmitCommitRequestSchema, pending.request);
  const certified = create(CertifiedEntrySchema, { ...(entry && { entry }) });
  const control = create(GroupControlSchema, { entry: certified, commit });
  const welcomes = welcomeCopies(
    pending,
    certified,
    (rid) => contacts.prekey(rid),
    runtime.random,
    store.resync.joinKey(groupId),
  );
  if (welcomes.length !== invitees.length) {
    throw new NotFoundError('NO_KEY_PACKAGE', 'invitation: a device has no prekey');
  }
  const { next, wipe } = acceptCommit(group, made.pending);
  batch.enterEpoch(next, await envelopeKeyOf(mls, next), [wipe]);
  batch.write(() => {
    store.groupLog.putPending(pending);
    store.groupLog.putHead(groupId, headOf(parseEntry(entry), control));
    const about = { kind: 'HANDSHAKE', groupId, epoch: next.epoch } as const;
    for (const copy of welcomes) {
      store.outbox.add({ ...copy, messageId: undefined, about }, batch.nowMs);
    }
  });
}

export interface FirstContactRules {
  readonly mls: Mls;
  /** Of this device. */
  readonly userId: string;
  /** Absent: nobody is met without a hub. */
  readonly cards?: Pick<Cards, 'holder'> | undefined;
}

/**
 * Whether a Welcome may be followed whose entry no hub has certified: the first commit of a group of two
 * people, of somebody whose card is here, at that person's node. Throws as parseEntry.
 */
export async function mayFollow(
  { mls, userId: ownUserId, cards }: FirstContactRules,
  { group, inviter }: Joined,
  certified: CertifiedEntry,
): Promise<boolean> {
  const { entry, epoch } = parseEntry(certified.entry);
  if (group.epoch !== 1n || epoch !== 1 || !sameBytes(entry.group, group.groupId)) return false;
  const { userId, identityPub } = inviter;
  if (userId === ownUserId || cards?.holder(hex(identityPub)) !== userId) return false;
  const isOfTwo = group.members().every((one) => [userId, ownUserId].includes(one.userId));
  const [hub, ...others] = group.hubs;
  const isAtHome = hub === parseUserId(userId).domain && others.length === 0;
  if (!isOfTwo || !isAtHome) return false;
  const { publicKey } = await commitKeyOf(mls, group);
  return sameBytes(entry.nextCommitPub, publicKey);
}

/**
 * A hub certified the entry that this device stands at: its word takes the place of none. Undefined: it is
 * about something else. Throws InvalidArgumentError BAD_SIGNATURE for a certificate that no known key fits.
 */
export function certifyHead(
  { store, hubKeys }: { readonly store: ClientStore; readonly hubKeys: Pick<HubKeys, 'of'> },
  batch: Batch,
  certified: CertifiedEntry | undefined,
): (() => void) | undefined {
  if (certified?.entry === undefined || hasNoWord(certified)) return undefined;
  const { hash, entry } = parseEntry(certified.entry);
  const head = store.groupLog.head(entry.group);
  const group = batch.group(entry.group);
  if (head === undefined || group === undefined || !sameBytes(head.hash, hash)) return undefined;
  const kept = controlOf(head);
  if (!hasNoWord(kept.entry)) return undefined;
  const parsed = verifyCertified(certified, group.hubs, hubKeys.of);
  const control = create(GroupControlSchema, { ...kept, entry: certified });
  return () => batch.write(() => store.groupLog.putHead(entry.group, headOf(parsed, control)));
}

export interface FirstCommitParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly writer: Writer;
  readonly contacts: PendingCommitParts['contacts'];
  readonly caller: Caller;
  readonly walker: Pick<GroupWalker, 'end'>;
  readonly pull: Pick<GroupPull, 'view'>;
  readonly hubKeys: Pick<HubKeys, 'of' | 'learn'>;
}

/**
 * The group's log begins with its creator: the hub hears of the group, if it has not yet. Throws what it answers.
 */
export async function registerGroup(
  { store, caller, pull }: FirstCommitParts,
  groupId: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  const first = store.groupLog.headAt(groupId, 0);
  const kept = first && controlOf(first).entry;
  if (first === undefined || kept?.entry === undefined || !hasNoWord(kept)) return;
  const { hubs } = (await pull.view(groupId))?.group ?? { hubs: [] };
  const entry = await callCreateGroup(caller, kept, hubs, signal);
  const parsed = parseEntry(entry.entry);
  if (!sameBytes(parsed.hash, first.hash)) {
    throw new TransportError('protocol', 'the hub certified another entry');
  }
  store.transaction(() => {
    store.groupLog.putHead(groupId, headOf(parsed, create(GroupControlSchema, { entry })));
  });
}

/**
 * The hub accepted the own first commit, behind which this device stands already: its intent is done. False:
 * it does not stand there. Throws UnknownHubError while no known key of the hub fits.
 */
export async function certifyFirst(
  parts: FirstCommitParts,
  pending: PendingRow,
  { controls: [control], isAccepted }: SubmitAnswer,
): Promise<boolean> {
  const { store, writer, hubKeys, caller } = parts;
  if (!isAccepted || !isUncertified(store, pending.groupId)) return false;
  try {
    return await writer.run(async (batch) => certifyOwn(parts, batch, pending, control?.entry));
  } catch (error) {
    if (!hasReason(error, 'BAD_SIGNATURE')) throw error;
    const { hub } = fromBinary(SubmitCommitRequestSchema, pending.request);
    await hubKeys.learn(hub, caller);
    throw new UnknownHubError(hub);
  }
}

function certifyOwn(
  parts: FirstCommitParts,
  batch: Batch,
  pending: PendingRow,
  entry: CertifiedEntry | undefined,
): boolean {
  const { store, runtime, events, contacts, walker } = parts;
  const certify = certifyHead(parts, batch, entry);
  if (certify === undefined || entry === undefined) return false;
  certify();
  const { groupId, intentId, isLast } = pending;
  const about = { kind: 'HANDSHAKE', groupId, epoch: 1n } as const;
  const prekeyOf = (rid: Uint8Array): Uint8Array | undefined => contacts.prekey(rid);
  batch.write(() => {
    store.groupLog.addCommit(intentId);
    store.groupLog.deletePendings(groupId);
    const told = isLast ? walker.end(intentId, 'DONE', undefined, batch.nowMs) : [];
    const joinKey = store.resync.joinKey(groupId);
    // With the hub's word, for somebody who has no card of this device any more.
    for (const copy of welcomeCopies(pending, entry, prekeyOf, runtime.random, joinKey)) {
      store.outbox.addSent({ ...copy, messageId: undefined, about }, batch.nowMs);
    }
    batch.after(() => {
      for (const event of told) events.emit(event);
    });
  });
  return true;
}

/**
 * Whether the hub refused this device's group for good, behind whose first commit it stands: it stays as it is. Only
 * its creator can tell.
 */
export function isRefusedGroup(store: Pick<ClientStore, 'groupLog'>, groupId: Uint8Array): boolean {
  const { groupLog } = store;
  if (groupLog.headAt(groupId, 0) === undefined || !isUncertified(store, groupId)) return false;
  return groupLog.pendings(groupId).every(({ isRefused }) => isRefused);
}

/**
 * Nothing is committed behind an entry that its hub has not heard of. Throws UnavailableError HUB_UNAVAILABLE, and
 * HubRefusedError where it never will.
 */
export function requireCertified(store: ClientStore, groupId: Uint8Array): void {
  if (!isUncertified(store, groupId)) return;
  if (isRefusedGroup(store, groupId)) {
    throw new HubRefusedError();
  }
  throw new UnavailableError('HUB_UNAVAILABLE', 'the hub has not heard of this group yet');
}
