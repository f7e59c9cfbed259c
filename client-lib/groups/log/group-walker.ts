/**
 * Takes certified entries of a group's log into the store (docs/protocol/group-log.md, "At a member"): the
 * walk, and in one transaction with the new state everything that follows from it: the entry, the fate of
 * own commits and of the intents that they are for, evidence against a hub. Rows, answers of a hub and the
 * log itself all come this way, so that it does not matter by which of them an entry comes first.
 */
import {
  checkEvidence,
  hex,
  jitter,
  parseEntry,
  sameBytes,
  type Runtime,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  fromBinary,
  GroupControlSchema,
  toBinary,
  type CertifiedEntry,
  type GroupControl,
} from '@quicprochat/proto/messages';
import type { DeliveryTokens } from '../../sending/delivery-tokens.ts';
import type { Contacts } from '../../contacts/contacts.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import type { ClientEvent, EventBus } from '../../events.ts';
import { groupEvents } from '../group-events.ts';
import { joinKeyAfter } from '../returning/group-info.ts';
import { decodeIntent, intentOutcomes, isWish } from '../intents/group-intents.ts';
import { walkLog, type Freshness, type LogView, type Step, type Walk } from './group-log.ts';
import { UnknownHubError, type HubKeys } from './hub-keys.ts';
import { askAgain, isToAskAgain } from '../intents/leave-again.ts';
import { restoreGroup, type Mls, type MlsGroup } from '../../mls/index.ts';
import { overJunkBefore, putOverJunk } from '../intents/junk-duty.ts';
import { nextRekey } from '../intents/rekeys.ts';
import type { Standings } from '../standings/standings.ts';
import type { LossCause } from '../../store/resync-rows.ts';
import type { IntentEnd, PendingRow, StoredHead } from '../../store/group-log-rows.ts';
import type { EnvelopeKey } from '../../store/group-rows.ts';
import type { ClientStore } from '../../store/store.ts';
import { welcomeCopies } from '../welcomes/welcome-copies.ts';
import type { Batch } from '../../writer.ts';

export const walkerLimits = {
  /** Epochs in a row that what somebody waits for may lose to others before it is refused. */
  lostRaces: 6,
  /** Longest wait after the first lost race (ms); it doubles with each, six times. */
  lostBackOffMs: 200,
} as const;

/** Devices that lost their place at once do not all begin at once (ms). */
const resyncSpreadMs = 2_000;

export interface GroupWalkerParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly mls: Mls;
  readonly contacts: Pick<Contacts, 'prekey'>;
  readonly hubKeys: Pick<HubKeys, 'of' | 'isFresh'>;
  readonly tokens: Pick<DeliveryTokens, 'grew' | 'wake' | 'changed'>;
  readonly standings: Pick<Standings, 'of' | 'saw' | 'isAlone'>;
  /** Groups are to be come back into. */
  readonly onLost: () => void;
  /** A group is in a new epoch, or its state changed otherwise: what waited for that may go on. */
  readonly onMoved: (groupId: Uint8Array) => void;
}

/** A walk whose changes can be made. */
export interface Prepared {
  readonly walk: Walk;
  /** Part of the batch that it was prepared in. */
  apply(): void;
}

export class GroupWalker {
  readonly #parts: GroupWalkerParts;

  constructor(parts: GroupWalkerParts) {
    this.#parts = parts;
  }

  /** Where this device stands; undefined for a group that it is not in. */
  view(batch: Batch, groupId: Uint8Array): LogView | undefined {
    const group = batch.group(groupId);
    const head = this.#parts.store.groupLog.head(groupId);
    if (group === undefined || head === undefined) return undefined;
    return { group, head: parseEntry(controlOf(head).entry?.entry) };
  }

  /**
   * Everything about these entries that can fail or wait. Undefined for a group that this device is not
   * in. Throws what walkLog throws; UnknownHubError when a certificate fits no known key of the hub and
   * its record should be asked for.
   */
  async prepare(
    batch: Batch,
    groupId: Uint8Array,
    controls: readonly GroupControl[],
    freshness: Freshness = 'unasked',
  ): Promise<Prepared | undefined> {
    const { store, mls, hubKeys, standings } = this.#parts;
    const view = this.view(batch, groupId);
    if (view === undefined || !view.group.isActive) return undefined;
    // Judged before the walk: one key that is not known here makes everything behind it unreadable.
    const { hubs } = view.group;
    for (const { entry } of controls) {
      const unknown = hubs.filter((hub) => !this.#isSignedBy(entry, hub));
      // A majority of the hubs certifies.
      if (2 * unknown.length < hubs.length) continue;
      const unasked = unknown.find((hub) => !hubKeys.isFresh(hub));
      if (unasked !== undefined) throw new UnknownHubError(unasked);
    }
    const pendings = store.groupLog.pendings(groupId);
    const pendingOf = (hash: Uint8Array): MlsGroup | undefined => {
      const found = pendings.find(({ commitHash }) => Buffer.compare(commitHash, hash) === 0);
      return found && restoreGroup({ cold: found.cold, hot: found.hot, past: [found.past] });
    };
    const standingOf = (hash: Uint8Array) => standings.of(view.group, hash);
    const parts = { mls, keysOf: hubKeys.of, pendingOf, standingOf, keys: freshness };
    const walk = await walkLog(parts, view, controls);
    const keys: EnvelopeKey[] = [];
    let joinKey = store.resync.joinKey(groupId);
    let before = view.group;
    for (const { next } of walk.steps) {
      if (!next.isActive) continue;
      keys.push(await envelopeKeyOf(mls, next));
      joinKey = await joinKeyAfter(mls, before, next, joinKey);
      before = next;
    }
    const apply = (): void => {
      if (walk.steps.length > 0) {
        batch.write(() => store.resync.putJoinKey(groupId, joinKey));
      }
      this.#apply(batch, view, walk, keys);
    };
    return { walk, apply };
  }

  #isSignedBy(certified: CertifiedEntry | undefined, hub: string): boolean {
    const keys = this.#parts.hubKeys.of(hub);
    return (certified?.signatures ?? []).some(
      ({ domain, signPub }) =>
        domain === hub && keys.some((key) => Buffer.compare(key, signPub) === 0),
    );
  }

  #apply(batch: Batch, view: LogView, walk: Walk, keys: readonly EnvelopeKey[]): void {
    this.#judge(batch, view, walk);
    this.#parts.standings.saw(batch, view, walk);
    const active = walk.steps.filter(({ next }) => next.isActive);
    const removal = walk.steps.find(({ next }) => !next.isActive);
    const last = active.at(-1);
    const key = keys.at(-1);
    if (last !== undefined && key !== undefined) {
      batch.enterEpoch(
        last.next,
        key,
        active.map(({ wipe }) => wipe),
      );
      this.#enter(batch, view.group, active, keys);
    }
    if (removal !== undefined) this.#leave(batch, removal);
    const isLeftBehind = walk.isLeftBehind && walk.steps.length === 0;
    if (walk.invalid.length > 0 && walk.doubts.length === 0) this.standOver(batch, walk.group);
    if (isLeftBehind || this.#parts.standings.isAlone(walk.group)) {
      this.lose(batch, walk.group, 'BEHIND');
    }
  }

  /** Part of a batch: somebody has to commit, so that who comes back finds the group behind that junk. */
  standOver(batch: Batch, group: MlsGroup): void {
    const { store, runtime, onMoved } = this.#parts;
    const { groupId, epoch } = group;
    if (!group.isActive || batch.conversationOfGroup(groupId)?.ended !== undefined) return;
    const devices = group.members().length;
    let isNew = false;
    batch.write(() => {
      isNew = putOverJunk(store, { groupId, epoch, devices }, batch.nowMs, runtime.random);
    });
    batch.after(() => {
      if (isNew) onMoved(groupId);
    });
  }

  #enter(
    batch: Batch,
    before: MlsGroup,
    steps: readonly Step[],
    keys: readonly EnvelopeKey[],
  ): void {
    const { store, runtime, events, tokens, onMoved } = this.#parts;
    const last = steps.at(-1);
    if (last === undefined) return;
    const { groupId, info } = last.next;
    const grown = steps.filter(({ next }, index) => addsTo(steps[index - 1]?.next ?? before, next));
    const isOnlyOwn = grown.every(({ isOwn }) => isOwn);
    const told: ClientEvent[] = steps.flatMap(({ next, by }, index) =>
      groupEvents(steps[index - 1]?.next ?? before, next, by),
    );
    batch.write(() => {
      for (const envelopeKey of keys) store.groups.putEnvelopeKey(envelopeKey);
      for (const { entry, control } of steps) {
        store.groupLog.putHead(groupId, headOf(entry, control));
      }
      if (grown.length > 0) tokens.grew(info.conversationId, isOnlyOwn);
      if (before.info.name !== info.name) store.groups.setName(info.conversationId, info.name);
      this.#regain(batch, last.next);
      if (isToAskAgain(before, last.next)) askAgain(store, groupId, batch.nowMs);
      told.push(...this.#settlePendings(groupId, steps, batch.nowMs));
      for (const id of overJunkBefore(store, groupId, last.next.epoch)) {
        told.push(...this.end(id, 'SUPERSEDED', undefined, batch.nowMs));
      }
      if (steps.some(({ isOwn }) => isOwn)) {
        const sentCount = batch.conversationOfGroup(groupId)?.sentCount ?? 0;
        store.groupLog.putRekey(nextRekey(groupId, sentCount, batch.nowMs, runtime.random));
      }
    });
    batch.after(() => {
      for (const event of told) events.emit(event);
      if (grown.length > 0) tokens.wake();
      if (told.some(({ type }) => type === 'waitsForToken')) tokens.changed();
      onMoved(groupId);
    });
  }

  /** Commits of the epochs that are over: one of them won, or none did. */
  #settlePendings(groupId: Uint8Array, steps: readonly Step[], nowMs: number): ClientEvent[] {
    const { groupLog } = this.#parts.store;
    const { random } = this.#parts.runtime;
    const ended: ClientEvent[] = [];
    for (const pending of groupLog.pendings(groupId)) {
      const { commitHash, intentId, isLast, isRefused } = pending;
      const won = steps.find(
        ({ entry }) => Buffer.compare(entry.entry.commitHash, commitHash) === 0,
      );
      if (won !== undefined) {
        ended.push(...this.#keepWelcomes(pending, won, nowMs));
        groupLog.addCommit(intentId);
        if (isLast) ended.push(...this.end(intentId, 'DONE', undefined, nowMs));
      } else if (!isRefused) {
        const intent = groupLog.intent(intentId);
        const { lost = 0 } = intent ?? {};
        const { lostRaces, lostBackOffMs } = walkerLimits;
        const boundMs = lostBackOffMs * 2 ** Math.min(lost, lostRaces);
        groupLog.addLost(intentId, nowMs + jitter(random, boundMs));
        // Nobody waits for a duty, or would want it again: it goes on.
        const isWanted = intent !== undefined && isWish(decodeIntent(intent));
        if (isWanted && lost + 1 >= lostRaces) {
          ended.push(...this.end(intentId, 'REFUSED', 'EPOCH_CONFLICT', nowMs));
        }
      }
    }
    groupLog.deletePendings(groupId);
    return ended;
  }

  /** Returns what is to be told of Welcomes that came back already, since their inboxes were full for strangers. */
  #keepWelcomes(
    pending: PendingRow,
    { entry: { epoch }, control }: Step,
    nowMs: number,
  ): readonly ClientEvent[] {
    const { store, contacts, runtime } = this.#parts;
    if (control.entry === undefined) return [];
    const { welcomeMid } = pending;
    const { groupId } = pending;
    const about = { kind: 'HANDSHAKE', groupId, epoch: BigInt(epoch) } as const;
    const prekeyOf = (rid: Uint8Array): Uint8Array | undefined => contacts.prekey(rid);
    const joinKey = store.resync.joinKey(groupId);
    for (const copy of welcomeCopies(pending, control.entry, prekeyOf, runtime.random, joinKey)) {
      store.outbox.addSent({ ...copy, messageId: undefined, about }, nowMs, welcomeMid);
    }
    if (welcomeMid === undefined) return [];
    return store.groupLog
      .bouncedWelcomes(pending.commitHash)
      .filter((rid) => store.outbox.returnForToken(welcomeMid, rid, nowMs).length > 0)
      .map((rid) => ({ type: 'waitsForToken', messageId: undefined, rid }));
  }

  /** This device was removed. */
  #leave(batch: Batch, { next, wipe, by, entry, control }: Step): void {
    const { store, events, onMoved } = this.#parts;
    const { groupId } = next;
    const { conversationId } = next.info;
    batch.useKeys(next, next.epoch, wipe);
    const ended: ClientEvent[] = [];
    batch.write(() => {
      store.groupLog.putHead(groupId, headOf(entry, control));
      store.groupLog.deletePendings(groupId);
      store.groupLog.deleteRekey(groupId);
      let hasLeft = false;
      for (const { id, kind } of store.groupLog.openIntents(groupId)) {
        const isLeave = kind === 'leave';
        hasLeft ||= isLeave;
        const [state, reason] = isLeave ? (['DONE'] as const) : (['REFUSED', 'REMOVED'] as const);
        ended.push(...this.end(id, state, reason, batch.nowMs));
      }
      store.groups.setEnded(conversationId, hasLeft ? 'LEFT' : 'REMOVED');
    });
    batch.after(() => {
      events.emit({ type: 'removed', conversationId, by });
      for (const event of ended) events.emit(event);
      onMoved(groupId);
    });
  }

  /** Part of a transaction; what is to be told once it is durable. */
  end(
    intentId: number,
    state: IntentEnd,
    reason: string | undefined,
    nowMs: number,
  ): readonly ClientEvent[] {
    const { groupLog, groups } = this.#parts.store;
    const intent = groupLog.intent(intentId);
    if (intent?.state !== 'OPEN') return [];
    groupLog.endIntent(intentId, state, reason, nowMs);
    const conversationId = groups.conversationOfGroup(intent.groupId)?.id;
    const isTold = isWish(decodeIntent(intent)) && conversationId !== undefined;
    if (!isTold) return [];
    const { kind } = intent;
    const outcome = intentOutcomes[state];
    return [{ type: 'groupChange', conversationId, intentId, kind, outcome, reason }];
  }

  /** Whether an entry of a passed epoch contradicts the one that was applied. */
  #judge(batch: Batch, { group }: LogView, { passed }: Walk): void {
    const { store, events, hubKeys } = this.#parts;
    const { groupId } = group;
    for (const { entry, certified } of passed) {
      const ours = store.groupLog.headAt(groupId, entry.epoch);
      if (ours === undefined || Buffer.compare(ours.hash, entry.hash) === 0) continue;
      // More than half of the others go on behind this one, without what was applied here.
      const isPassedOver = this.#parts.standings.of(group, ours.hash)?.decision === 'rejected';
      if (isPassedOver && entry.entry.rejects.some((one) => sameBytes(one, ours.hash))) {
        this.lose(batch, group, 'BEHIND');
      }
      const own = controlOf(ours).entry;
      if (own === undefined) continue;
      const hubs = checkEvidence(own, certified, group.hubs, hubKeys.of);
      if (hubs.length === 0) continue;
      let isNews = false;
      batch.write(() => {
        isNews = store.groupLog.addFork({
          groupId,
          one: toBinary(CertifiedEntrySchema, own),
          other: toBinary(CertifiedEntrySchema, certified),
          hubs,
          atMs: batch.nowMs,
        });
      });
      const { conversationId } = group.info;
      batch.after(() => {
        if (isNews) events.emit({ type: 'fork', conversationId, epoch: entry.epoch, hubs });
      });
    }
  }

  /** This device lost its place: it is to come back by itself. Part of a batch; told once. */
  lose(batch: Batch, { groupId, info, epoch }: MlsGroup, cause: LossCause): void {
    const { store, runtime, events, onLost } = this.#parts;
    const { conversationId } = info;
    const { ended } = batch.conversationOfGroup(groupId) ?? {};
    if (ended !== undefined) return;
    const dueMs = batch.nowMs + jitter(runtime.random, resyncSpreadMs);
    batch.write(() => {
      store.groups.setEnded(conversationId, 'BEHIND');
      store.resync.want(groupId, cause, dueMs);
    });
    batch.after(() => {
      events.emit({ type: 'leftBehind', conversationId, epoch: Number(epoch), cause });
      onLost();
    });
  }

  /** It follows after all. Part of a transaction. */
  #regain(batch: Batch, group: MlsGroup): void {
    const { groups, resync } = this.#parts.store;
    const { groupId, info } = group;
    // Who led it astray goes on there with it.
    if (this.#parts.standings.isAlone(group)) return;
    const row = resync.get(groupId);
    if (batch.conversationOfGroup(groupId)?.ended === 'BEHIND') {
      groups.setEnded(info.conversationId, undefined);
    }
    // Until the log was read to its end, a lost copy of this store may have sealed in each of its epochs.
    if (row?.cause === 'STALE' && !row.isDone && row.tries === 0) return;
    groups.clearStale(groupId);
    resync.dropWanted(groupId);
  }
}

/** Whether a device is in the group that was not. */
function addsTo(before: MlsGroup, after: MlsGroup): boolean {
  const known = new Set(before.members().map(({ identityPub }) => hex(identityPub)));
  return after.members().some(({ identityPub }) => !known.has(hex(identityPub)));
}

/** As the store keeps it. */
export function headOf(
  { epoch, hash }: { readonly epoch: number; readonly hash: Uint8Array },
  control: GroupControl,
): StoredHead {
  return { epoch, hash, control: toBinary(GroupControlSchema, control) };
}

/** Of the own store, which wrote it with `headOf`. */
export function controlOf({ control }: Pick<StoredHead, 'control'>): GroupControl {
  return fromBinary(GroupControlSchema, control);
}
